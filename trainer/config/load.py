"""From a YAML file and a command line to `RunSettings`, or to all that is wrong with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.behavior_settings import BehaviorSettings
from trainer.config.clean import Cleaner
from trainer.config.document import Document, read_document
from trainer.config.errors import ConfigError
from trainer.config.explain import settle
from trainer.config.flags import ALL_NETWORKS, TOP_LEVEL, flag_of
from trainer.config.problems import MOST_PROBLEMS, KeyPath, Problem, dotted
from trainer.config.settings import EDITOR_PORT, CheckpointSettings, RunSettings
from trainer.config.upgrade.dialect import Upgrade, unsheltered, upgraded
from trainer.config.upgrade.emit import emit

if TYPE_CHECKING:
    import yaml

logger = logging.getLogger(__name__)

Overrides = Mapping[str, Mapping[str, object]]
NO_OVERRIDES: Overrides = {}
ML_AGENTS_BASE_PORT = 5005
MOST_LINES_SHOWN = 40


def load_run(path: Path | None, overrides: Overrides = NO_OVERRIDES) -> RunSettings:
    """Reads the settings of a run.

    Precedence: command line, `behaviors.<name>`, `default_settings`, defaults.

    Args:
        path: the YAML file; None for defaults, whatever behaviours the simulator has.
        overrides: typed flags by section and key, see `flags.parse_train`.

    Raises:
        ConfigError: with every problem of the file, in its order.
    """
    return resolve(None if path is None else read_document(path), overrides)


def resolve(document: Document | None, overrides: Overrides = NO_OVERRIDES) -> RunSettings:
    """Reads the settings of a run from a parsed file; see `load_run`."""
    places = Places(document, overrides)
    tree: dict[str, Any] = {"default_settings": {}}
    problems: list[Problem] = []
    if document is not None:
        tree, problems = understood(document, places)
    apply_flags(tree, overrides)
    settings, found = settle_run(tree)
    places.report([*problems, *found])
    return editor_reached(start_resolved(settings, overrides))


class Places:
    """Knows where a setting comes from, to say so in messages."""

    def __init__(self, document: Document | None, overrides: Overrides) -> None:
        self.document = document
        self.typed = {
            (section, key) if section != TOP_LEVEL else (key,)
            for section, keys in overrides.items()
            for key in keys
        }

    def source(self, path: KeyPath) -> KeyPath | None:
        """Gives the key that set the value at `path`; None when it is a default."""
        if path in self.typed or (self.document is not None and self.document.has(path)):
            return path
        if path[:1] == ("behaviors",) and path[2:]:
            return self.source(("default_settings", *path[2:]))
        return None

    def of(self, problem: Problem) -> tuple[int, int, str]:
        """Gives line, column and the beginning of a problem's message."""
        sources = (self.source(path) for path in problem.related or (problem.path,))
        path = next((source for source in sources if source is not None), problem.path)
        if path in self.typed:
            return 0, 0, flag_of(path)
        if self.document is None:
            return 0, 0, "command line"
        place = self.document.place(path)
        where = f"{self.document.path}:{place.line}:{place.column}"
        return place.line, place.column, where

    def warn(self, path: KeyPath, text: str) -> None:
        """Logs something that is accepted but should be changed."""
        logger.warning("%s: %s %s.", self.of(Problem(path, ""))[2], dotted(path), text)

    def report(self, problems: list[Problem]) -> None:
        """Raises one error for all problems, or the first MOST_PROBLEMS, if there are any."""
        placed = sorted({(*self.of(problem), problem.text) for problem in problems[:MOST_PROBLEMS]})
        if placed:
            raise ConfigError(*(f"{where}: {text}" for _, _, where, text in placed))


def understood(document: Document, places: Places) -> tuple[dict[str, Any], list[Problem]]:
    """Gives the known part of a file, and the problems with the rest."""
    problems = list(document.problems)
    if lost := unsheltered(document.values):
        places.report([*problems, lost])
    if not problems and (upgrade := upgraded(document)):
        assert document.root is not None
        warn_of_old_format(document.path, upgrade, document.root)
        document = places.document = upgrade.document
    cleaner = Cleaner(document, places.warn)
    tree = cleaner.clean()
    problems += cleaner.problems
    if not problems and not tree.get("behaviors") and "default_settings" not in tree:
        text = (
            "no behaviour is named; expected `behaviors:` with at least one name below it, or "
            "default_settings."
        )
        problems.append(Problem(("behaviors",), text))
    return tree, problems


def warn_of_old_format(path: Path, upgrade: Upgrade, original: yaml.Node) -> None:
    """Shows the lines that an old file should have, and what of it no longer counts."""
    lines = emit(upgrade.document, original)[0].splitlines()
    if len(lines) > MOST_LINES_SHOWN:
        left = len(lines) - MOST_LINES_SHOWN
        lines[MOST_LINES_SHOWN:] = [f"... ({left} more: ppo-train upgrade {path})"]
    logger.warning(
        "%s: is in the format of %s; read as these lines. Write them with: "
        "ppo-train upgrade %s -o new.yaml\n%s",
        path,
        upgrade.format,
        path,
        "\n".join(f"    {line}".rstrip() for line in lines),
    )
    for place, text in upgrade.notes:
        logger.warning("%s:%d:%d: %s.", path, place.line, place.column, text)


def apply_flags(tree: dict[str, Any], overrides: Overrides) -> None:
    """Puts typed flags over the file's values."""
    for section, typed in overrides.items():
        if section == TOP_LEVEL:
            tree.update(typed)
        elif section == ALL_NETWORKS:
            behaviors = [*tree.get("behaviors", {}).values(), tree.get("default_settings")]
            for behavior in behaviors:
                if behavior is not None:
                    behavior.setdefault("network_settings", {}).update(typed)
        else:
            tree.setdefault(section, {}).update(typed)


def settle_run(tree: dict[str, Any]) -> tuple[RunSettings, list[Problem]]:
    """Reads the whole tree, behaviours on top of default_settings."""
    problems: list[Problem] = []
    behaviors: dict[str, dict[str, Any]] = tree.get("behaviors", {})
    for name, own in behaviors.items():
        if "hyperparameters" in own and not trainer_is_named(own, tree):
            problems.append(hyperparameters_of_nobody(name))
    expanded: dict[str, Any] = {}
    if "default_settings" in tree:
        defaults, found = settle(BehaviorSettings, tree["default_settings"], ("default_settings",))
        problems += found
        expanded = defaults.model_dump()
    merged = {name: deep_merge(fitting(expanded, own), own) for name, own in behaviors.items()}
    settings, found = settle(RunSettings, {**tree, "behaviors": merged}, ())
    return settings, [*problems, *found]


def fitting(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leaves out hyperparameters that are for another trainer_type than the behaviour's own."""
    if own.get("trainer_type", defaults.get("trainer_type")) == defaults.get("trainer_type"):
        return defaults
    return {key: value for key, value in defaults.items() if key != "hyperparameters"}


def trainer_is_named(own: Mapping[str, Any], tree: Mapping[str, Any]) -> bool:
    """Tells whether it is said what a behaviour's hyperparameters are for."""
    return "trainer_type" in own or "default_settings" in tree


def hyperparameters_of_nobody(name: str) -> Problem:
    """Words for ML-Agents' own rule that hyperparameters need a trainer_type beside them."""
    where = ("behaviors", name, "hyperparameters")
    return Problem(
        where,
        f"{dotted(where)} is given without trainer_type, and each trainer has other "
        "hyperparameters. Add `trainer_type: ppo` beside it.",
    )


def deep_merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested mappings into a new one; `above` wins."""
    merged = {
        key: deep_merge(value, {}) if isinstance(value, dict) else value
        for key, value in below.items()
    }
    for key, value in above.items():
        known = merged.get(key)
        if isinstance(value, dict):
            merged[key] = deep_merge(known if isinstance(known, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def start_resolved(settings: RunSettings, overrides: Overrides) -> RunSettings:
    """Settles `resume` against `initialize_from` (a typed flag wins, else resume) and `force`."""
    chosen = source_resolved(settings.checkpoint_settings, overrides)
    if chosen.resume and chosen.force:
        logger.warning(
            "resume wins over force: run %r goes on, and nothing of it is written over.",
            chosen.run_id,
        )
        chosen = chosen.model_copy(update={"force": False})
    return settings.model_copy(update={"checkpoint_settings": chosen})


def source_resolved(chosen: CheckpointSettings, overrides: Overrides) -> CheckpointSettings:
    """Settles `resume` against `initialize_from`: a typed flag wins, else resume."""
    if not (chosen.resume and chosen.initialize_from):
        return chosen
    typed = overrides.get("checkpoint_settings", {})
    if "initialize_from" in typed and "resume" not in typed:
        logger.warning(
            "--initialize-from %s wins over `resume: true` of the file: a new run begins.",
            chosen.initialize_from,
        )
        return chosen.model_copy(update={"resume": False})
    logger.warning(
        "resume wins over initialize_from %r: run %r goes on with its own weights.",
        chosen.initialize_from,
        chosen.run_id,
    )
    return chosen.model_copy(update={"initialize_from": None})


def editor_reached(settings: RunSettings) -> RunSettings:
    """Drops ML-Agents' default base_port, which its own files spell out, for the Editor."""
    env = settings.env_settings
    is_editor = env.env_path is None and not settings.listen_settings.is_guarded
    if not is_editor or env.base_port != ML_AGENTS_BASE_PORT:
        return settings
    logger.warning(
        "env_settings.base_port %d, ML-Agents' default for builds, has no effect without env_path: "
        "the Unity Editor is waited for on port %d. Remove it.",
        ML_AGENTS_BASE_PORT,
        EDITOR_PORT,
    )
    env = env.model_copy(update={"base_port": None})
    return settings.model_copy(update={"env_settings": env})
