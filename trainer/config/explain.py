"""Checks a mapping against its model, and puts pydantic's findings into our sentences."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trainer.config.hyperparameters import HYPERPARAMETERS, Hyperparameters
from trainer.config.model import Settings
from trainer.config.problems import KeyPath, Problem, dotted, nearest, one_of, show
from trainer.config.schema import choices, holds
from trainer.config.settings import RunSettings
from trainer.config.values import CONTRADICTION, WRONG_VALUE

M = TypeVar("M", bound=Settings)


def settle(model: type[M], tree: dict[str, Any], base: KeyPath) -> tuple[M, list[Problem]]:
    """Reads a mapping, taking out what is wrong until the rest holds.

    So that all problems are found at once: contradictions between keys can only be seen when each
    key by itself is right. `tree` is changed.

    Args:
        model: what to read.
        tree: a mapping with known keys only.
        base: where in the file the mapping stands.
    """
    problems: list[Problem] = []
    removed: set[KeyPath] = set()
    while True:
        try:
            return model.model_validate(tree), problems
        except ValidationError as error:
            findings = error.errors(include_url=False)
        for finding in findings:
            loc = finding["loc"]
            if finding["type"] == CONTRADICTION:
                keys = [(*loc, *key.split(".")) for key in finding["ctx"]["keys"]]
                if removed.isdisjoint(keys):
                    problems.append(contradiction_problem(finding, base, keys))
            else:
                keys = [loc]
                problems.append(value_problem(finding, (*base, *loc)))
            before = len(removed)
            removed.update(key for key in keys if prune(tree, key))
            # Anything else would go round for ever: the models' defaults never contradict.
            assert len(removed) > before, f"cannot get rid of {finding}"


def prune(tree: Any, path: KeyPath) -> bool:
    """Removes a key deep in a mapping; False when it is not there."""
    for part in path[:-1]:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return isinstance(tree, dict) and tree.pop(path[-1], tree) is not tree


def contradiction_problem(finding: ErrorDetails, base: KeyPath, keys: list[KeyPath]) -> Problem:
    """Words for settings that cannot both hold."""
    where = dotted((*base, *finding["loc"]))
    text = finding["ctx"]["text"]
    related = tuple((*base, *key) for key in keys)
    return Problem(related[0], f"{where}.{text}." if where else f"{text}.", related)


def value_problem(finding: ErrorDetails, path: KeyPath) -> Problem:
    """Words for one value that cannot be used."""
    value = finding["input"]
    found = f"{dotted(path)} is {show(value)}"
    if finding["type"] == WRONG_VALUE:
        return Problem(path, f"{found}; expected {finding['ctx']['expected']}.")
    if finding["type"] == "literal_error":
        words = allowed_words(path)
        close = nearest(value, words) if isinstance(value, str) else None
        advice = f" Did you mean {close!r}?" if close else ""
        return Problem(path, f"{found}; expected {one_of(words)}.{advice}")
    return Problem(path, f"{found}: {finding['msg']}.")


def allowed_words(path: KeyPath) -> tuple[str, ...]:
    """Gives the words that the key at a path allows."""
    model: type[Settings] = RunSettings
    field = None
    parts = iter(path)
    for part in parts:
        if model is Hyperparameters:  # a key has the same words wherever it is
            model = next(own for own in HYPERPARAMETERS.values() if part in own.model_fields)
        field = model.model_fields[str(part)]
        below, by_name = holds(field)
        if below is not None:
            model = below
            if by_name:
                next(parts)
    assert field is not None
    return choices(field)
