"""Building blocks of YAML trees: entries of a mapping, and nodes that no file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

import yaml

Entry: TypeAlias = tuple[yaml.Node, yaml.Node]  # key, value
Entries: TypeAlias = dict[str, Entry]

TEXT = "tag:yaml.org,2002:str"
MAPPING = "tag:yaml.org,2002:map"
NULL = "tag:yaml.org,2002:null"
SEQUENCE = "tag:yaml.org,2002:seq"


class MadeKey(yaml.ScalarNode):
    """A key that the file does not hold; no comment belongs to it."""


def is_mapping(node: yaml.Node | None) -> TypeGuard[yaml.MappingNode]:
    """Tells whether a node is a mapping."""
    return isinstance(node, yaml.MappingNode)


def entries(node: yaml.Node) -> Entries:
    """Gives key and value of each entry by name; of equal keys the last counts."""
    assert is_mapping(node)
    return {key.value: (key, value) for key, value in node.value}


def mapping(found: Sequence[Entry], like: yaml.Node) -> yaml.MappingNode:
    """Makes a mapping that stands where another node stands."""
    return yaml.MappingNode(MAPPING, list(found), like.start_mark, like.end_mark, flow_style=False)


def sequence(items: list[yaml.Node], like: yaml.Node) -> yaml.SequenceNode:
    """Makes a list that stands where another node stands."""
    return yaml.SequenceNode(SEQUENCE, items, like.start_mark, like.end_mark, flow_style=False)


def scalar(kind: str, text: str, like: yaml.Node) -> yaml.ScalarNode:
    """Makes a value; `kind` is YAML's word for it: str, int, float, bool, null."""
    return yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", text, like.start_mark, like.end_mark)


def key_like(name: str, like: yaml.Node) -> MadeKey:
    """Makes a key that stands where another node stands."""
    return MadeKey(TEXT, name, like.start_mark, like.end_mark)


def made(name: str, value: yaml.Node) -> Entry:
    """Makes an entry whose key stands where its value stands."""
    return key_like(name, value), value


def named(key: yaml.Node, name: str) -> yaml.ScalarNode:
    """Renames a key of the file; its comments stay with it."""
    return yaml.ScalarNode(TEXT, name, key.start_mark, key.end_mark)


def without_lines(node: yaml.Node) -> yaml.Node:
    """Copies a tree of another file; its lines would be taken for those of the first."""
    nowhere = yaml.Mark("", 0, -1, -1, None, 0)
    if isinstance(node, yaml.MappingNode):
        pairs = [(without_lines(key), without_lines(value)) for key, value in node.value]
        return yaml.MappingNode(MAPPING, pairs, nowhere, nowhere, flow_style=node.flow_style)
    if isinstance(node, yaml.SequenceNode):
        items = [without_lines(item) for item in node.value]
        return yaml.SequenceNode(SEQUENCE, items, nowhere, nowhere, flow_style=node.flow_style)
    assert isinstance(node, yaml.ScalarNode)
    return yaml.ScalarNode(node.tag, node.value, nowhere, nowhere, style=node.style)
