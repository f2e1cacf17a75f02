"""Settings that may change while a run goes on (`ppo-train set`), and what a resumed run keeps.

A change is part of the checkpoint, beside the value that the settings file had then. When the run
is resumed it holds as long as the file still says the same; a file that was changed since wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.config.behavior_settings import BehaviorSettings
from trainer.config.errors import ConfigError
from trainer.config.explain import settle
from trainer.config.problems import nearest, one_of, show
from trainer.config.settings import RunSettings
from trainer.control_client import CommandError

Number = int | float
Changes = dict[str, dict[str, Number]]
"""By key: `file`, what the settings file said, and `now`, what holds instead."""

SETTABLE: Mapping[str, tuple[str, ...]] = {
    "learning_rate": ("hyperparameters", "learning_rate"),
    "epsilon": ("hyperparameters", "epsilon"),
    "beta": ("hyperparameters", "beta"),
    "max_steps": ("max_steps",),
    "summary_freq": ("summary_freq",),
}


def has(settings: BehaviorSettings, key: str) -> bool:
    """Tells whether a behaviour's trainer_type knows a key of `SETTABLE`."""
    *outer, last = SETTABLE[key]
    return not outer or hasattr(settings.hyperparameters, last)


def value_of(settings: BehaviorSettings, key: str) -> Number:
    """Gives the value of a key of `SETTABLE` that the behaviour has."""
    value: Any = settings
    for part in SETTABLE[key]:
        value = getattr(value, part)
    assert isinstance(value, int | float)
    return value


def changed(
    name: str, settings: BehaviorSettings, values: Mapping[str, object]
) -> BehaviorSettings:
    """Gives a behaviour's settings with other values, checked as those of the file are.

    Args:
        name: of the behaviour, for messages.
        settings: as they are.
        values: by key of `SETTABLE`; texts are read as YAML's are.

    Raises:
        CommandError: a key is not known or cannot be changed, or a value is wrong.
    """
    tree = settings.model_dump()
    for key, value in values.items():
        if key not in SETTABLE:
            close = nearest(key, SETTABLE)
            advice = f"Did you mean {close!r}?" if close else f"Expected {one_of(SETTABLE)}."
            raise CommandError(f"{show(key)} cannot be set while a run goes on. {advice}")
        if not has(settings, key):
            raise CommandError(f"trainer_type {settings.trainer_type} of {name!r} has no {key}.")
        place = tree
        *outer, last = SETTABLE[key]
        for part in outer:
            place = place[part]
        place[last] = value
    # As a part of a whole run: messages name the place in the file.
    found, problems = settle(RunSettings, {"behaviors": {name: tree}}, ())
    if problems:
        raise CommandError(" ".join(problem.text for problem in problems))
    return found.behaviors[name]


def noted(before: Changes, old: BehaviorSettings, new: BehaviorSettings) -> Changes:
    """Gives what is to be remembered after settings have changed from `old` to `new`."""
    changes = {key: dict(change) for key, change in before.items()}
    for key in SETTABLE:
        if has(new, key) and value_of(old, key) != value_of(new, key):
            file = before[key]["file"] if key in before else value_of(old, key)
            changes[key] = {"file": file, "now": value_of(new, key)}
    return {key: change for key, change in changes.items() if change["file"] != change["now"]}


def with_changes(
    name: str, settings: BehaviorSettings, changes: Changes
) -> tuple[BehaviorSettings, Changes]:
    """Gives the settings that a resumed behaviour goes on with, and the changes among them.

    Args:
        name: of the behaviour.
        settings: of the file, as it is now.
        changes: of the checkpoint.

    Raises:
        ConfigError: a change contradicts something that the file says now.
    """
    kept = {
        key: change
        for key, change in changes.items()
        if has(settings, key) and change["file"] == value_of(settings, key)
    }
    if not kept:
        return settings, {}
    try:
        values = {key: change["now"] for key, change in kept.items()}
        return changed(name, settings, values), kept
    except CommandError as error:
        raise ConfigError(
            f"What `ppo-train set` has changed in this run does not go with the settings file any "
            f"more: {error} Write the values into the file."
        ) from error


def in_words(changes: Changes) -> str:
    """Lists changes: `learning_rate 0.0001 (the file: 0.0003)`."""
    return ", ".join(
        f"{key} {change['now']:g} (the file: {change['file']:g})"
        if isinstance(change["now"], float)
        else f"{key} {change['now']} (the file: {change['file']})"
        for key, change in changes.items()
    )
