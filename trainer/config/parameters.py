"""`environment_parameters`: numbers now, and the longer forms of ML-Agents that mean a number."""

from __future__ import annotations

from trainer.config.later import CURRICULUM, SAMPLER
from trainer.config.problems import KeyPath, Problem, dotted, nearest, one_of, show

SAMPLERS = ("constant", "uniform", "gaussian", "multirangeuniform")
LESSON_KEYS = {"name", "value", "completion_criteria"}


def constant_parameter(value: object, path: KeyPath) -> object | Problem:
    """Gives the number a parameter stands for, unchecked, or the problem with it.

    ML-Agents' own configuration.yaml writes every number as a curriculum of one lesson without an
    end, so that form is read too.
    """
    if not isinstance(value, dict):
        return value
    if "curriculum" in value:
        return only_lesson(value, path)
    if "sampler_type" in value or "sampler_parameters" in value:
        return constant_sampler(value, path)
    return Problem(
        path,
        f"{dotted(path)} is {show(value)}; expected a number, or a mapping with sampler_type and "
        "sampler_parameters.",
    )


def only_lesson(value: dict[str, object], path: KeyPath) -> object | Problem:
    """Reads a curriculum that never moves on."""
    if others := sorted(value.keys() - {"curriculum"}):
        return Problem(
            (*path, others[0]),
            f"unknown key {others[0]!r} beside {dotted(path)}.curriculum. Remove it.",
        )
    lessons = value["curriculum"]
    match lessons:
        case [{"value": lesson_value, **rest}] if (
            rest.keys() <= LESSON_KEYS and rest.get("completion_criteria") is None
        ):
            return constant_parameter(lesson_value, path)
    return Problem((*path, "curriculum"), CURRICULUM.refusal(f"{dotted(path)}.curriculum"))


def constant_sampler(value: dict[str, object], path: KeyPath) -> object | Problem:
    """Reads `{sampler_type: constant, sampler_parameters: {value: 3}}`."""
    kind = value.get("sampler_type")
    parameters = value.get("sampler_parameters")
    if unknown := sorted(value.keys() - {"sampler_type", "sampler_parameters"}):
        return Problem(
            (*path, unknown[0]),
            f"unknown key {unknown[0]!r} under {dotted(path)}. Expected sampler_type and "
            "sampler_parameters.",
        )
    if kind not in SAMPLERS:
        close = nearest(kind, SAMPLERS) if isinstance(kind, str) else None
        advice = f"; did you mean {close!r}?" if close else f"; expected {one_of(SAMPLERS)}."
        return Problem(
            (*path, "sampler_type"), f"{dotted(path)}.sampler_type is {show(kind)}{advice}"
        )
    if kind != "constant":
        return Problem((*path, "sampler_type"), SAMPLER.refusal(f"{dotted(path)}.sampler_type"))
    if not isinstance(parameters, dict):
        return Problem(
            (*path, "sampler_parameters"),
            f"{dotted(path)}.sampler_parameters is {show(parameters)}; expected a mapping, such as "
            "{value: 1.0}.",
        )
    if unknown := sorted(parameters.keys() - {"value", "seed"}):
        return Problem(
            (*path, "sampler_parameters", unknown[0]),
            f"unknown key {unknown[0]!r} under {dotted(path)}.sampler_parameters. Expected value "
            "or seed.",
        )
    number: object = parameters.get("value", 0.0)
    return number
