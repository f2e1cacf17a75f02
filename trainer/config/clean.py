"""First look at a file's mappings: keys nobody knows, keys for later, and null sections.

What passes has only keys that the models know; values are the models' business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from envs.folder_names import objection_to_behavior_id, stays_below
from trainer.config.behavior_settings import BehaviorSettings, RewardSignalSettings
from trainer.config.document import Document
from trainer.config.hyperparameters import HYPERPARAMETERS, Hyperparameters
from trainer.config.later import FOREIGN_KEYS, LATER_KEYS, LATER_SIGNALS, LATER_TRAINERS
from trainer.config.legacy import (
    Warn,
    extrinsic_has_no_network,
    framework_is_gone,
    lambda_is_lambd,
    model_keys_are_gone,
)
from trainer.config.model import Settings
from trainer.config.parameters import ParameterReader
from trainer.config.problems import (
    MOST_PROBLEMS,
    KeyPath,
    Problem,
    dotted,
    one_of,
    show,
    unknown_word,
)
from trainer.config.schema import holds, homes, read_by
from trainer.config.settings import CheckpointSettings, RunSettings
from trainer.config.values import Text, Texts

SIGNALS = ("extrinsic",)
LEGACY: Mapping[type[Settings], Callable[[dict[str, Any], KeyPath, Warn], dict[str, Any]]] = {
    **{
        model: lambda_is_lambd
        for model in HYPERPARAMETERS.values()
        if "lambd" in model.model_fields
    },
    BehaviorSettings: framework_is_gone,
    CheckpointSettings: model_keys_are_gone,
    RewardSignalSettings: extrinsic_has_no_network,
}


class Cleaner:
    """Walks a document and keeps what the models know; `problems` holds the rest."""

    def __init__(self, document: Document, warn: Callable[[KeyPath, str], None]) -> None:
        self.document = document
        self.warn = warn
        self.problems: list[Problem] = []

    def clean(self) -> dict[str, Any]:
        """Gives the whole file as far as it is understood."""
        given = self.document.values
        if not isinstance(given, dict):
            self.refuse((), f"holds {show(given)}; expected settings, at least `behaviors:`.")
            return {}
        return self.mapping(given, RunSettings, ())

    def refuse(self, path: KeyPath, text: str) -> None:
        """Notes a problem."""
        self.problems.append(Problem(path, text))

    def mapping(
        self, given: Mapping[str, Any], model: type[Settings], path: KeyPath
    ) -> dict[str, Any]:
        """Cleans one mapping and those below it."""
        if model in LEGACY:
            given = LEGACY[model](dict(given), path, self.warn)
        if model is BehaviorSettings:
            given = self.behavior(given, path)
        kept: dict[str, Any] = {}
        for key, value in given.items():
            if len(self.problems) >= MOST_PROBLEMS:
                break
            where = (*path, key)
            later = LATER_KEYS.get(model, {}).get(key)
            if later is not None:
                if value is not None:
                    self.refuse(where, later.refusal(dotted(where)))
            elif key not in model.model_fields:
                self.refuse(where, unknown_key(key, model, path))
            elif where == ("environment_parameters",):
                kept[key] = self.parameters(value, where)
            elif value is None and len(where) == 1:
                continue  # a section whose lines are all commented out
            else:
                self.field(kept, key, value, model.model_fields[key], where)
        return kept

    def field(
        self, kept: dict[str, Any], key: str, value: Any, field: FieldInfo, where: KeyPath
    ) -> None:
        """Cleans the value of one known key."""
        below, by_name = holds(field)
        if below is None:
            kept[key] = self.spelled(value, field, where)
        elif value is None and field.default is None:
            kept[key] = None  # a part that may be left out, such as a network's memory
        elif not isinstance(value, dict):
            self.refuse(where, not_a_mapping(where, value))
        elif by_name:
            accepted = {
                name: self.mapping(item, below, (*where, name))
                for name, item in value.items()
                if self.accepts_name(name, item, below, (*where, name))
            }
            if accepted or not value:  # else it is empty because of problems that are told
                kept[key] = accepted
        else:
            is_of_trainer = below is Hyperparameters
            kept[key] = self.mapping(value, self.trainer(where) if is_of_trainer else below, where)

    def spelled(self, value: Any, field: FieldInfo, where: KeyPath) -> Any:
        """Gives back what YAML takes from a text, such as the zeros of `run_id: 007`."""
        reader = read_by(field)
        if reader is None:
            return value
        if isinstance(reader[0], Text) and not isinstance(value, str | None):
            return self.document.spelling(where) or value
        if isinstance(reader[0], Texts) and isinstance(value, list):
            return [
                item if isinstance(item, str) else self.document.spelling((*where, i)) or item
                for i, item in enumerate(value)
            ]
        return value

    def accepts_name(self, name: str, item: Any, model: type[Settings], where: KeyPath) -> bool:
        """Tells whether a behaviour or a reward signal may have this name and value."""
        before = len(self.problems)
        if model is RewardSignalSettings and name not in SIGNALS:
            if name in LATER_SIGNALS:
                self.refuse(where, LATER_SIGNALS[name].refusal(dotted(where)))
            else:
                known = [*SIGNALS, *LATER_SIGNALS]
                self.refuse(where, unknown_word("reward signal", name, where[:-1], known))
        elif model is BehaviorSettings and "?" in name:
            self.refuse(
                where,
                f"{dotted(where)} names a team; expected the bare name "
                f"{name.partition('?')[0]!r}, which all its teams share.",
            )
        elif model is BehaviorSettings and not (name.strip() and stays_below(name)):
            self.refuse(
                where,
                f"behaviour name {show(name)} cannot name a folder; expected no '..' or '/' first.",
            )
        elif model is BehaviorSettings and (why := objection_to_behavior_id(name)) is not None:
            self.refuse(where, f"behaviour name {show(name)} cannot name a folder: {why}.")
        elif model is BehaviorSettings and name in BehaviorSettings.model_fields:
            self.refuse(
                where,
                f"{dotted(where)} stands where the name of a behaviour belongs; expected it below "
                "one. Indent it further.",
            )
        elif not isinstance(item, dict):
            self.refuse(where, not_a_mapping(where, item))
        return len(self.problems) == before

    def behavior(self, given: Mapping[str, Any], path: KeyPath) -> Mapping[str, Any]:
        """Looks at trainer_type first: hyperparameters mean nothing without it."""
        trainer = given.get("trainer_type")
        if isinstance(trainer, str) and trainer in LATER_TRAINERS:
            where = (*path, "trainer_type")
            self.refuse(where, LATER_TRAINERS[trainer].refusal(dotted(where)))
            dropped = {"trainer_type", "hyperparameters"}
            return {key: value for key, value in given.items() if key not in dropped}
        return given

    def trainer(self, path: KeyPath) -> type[Hyperparameters]:
        """Gives the model of the hyperparameters at a path: own trainer_type, default's, ppo."""
        for holder in (path[:-1], ("default_settings",)):
            given = self.document.value((*holder, "trainer_type"))
            if isinstance(given, str):
                return HYPERPARAMETERS.get(given, HYPERPARAMETERS["ppo"])
        return HYPERPARAMETERS["ppo"]

    def parameters(self, given: Any, path: KeyPath) -> dict[str, Any]:
        """Cleans environment_parameters."""
        if given is None:
            return {}
        if not isinstance(given, dict):
            self.refuse(path, not_a_mapping(path, given))
            return {}
        reader = ParameterReader(self.warn)
        read = {name: reader.read(name, value, (*path, name)) for name, value in given.items()}
        self.problems += reader.problems
        refused = {problem.path[1] for problem in reader.problems}
        return {name: value for name, value in read.items() if name not in refused}


def not_a_mapping(where: KeyPath, value: object) -> str:
    """Says that keys were expected below a key."""
    return (
        f"{dotted(where)} is {show(value)}; expected a mapping of keys. Indent its keys below it, "
        "or write {} for the defaults."
    )


def unknown_key(key: str, model: type[Settings], path: KeyPath) -> str:
    """Says that a key is not known here, and where it belongs or what it may have meant."""
    place = f"under {dotted(path)}" if path else "at the top level"
    if key in FOREIGN_KEYS:
        return f"unknown key {show(key)} {place}. {FOREIGN_KEYS[key]}."
    known = [*model.model_fields, *LATER_KEYS.get(model, {})]
    if issubclass(model, Hyperparameters):
        trainers = [name for name, other in HYPERPARAMETERS.items() if key in other.model_fields]
        if trainers:
            own = next(name for name, other in HYPERPARAMETERS.items() if other is model)
            return (
                f"unknown key {show(key)} {place}. It belongs to trainer_type {one_of(trainers)}, "
                f"and here it is {own}. Remove it, or change trainer_type."
            )
    for home in homes(key):
        return f"unknown key {show(key)} {place}. It belongs under {in_file(home, path)}."
    return unknown_word("key", key, path, known)


def in_file(home: tuple[str, ...], path: KeyPath) -> str:
    """Writes a mapping's place with the names that the file uses."""
    if not home:
        return "the top level"
    parts: list[str | int] = list(home)
    if path[:1] == ("default_settings",) and parts[0] == "behaviors":
        parts[:2] = ["default_settings"]
    elif path[:1] == ("behaviors",) and len(path) > 1 and parts[:2] == ["behaviors", "<name>"]:
        parts[1] = path[1]
    return dotted(
        tuple("extrinsic" if part == "<name>" and i > 1 else part for i, part in enumerate(parts))
    )
