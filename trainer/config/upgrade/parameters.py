"""`parameter_randomization` and `curriculum` of ML-Agents 0.17 and 0.18, as today's parameters."""

from __future__ import annotations

from collections.abc import Callable

import yaml

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
    sequence,
)

INLINE = ("min_value", "max_value", "mean", "st_dev", "intervals", "value", "seed")
OLD_KINDS = {"multirange_uniform": "multirangeuniform"}

Note = Callable[[yaml.Node, str], None]


def parameters_upgraded(given: Entries, note: Note) -> Entries:
    """Puts samplers and lessons into `environment_parameters`."""
    kept = {name: entry for name, entry in given.items() if name != "environment_parameters"}
    randomized = kept.pop("parameter_randomization", None)
    curriculum = kept.pop("curriculum", None)
    first = next(entry for entry in (randomized, curriculum) if entry is not None)
    for key, value in (entry for entry in (randomized, curriculum) if entry is not None):
        if not is_mapping(value) and value.tag != NULL:
            # Whoever reads today's format says what is wrong with it, in its own line.
            return {**kept, "environment_parameters": (named(key, "environment_parameters"), value)}
    parameters: Entries = {}
    if curriculum is not None and is_mapping(curriculum[1]):
        for behavior, (key, value) in entries(curriculum[1]).items():
            if is_mapping(value):
                parameters.update(lessons(behavior, key, entries(value), note))
            else:
                note(key, f"the curriculum of {behavior} is left out: it is no mapping")
    if randomized is not None and is_mapping(randomized[1]):
        for name, (key, value) in entries(randomized[1]).items():
            if name in ("resampling-interval", "resampling_interval"):
                note(key, f"{name} is left out: parameters are drawn for every episode")
                continue
            if name in parameters:
                note(parameters[name][0], f"the curriculum of {name} is left out: it has a sampler")
            parameters[name] = (key, sampler(value) if is_mapping(value) else value)
    own = given.get("environment_parameters")
    if own is not None and is_mapping(own[1]):
        parameters.update(entries(own[1]))
    key = named(first[0], "environment_parameters")
    return {**kept, "environment_parameters": (key, mapping(list(parameters.values()), first[0]))}


def sampler(node: yaml.MappingNode) -> yaml.MappingNode:
    """Gives `{sampler-type: uniform, min_value: 1}` in today's form."""
    kind = entries(node).get("sampler_type")
    is_new = kind is not None and kind[1].value not in OLD_KINDS
    if is_new and "sampler_parameters" in entries(node):
        return node
    top: list[Entry] = []
    inline: list[Entry] = []
    for name, (key, value) in entries(node).items():
        if name in ("sampler-type", "sampler_type"):
            if isinstance(value, yaml.ScalarNode) and value.value in OLD_KINDS:
                value = scalar("str", OLD_KINDS[value.value], value)
            top.insert(0, (named(key, "sampler_type"), value))
        elif name in INLINE:
            inline.append((key, value))
        else:
            top.append((key, value))
    if "sampler_parameters" not in entries(node):
        like = inline[0][0] if inline else node
        top.append(made("sampler_parameters", mapping(inline, like)))
    else:
        top += inline  # both forms at once is a mistake, which the reader of today's form tells
    return mapping(top, node)


def lessons(behavior: str, key: yaml.Node, old: Entries, note: Note) -> Entries:
    """Gives the parameters of one behaviour's curriculum, each with its lessons."""
    given = old.get("parameters")
    if given is None or not is_mapping(given[1]):
        note(key, f"the curriculum of {behavior} is left out: it names no parameters")
        return {}
    ends = old.get("thresholds")
    thresholds = ends[1].value if ends and isinstance(ends[1], yaml.SequenceNode) else []
    if ends and not isinstance(ends[1], yaml.SequenceNode):
        note(ends[0], f"thresholds of {behavior} is left out: it is no list")
    upgraded: Entries = {}
    for name, (parameter, values) in entries(given[1]).items():
        if not isinstance(values, yaml.SequenceNode):
            upgraded[name] = (parameter, values)
            continue
        found: list[yaml.Node] = []
        for number, value in enumerate(values.value):
            lesson = [made("name", scalar("str", f"Lesson{number}", value)), made("value", value)]
            if number < len(thresholds):
                criteria = completion(key, behavior, old, thresholds[number])
                lesson.append(made("completion_criteria", criteria))
            found.append(mapping(lesson, value))
        upgraded[name] = (parameter, mapping([made("curriculum", sequence(found, values))], values))
    return upgraded


def completion(
    key: yaml.Node, behavior: str, old: Entries, threshold: yaml.Node
) -> yaml.MappingNode:
    """Gives when a lesson is over; what the old curriculum left out has its old default."""

    def of(name: str, kind: str, default: str) -> yaml.Node:
        return old[name][1] if name in old else scalar(kind, default, key)

    return mapping(
        [
            made("behavior", scalar("str", behavior, key)),
            made("measure", of("measure", "str", "reward")),
            made("threshold", threshold),
            made("min_lesson_length", of("min_lesson_length", "int", "1")),
            made("signal_smoothing", of("signal_smoothing", "bool", "false")),
        ],
        key,
    )


def lessons_unwrapped(given: Entries) -> bool:
    """Turns `- Lesson0: {value: 1}` into `- name: Lesson0`; tells whether there was one."""
    parameters = given.get("environment_parameters")
    if parameters is None or not is_mapping(parameters[1]):
        return False
    found = False
    for _, value in entries(parameters[1]).values():
        curriculum = entries(value).get("curriculum") if is_mapping(value) else None
        if curriculum is None or not isinstance(curriculum[1], yaml.SequenceNode):
            continue
        for index, lesson in enumerate(curriculum[1].value):
            if not is_mapping(lesson) or len(lesson.value) != 1:
                continue
            name, inner = lesson.value[0]
            if is_mapping(inner) and "value" in entries(inner):
                label = (key_like("name", name), scalar("str", name.value, name))
                curriculum[1].value[index] = mapping([label, *inner.value], name)
                found = True
    return found
