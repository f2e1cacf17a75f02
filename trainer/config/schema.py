"""Questions about the models: what a key holds, and where in the file a key belongs."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from trainer.config.hyperparameters import HYPERPARAMETERS, Hyperparameters
from trainer.config.model import Settings
from trainer.config.settings import RunSettings
from trainer.config.values import Reader


class Holds(NamedTuple):
    """What stands below a key: one model, models by name, or (None) a plain value."""

    model: type[Settings] | None
    by_name: bool


def holds(field: FieldInfo) -> Holds:
    """Tells what a field holds."""
    for part in (field.annotation, *get_args(field.annotation)):
        if isinstance(part, type) and issubclass(part, Settings):
            return Holds(part, get_origin(field.annotation) is not None and is_mapping(field))
    return Holds(None, by_name=False)


def is_mapping(field: FieldInfo) -> bool:
    """Tells whether a field maps names to values."""
    origin = get_origin(field.annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def read_by(field: FieldInfo) -> tuple[Reader, type] | None:
    """Gives the reader of a field's value and its type; None for words from a list and models."""
    for reader, target in readers(field.annotation, tuple(field.metadata)):
        return reader, target
    return None


def readers(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[tuple[Reader, type]]:
    """Yields the readers of an annotation, those of a union's members included."""
    for item in metadata:
        if isinstance(item, Reader):
            yield item, get_origin(annotation) or annotation
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        yield from readers(inner, tuple(extra))
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from readers(member, ())


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Gives the words a field allows; () when it is no choice."""
    for part in (field.annotation, *get_args(field.annotation)):
        if get_origin(part) is Literal:
            return get_args(part)
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def walk(
    model: type[Settings] = RunSettings, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[Settings]]]:
    """Yields every mapping of the file with its model; `<name>` stands for a name."""
    yield path, model
    for key, field in model.model_fields.items():
        below, by_name = holds(field)
        if below is not None:
            for model_below in HYPERPARAMETERS.values() if below is Hyperparameters else (below,):
                # Only one way to a model is shown: the behaviour's own, not the default's.
                yield from walk(model_below, (*path, key, "<name>") if by_name else (*path, key))


@cache
def homes(key: str) -> tuple[tuple[str, ...], ...]:
    """Gives the mappings that know a key, those of behaviours before those of the defaults."""
    found = [path for path, model in walk() if key in model.model_fields]
    return tuple(sorted(found, key=lambda path: ("default_settings" in path, len(path))))
