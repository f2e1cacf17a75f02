"""Writes a tree of YAML nodes as text, with the comments of the file that they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator

import yaml

from trainer.config.document import Document, parse_document
from trainer.config.errors import ConfigError
from trainer.config.upgrade.comments import Comment, Comments, find_comments
from trainer.config.upgrade.nodes import MadeKey, entries, is_mapping


def emit(document: Document, original: yaml.Node) -> tuple[str, list[Comment]]:
    """Gives a document as YAML.

    Args:
        document: made from nodes of `original`.
        original: the tree that the file's comments belong to.

    Returns:
        The text, and the comments that found no place in it.
    """
    assert document.root is not None
    comments = find_comments(document.text, original)
    body = list(Emitter(comments).block(document.root, 0))
    ends = [[comment.text for comment in found] for found in (comments.head, comments.tail)]
    text = "\n".join(line.rstrip() for line in [*ends[0], *body, *ends[1]]) + "\n"
    if is_same(document, text):
        return text, comments.left()
    comments = find_comments(document.text, original)
    text = yaml.safe_dump(document.values, sort_keys=False, allow_unicode=True, width=100)
    return text, sorted([*comments.head, *comments.left(), *comments.tail])


def is_same(document: Document, text: str) -> bool:
    """Tells whether a text says what a document holds; tags and odd texts may be in the way."""
    try:
        return parse_document(document.path, text).values == document.values
    except ConfigError:
        return False


class Emitter:
    """Writes nodes; takes each comment out of `comments` as it is written."""

    def __init__(self, comments: Comments) -> None:
        self._comments = comments

    def block(self, node: yaml.Node, depth: int) -> Iterator[str]:
        """Yields the lines of a mapping or a list."""
        assert isinstance(node, yaml.CollectionNode)
        indent = "  " * depth
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from self._item(item, indent, depth)
            return
        for index, (key, value) in enumerate(entries(node).values()):
            start = None if isinstance(key, MadeKey) else key.start_mark.line
            if index and (depth == 0 or start in self._comments.after_blank):
                yield ""
            for comment in self._comments.above.pop(start, []) if start is not None else []:
                yield indent + comment.text
            beside = "" if start is None else self._beside(start)
            if is_block(value):
                yield f"{indent}{scalar_text(key)}:{beside}"
                yield from self.block(value, depth + 1)
            else:
                yield f"{indent}{scalar_text(key)}: {flow(value)}{beside}"

    def _item(self, item: yaml.Node, indent: str, depth: int) -> Iterator[str]:
        start = item.start_mark.line
        for comment in self._comments.above.pop(start, []):
            yield indent + comment.text
        if not is_block(item):
            yield f"{indent}- {flow(item)}{self._beside(start)}"
            return
        first, *rest = self.block(item, depth + 1)
        yield f"{indent}- {first.lstrip()}"
        yield from rest

    def _beside(self, start: int) -> str:
        comment = self._comments.beside.pop(start, None)
        return f"  {comment.text}" if comment else ""


def is_block(node: yaml.Node) -> bool:
    """Tells whether a value stands on lines of its own."""
    return isinstance(node, yaml.CollectionNode) and bool(node.value) and not node.flow_style


def flow(node: yaml.Node) -> str:
    """Gives a value on one line."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(flow(item) for item in node.value)}]"
    if is_mapping(node):
        inner = (f"{scalar_text(key)}: {flow(value)}" for key, value in entries(node).values())
        return f"{{{', '.join(inner)}}}"
    return scalar_text(node)


def scalar_text(node: yaml.Node) -> str:
    """Gives a value as the file spells it."""
    assert isinstance(node, yaml.ScalarNode)
    text: str = node.value
    if not node.style:
        return text
    if node.style == "'" and "\n" not in text:
        return "'" + text.replace("'", "''") + "'"
    return json.dumps(text, ensure_ascii=False)
