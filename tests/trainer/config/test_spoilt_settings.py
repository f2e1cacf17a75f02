"""Every value of the corpus is spoilt in turn: the file loads, or is refused in words."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.config.document import parse_document
from trainer.config.errors import ConfigError
from trainer.config.load import resolve

FOLDER = Path(__file__).parent / "unity"
SPOILT: list[Any] = [
    None,
    -1,
    3.5,
    True,
    "",
    "word",
    "1" * 400,
    float("nan"),
    10**400,
    [],
    [None, {}],
    {},
    {"a": {"b": 1}},
]


def values_of(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the paths of all values, mappings and lists included."""
    pairs: Any = ()
    if isinstance(tree, dict):
        pairs = tree.items()
    elif isinstance(tree, list):
        pairs = enumerate(tree)
    for key, value in pairs:
        yield (*path, key)
        yield from values_of(value, (*path, key))


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(tree)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def cases() -> list[tuple[str, tuple[Any, ...]]]:
    """Gives each kind of value once: the same key of another behaviour is no other kind."""
    found: dict[tuple[Any, ...], tuple[str, tuple[Any, ...]]] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        for path in values_of(yaml.safe_load(file.read_text())):
            kind = tuple("*" if i == 1 else key for i, key in enumerate(path))
            found.setdefault(kind, (file.name, path))
    return list(found.values())


@pytest.mark.parametrize(("file", "path"), cases(), ids=str)
def test_spoilt_value_is_read_or_refused_in_words(file: str, path: tuple[Any, ...]) -> None:
    tree = yaml.safe_load((FOLDER / file).read_text())
    for value in SPOILT:
        text = yaml.safe_dump(with_value(tree, path, value), sort_keys=False)
        try:
            resolve(parse_document(Path("run.yaml"), text))
        except ConfigError as error:
            assert all(problem.startswith("run.yaml:") for problem in error.problems)
