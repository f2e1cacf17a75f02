"""A JSON Schema validator for the words that our schema uses; it knows no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
ANNOTATIONS = {"$schema", "title", "description", "default", "definitions"}


def is_of_type(value: object, name: str) -> bool:
    if name == "integer":
        return is_of_type(value, "number") and float(value) == int(value)  # type: ignore[call-overload, arg-type]  # a number
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES[name])


def complaints(
    value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "$"
) -> Iterator[str]:
    """Yields where and why a value does not fit; draft 7."""
    for word, rule in schema.items():
        match word:
            case "$ref":
                name = rule.removeprefix("#/definitions/")
                yield from complaints(value, root["definitions"][name], root, path)
            case "allOf":
                for part in rule:
                    yield from complaints(value, part, root, path)
            case "anyOf":
                if not any(not list(complaints(value, part, root, path)) for part in rule):
                    yield f"{path}: fits nothing"
            case "not":
                assert rule == {}, "only `not: {}`, which allows nothing"
                yield f"{path}: not allowed"
            case "type":
                names = [rule] if isinstance(rule, str) else rule
                if not any(is_of_type(value, name) for name in names):
                    yield f"{path}: is no {rule}"
            case "enum":
                if value not in rule:
                    yield f"{path}: is none of {rule}"
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                if (
                    is_of_type(value, "number")
                    and not {
                        "minimum": value >= rule,
                        "maximum": value <= rule,
                        "exclusiveMinimum": value > rule,
                        "exclusiveMaximum": value < rule,
                    }[word]
                ):
                    yield f"{path}: {word} is {rule}"
            case "multipleOf":
                if is_of_type(value, "number") and value % rule:
                    yield f"{path}: is no multiple of {rule}"
            case "minLength":
                if isinstance(value, str) and len(value) < rule:
                    yield f"{path}: is too short"
            case "minItems" | "maxItems":
                if isinstance(value, list) and (len(value) - rule) * (word == "minItems" or -1) < 0:
                    yield f"{path}: {word} is {rule}"
            case "items":
                for index, item in enumerate(value if isinstance(value, list) else []):
                    yield from complaints(item, rule, root, f"{path}[{index}]")
            case "required":
                if isinstance(value, dict):
                    yield from (f"{path}: lacks {key}" for key in rule if key not in value)
            case "properties":
                if isinstance(value, dict):
                    for key in value.keys() & rule.keys():
                        yield from complaints(value[key], rule[key], root, f"{path}.{key}")
            case "additionalProperties":
                if isinstance(value, dict):
                    for key in value.keys() - schema.get("properties", {}).keys():
                        if rule is False:
                            yield f"{path}: unknown key {key}"
                        else:
                            yield from complaints(value[key], rule, root, f"{path}.{key}")
            case _:
                assert word in ANNOTATIONS, f"unknown word {word}"
