"""`environment_parameters` as a file has them: numbers, samplers, and curricula that never move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.config.explain import settle
from trainer.config.later import CURRICULUM
from trainer.config.problems import (
    KeyPath,
    Problem,
    dotted,
    nearest,
    one_of,
    show,
    unknown_word,
)
from trainer.config.samplers import SAMPLERS

LESSON_KEYS = ("name", "value", "completion_criteria")
SAMPLER_KEYS = ("sampler_type", "sampler_parameters")

Warn = Callable[[KeyPath, str], None]


class ParameterReader:
    """Reads parameter by parameter; `problems` holds what cannot be read."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self.problems: list[Problem] = []

    def refuse(self, path: KeyPath, text: str) -> None:
        """Notes a problem; nothing is read then."""
        self.problems.append(Problem(path, text))

    def read(self, name: str, value: object, path: KeyPath) -> object:
        """Gives the number (unchecked) or the sampler that a parameter stands for."""
        if not name.isascii() or not name.strip():
            self.refuse(
                path,
                f"environment parameter {show(name)} cannot be sent; expected a name in ASCII, "
                "which is all that the protocol knows. Rename it here and in the scene.",
            )
            return None
        return self.value(value, path)

    def value(self, value: object, path: KeyPath) -> object:
        """Reads what stands behind a name, or behind the `value` of a lesson."""
        if not isinstance(value, dict):
            return value
        if "curriculum" in value:
            return self.curriculum(value, path)
        if not value.keys() & set(SAMPLER_KEYS):
            self.refuse(
                path,
                f"{dotted(path)} is {show(value)}; expected a number, or a mapping with "
                "sampler_type and sampler_parameters.",
            )
            return None
        return self.sampler(value, path)

    def sampler(self, value: dict[str, Any], path: KeyPath) -> object:
        """Reads `{sampler_type: uniform, sampler_parameters: {max_value: 3}}`."""
        kind = value.get("sampler_type")
        sampler = SAMPLERS.get(kind) if isinstance(kind, str) else None
        if sampler is None:
            close = nearest(kind, SAMPLERS) if isinstance(kind, str) else None
            advice = f"; did you mean {close!r}?" if close else f"; expected {one_of(SAMPLERS)}."
            where = (*path, "sampler_type")
            self.refuse(where, f"{dotted(where)} is {show(kind)}{advice}")
            return None
        model = type(sampler().sampler_parameters)
        for key in value:
            if key in SAMPLER_KEYS:
                continue
            text = unknown_word("key", key, path, SAMPLER_KEYS)
            if key in model.model_fields:
                place = dotted((*path, "sampler_parameters"))
                text = f"unknown key {key!r} under {dotted(path)}. It belongs under {place}."
            self.refuse((*path, key), text)
        parameters, where = value.get("sampler_parameters"), (*path, "sampler_parameters")
        if not isinstance(parameters, dict):
            found = show(parameters) if "sampler_parameters" in value else "missing"
            self.refuse(
                where,
                f"{dotted(where)} is {found}; expected a mapping of "
                f"{one_of(model.model_fields)}, or {{}} for the defaults.",
            )
            return None
        known = {key: item for key, item in parameters.items() if key in model.model_fields}
        for key in parameters.keys() - known.keys():
            self.refuse((*where, key), unknown_word("key", key, where, model.model_fields))
        settled, problems = settle(model, known, where)
        self.problems += problems
        return sampler.model_validate({"sampler_type": kind, "sampler_parameters": settled})

    def curriculum(self, value: dict[str, Any], path: KeyPath) -> object:
        """Reads a curriculum of one lesson, which never moves on.

        ML-Agents' own configuration.yaml writes every parameter in this form.
        """
        where = (*path, "curriculum")
        if others := sorted(value.keys() - {"curriculum"}):
            text = f"unknown key {others[0]!r} beside {dotted(where)}. Remove it."
            self.refuse((*path, others[0]), text)
        lessons = value["curriculum"]
        if not isinstance(lessons, list) or not lessons:
            self.refuse(where, f"{dotted(where)} is {show(lessons)}; expected a list of lessons.")
            return None
        if len(lessons) > 1:
            self.refuse(where, CURRICULUM.refusal(dotted(where)))
            return None
        lesson, where = lessons[0], (*where, 0)
        if not isinstance(lesson, dict):
            keys = one_of(LESSON_KEYS)
            self.refuse(where, f"{dotted(where)} is {show(lesson)}; expected a mapping of {keys}.")
            return None
        for key in lesson.keys() - set(LESSON_KEYS):
            self.refuse((*where, key), unknown_word("key", key, where, LESSON_KEYS))
        for key in ("name", "value"):
            if lesson.get(key) is None:
                self.refuse(where, f"{dotted(where)} has no {key}; every lesson needs one. Add it.")
                return None
        if lesson.get("completion_criteria") is not None:
            self._warn(
                (*where, "completion_criteria"),
                "has no effect, no lesson follows the last one. Remove it",
            )
        return self.value(lesson["value"], (*where, "value"))
