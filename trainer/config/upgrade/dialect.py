"""Older formats of ML-Agents' settings, turned into today's.

The work is done on YAML nodes, which remember their line: what is wrong in an old file is told with
the old file's lines, and its comments can follow their keys. Source: section 6 of ML-Agents' facts.

- 0.16 and older: behaviours at the top level, their settings in one flat mapping, and a `default`.
- 0.17 and 0.18: `parameter_randomization` and `curriculum` beside `behaviors`.
- What ML-Agents' own converter wrote: lessons as `- Lesson0: {...}` instead of `- name: Lesson0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import yaml

from trainer.config.document import Document, Place, rebuilt
from trainer.config.problems import Problem, dotted
from trainer.config.settings import RunSettings
from trainer.config.upgrade.nodes import (
    NULL,
    Entries,
    Entry,
    entries,
    is_mapping,
    key_like,
    made,
    mapping,
    named,
    scalar,
    without_lines,
)
from trainer.config.upgrade.parameters import lessons_unwrapped, parameters_upgraded

HYPERPARAMETERS = (
    "batch_size",
    "buffer_size",
    "learning_rate",
    "learning_rate_schedule",
    "beta",
    "epsilon",
    "lambd",
    "lambda",
    "num_epoch",
    "buffer_init_steps",
    "tau",
    "steps_per_update",
    "save_replay_buffer",
    "init_entcoef",
    "reward_signal_steps_per_update",
)
NETWORK = ("normalize", "hidden_units", "num_layers", "vis_encode_type")
MEMORY = ("use_recurrent", "sequence_length", "memory_size")
RENAMED = {"pretraining": "behavioral_cloning"}
GONE = {
    "summary_path": "a run's files lie in its folder below results_dir",
    "model_path": "a run's files lie in its folder below results_dir",
    "output_path": "a run's files lie in its folder below results_dir",
}
FLAT = {"trainer", *HYPERPARAMETERS, *NETWORK, *MEMORY}
NESTED = {"trainer_type", "hyperparameters", "network_settings"}
OF_018 = ("parameter_randomization", "curriculum")

Note = Callable[[yaml.Node, str], None]


@dataclass
class Upgrade:
    """An old file in today's format."""

    document: Document  # of the new format; places are those of the old file
    format: str  # what the old format is called
    notes: list[tuple[Place, str]] = field(default_factory=list)  # what could not be kept

    def note(self, node: yaml.Node, text: str) -> None:
        """Says what does not come along."""
        self.notes.append((Place.of(node.start_mark), text))


def upgraded(
    document: Document, curriculum: Document | None = None, sampler: Document | None = None
) -> Upgrade | None:
    """Gives an old file in today's format; None when it is in that already.

    Args:
        document: parsed, without duplicate keys.
        curriculum: the file that 0.16 took as `--curriculum`.
        sampler: the file that 0.16 took as `--sampler`.
    """
    root = document.root
    if not is_mapping(root):
        return None
    given = entries(root)
    upgrade = Upgrade(document, "")
    if is_flat(given):
        upgrade.format = "ML-Agents 0.16 and older"
        given = behaviors_gathered(given, upgrade.note)
    elif any(key in given for key in OF_018):
        upgrade.format = "ML-Agents 0.17 and 0.18"
    for key, extra in (("curriculum", curriculum), ("parameter_randomization", sampler)):
        if extra is not None and is_mapping(extra.root):
            upgrade.format = upgrade.format or "ML-Agents 0.17 and 0.18"
            foreign = without_lines(extra.root)
            given[key] = (key_like(key, foreign), foreign)
    if any(key in given for key in OF_018):
        given = parameters_upgraded(given, upgrade.note)
    elif lessons_unwrapped(given):
        upgrade.format = "ML-Agents' own upgrade_config"
    if not upgrade.format:
        return None
    upgrade.document = rebuilt(document, mapping(list(given.values()), root))
    return upgrade


def is_flat(given: Entries) -> bool:
    """Recognises 0.16 and older."""
    if given.keys() & RunSettings.model_fields.keys():
        return False
    behaviors = [entries(value).keys() for _, value in given.values() if is_mapping(value)]
    return any(keys & FLAT for keys in behaviors) and not any(keys & NESTED for keys in behaviors)


def unsheltered(values: object) -> Problem | None:
    """Recognises today's settings of a behaviour without `behaviors:` above them."""
    if not isinstance(values, dict) or values.keys() & {"behaviors", "default_settings"}:
        return None
    for name, value in values.items():
        if isinstance(value, dict) and value.keys() & NESTED and name != "default_settings":
            return Problem(
                (name,),
                f"{dotted((name,))} stands at the top level; expected it below `behaviors:`. Write "
                "`behaviors:` above it and indent it by two spaces.",
            )
    return None


# ---- 0.16 and older ------------------------------------------------------------------------------


def behaviors_gathered(given: Entries, note: Note) -> Entries:
    """Puts all behaviours below `behaviors:`, and `default` into `default_settings`."""
    above: Entries = {}
    default = given.get("default")
    shared = entries(default[1]) if default is not None and is_mapping(default[1]) else {}
    if default is not None and is_mapping(default[1]):
        label = named(default[0], "default_settings")
        above["default_settings"] = (label, nested(default[1], {}, note))
    behaviors: list[Entry] = []
    for name, entry in given.items():
        if name == "default" and shared:
            continue
        key, value = entry[0], followed(name, entry[1], given, note)
        if is_mapping(value):
            value = nested(value, shared, note)
            signals_kept(name, value, shared, note)
        elif value.tag == NULL:
            value = mapping([], value)
        behaviors.append((key, value))
    first = behaviors[0][0] if behaviors else above["default_settings"][0]
    above["behaviors"] = made("behaviors", mapping(behaviors, first))
    return above


def followed(name: str, value: yaml.Node, given: Entries, note: Note) -> yaml.Node:
    """Gives the settings of a behaviour that only names another one; the format allowed that."""
    seen = {name}
    while isinstance(value, yaml.ScalarNode) and value.value in given and value.value not in seen:
        seen.add(value.value)
        note(value, f"{name}: {value.value} is written out, today's format has no such reference")
        value = given[value.value][1]
    return value


def nested(node: yaml.MappingNode, shared: Entries, note: Note) -> yaml.MappingNode:
    """Sorts the flat settings of one behaviour.

    Args:
        node: its mapping.
        shared: the flat entries of `default`.
        note: hears what does not come along.
    """
    flat = entries(node)
    sorted_in: Mapping[str, list[Entry]] = {"hyperparameters": [], "network_settings": []}
    top: list[Entry] = []
    rest: list[Entry] = []
    for name, (key, value) in flat.items():
        if name == "trainer":
            top.append((named(key, "trainer_type"), value))
        elif name in HYPERPARAMETERS:
            spelled: yaml.Node = named(key, "lambd") if name == "lambda" else key
            sorted_in["hyperparameters"].append((spelled, value))
        elif name in NETWORK:
            sorted_in["network_settings"].append((key, value))
        elif name in GONE:
            note(key, f"{name} is left out: {GONE[name]}")
        elif name not in MEMORY:
            rest.append((named(key, RENAMED[name]) if name in RENAMED else key, value))
    sorted_in["hyperparameters"].extend(schedules_kept(flat, shared))
    sorted_in["network_settings"].extend(memory(flat, shared, note))
    groups = [made(name, mapping(found, found[0][0])) for name, found in sorted_in.items() if found]
    return mapping([*top, *groups, *rest], node)


def schedules_kept(flat: Entries, shared: Entries) -> list[Entry]:
    """Writes out that beta and epsilon follow the learning rate, which default_settings hides."""
    if not shared or "learning_rate_schedule" not in flat:
        return []
    value = flat["learning_rate_schedule"][1]
    return [made("beta_schedule", value), made("epsilon_schedule", value)]


def memory(flat: Entries, shared: Entries, note: Note) -> list[Entry]:
    """Gives `memory:` from use_recurrent, sequence_length and memory_size."""
    own = [flat[name] for name in MEMORY if name in flat]
    if not own:
        return []
    both = {**shared, **flat}
    switch = both.get("use_recurrent")
    like = own[0][0]
    if switch is None:
        for name in flat.keys() & set(MEMORY):
            note(flat[name][0], f"{name} is left out: without use_recurrent there is no memory")
        return []
    if not is_yes(switch[1]):
        was_on = "use_recurrent" in shared and is_yes(shared["use_recurrent"][1])
        return [made("memory", scalar("null", "null", like))] if was_on else []
    sizes = []
    for name in MEMORY[1:]:
        if name in both:
            key, value = both[name]
            sizes.append((key, value) if name in flat else made(name, value))
    return [made("memory", mapping(sizes, like))]


def is_yes(node: yaml.Node) -> bool:
    """Tells whether a scalar says yes, in any of YAML's spellings."""
    return isinstance(node, yaml.ScalarNode) and node.value.lower() in {"true", "yes", "on"}


def signals_kept(name: str, node: yaml.MappingNode, shared: Entries, note: Note) -> None:
    """Silences reward signals of `default` that the behaviour's own list replaced."""
    own = entries(node).get("reward_signals")
    default = shared.get("reward_signals")
    if own is None or default is None or not (is_mapping(own[1]) and is_mapping(default[1])):
        return
    names = entries(own[1])
    for signal in entries(default[1]).keys() - names.keys():
        note(
            own[0],
            f"{name} gets {signal} with strength 0: its own reward_signals replaced those of "
            "default, today they are added to them",
        )
        silent = mapping([made("strength", scalar("float", "0.0", own[0]))], own[0])
        own[1].value.append(made(signal, silent))
