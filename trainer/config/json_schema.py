"""The settings as JSON Schema, so that editors complete and check YAML files as they are written.

Made from the same models that read the files. A little stricter than they are: numbers in
quotes are read, but marked; and it cannot see contradictions between keys.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainer.config.clean import SIGNALS
from trainer.config.hyperparameters import HYPERPARAMETERS, Hyperparameters
from trainer.config.later import LATER_KEYS, LATER_SIGNALS
from trainer.config.model import Settings
from trainer.config.samplers import SAMPLERS, ParameterValue
from trainer.config.schema import choices, holds, read_by
from trainer.config.settings import (
    BehaviorSettings,
    CheckpointSettings,
    RewardSignalSettings,
    RunSettings,
)

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
NULL: Schema = {"type": "null"}
# Keys that are read, warned of and dropped; ML-Agents' own configuration.yaml holds some.
WITHOUT_EFFECT: dict[type[Settings], tuple[str, ...]] = {
    BehaviorSettings: ("framework",),
    CheckpointSettings: ("load_model", "train_model"),
}


def render() -> str:
    """Gives the schema of a settings file as JSON text."""
    definitions: dict[str, Schema] = {}
    root = of_model(RunSettings, definitions)
    title = "Settings of ppo-train, in the format of ML-Agents"
    document = {"$schema": DRAFT, "title": title, **root, "definitions": definitions}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def of_model(model: type[Settings], definitions: dict[str, Schema]) -> Schema:
    """Gives the schema of a mapping; those of the mappings below it go into `definitions`."""
    properties = {}
    for key, field in model.model_fields.items():
        value = of_field(field, definitions)
        if model is RunSettings and field.default_factory is not None:
            value = {"anyOf": [value, NULL]}  # a section whose lines are all commented out
        properties[key] = {"description": " ".join((field.description or "").split()), **value}
    for key, later in LATER_KEYS.get(model, {}).items():
        properties[key] = {"description": f"Not supported yet: {later.feature}.", **NULL}
    for key in WITHOUT_EFFECT.get(model, ()):
        properties[key] = {"description": "No effect."}
    return closed(properties, (model.__doc__ or "").partition("\n")[0])


def closed(properties: Schema, description: str, *required: str) -> Schema:
    """Gives the schema of a mapping that has no other keys."""
    schema: Schema = {"description": description, "type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return {**schema, "additionalProperties": False}


def of_field(field: FieldInfo, definitions: dict[str, Schema]) -> Schema:
    """Gives the schema of what stands behind a key."""
    below, by_name = holds(field)
    if below is not None:
        if below is Hyperparameters:
            return {"anyOf": [refer(model, definitions) for model in HYPERPARAMETERS.values()]}
        # Draft 7 reads nothing that stands beside $ref.
        value: Schema = {"allOf": [refer(below, definitions)]}
        if by_name:
            value = by_names(below, value)
    elif words := choices(field):
        value = {"enum": list(words)}
    elif reader := read_by(field):
        value = reader[0].schema(reader[1])
    else:
        value = {"type": "object", "additionalProperties": environment_parameter()}
    if field.default is None:
        value = {"anyOf": [value, NULL]}
    if field.default is not PydanticUndefined:
        value["default"] = field.default
    return value


def refer(model: type[Settings], definitions: dict[str, Schema]) -> Schema:
    """Points at a model's schema, which goes into `definitions`."""
    if model.__name__ not in definitions:
        definitions[model.__name__] = of_model(model, definitions)
    return {"$ref": f"#/definitions/{model.__name__}"}


def by_names(below: type[Settings], value: Schema) -> Schema:
    """Gives the schema of mappings by name: any name, or those of reward signals."""
    if below is not RewardSignalSettings:
        return {"type": "object", "additionalProperties": value}
    signals = {name: value for name in SIGNALS}
    for name, later in LATER_SIGNALS.items():
        signals[name] = {"description": f"Not supported yet: {later.feature}.", "not": {}}
    return closed(signals, "Sources of reward by name.")


def environment_parameter() -> Schema:
    """Gives the schema of one environment parameter in all its forms."""
    forms = [ParameterValue().schema(float)]
    for kind, form in SAMPLERS.items():
        parameters = of_model(type(form().sampler_parameters), {})
        forms.append(
            closed(
                {"sampler_type": {"enum": [kind]}, "sampler_parameters": parameters},
                (form.__doc__ or "").partition("\n")[0],
                "sampler_type",
                "sampler_parameters",
            )
        )
    lesson = closed(
        {"name": {"type": "string"}, "value": {"anyOf": forms}, "completion_criteria": {}},
        "The only lesson.",
        "name",
        "value",
    )
    lessons = {"type": "array", "items": lesson, "minItems": 1, "maxItems": 1}
    only = closed({"curriculum": lessons}, "A curriculum of one lesson.", "curriculum")
    return {"anyOf": [*forms, only]}
