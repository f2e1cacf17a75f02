"""Where a YAML file has its comments, and which key each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from trainer.config.document import Loader


class Comment(NamedTuple):
    """One comment; its line counts from 0."""

    line: int
    text: str


@dataclass
class Comments:
    """Comments by the line of the key or list item that they belong to; lines count from 0."""

    head: list[Comment] = field(default_factory=list)  # above everything
    above: dict[int, list[Comment]] = field(default_factory=dict)
    beside: dict[int, Comment] = field(default_factory=dict)
    tail: list[Comment] = field(default_factory=list)  # below everything
    after_blank: set[int] = field(default_factory=set)  # what an empty line stands above

    def left(self) -> list[Comment]:
        """Gives the comments of keys that nobody has taken."""
        above = [comment for found in self.above.values() for comment in found]
        return sorted([*above, *self.beside.values()])


def find_comments(text: str, root: yaml.Node) -> Comments:
    """Sorts the comments of a file: to the key behind them, or to the key of their line."""
    starts = sorted(set(starting_lines(root)))
    comments = Comments()
    lines = text.splitlines()
    for line, column in places_of_comments(text, lines):
        found = Comment(line, lines[line][column:])
        if lines[line][:column].strip():
            owner = max((start for start in starts if start <= line), default=line)
            comments.beside[owner] = found
        elif line < starts[0]:
            comments.head.append(found)
        elif line > starts[-1]:
            comments.tail.append(found)
        else:
            owner = min(start for start in starts if start > line)
            comments.above.setdefault(owner, []).append(found)
    for start in starts[1:]:
        first = start - len(comments.above.get(start, []))
        if not lines[first - 1].strip():
            comments.after_blank.add(start)
    return comments


def starting_lines(node: yaml.Node, seen: frozenset[int] = frozenset()) -> Iterator[int]:
    """Yields the lines in which a key or a list item begins."""
    if id(node) in seen:
        return
    seen |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.start_mark.line
            yield from starting_lines(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield item.start_mark.line
            yield from starting_lines(item, seen)


def places_of_comments(text: str, lines: list[str]) -> Iterator[tuple[int, int]]:
    """Yields line and column of every `#` that begins a comment; those in texts do not."""
    covered = [
        (token.start_mark, token.end_mark)
        for token in yaml.scan(text, Loader)
        if isinstance(token, yaml.ScalarToken) and not token.plain
    ]
    for number, line in enumerate(lines):
        for column, character in enumerate(line):
            if character != "#" or (column and not line[column - 1].isspace()):
                continue
            if not any(
                (start.line, start.column) <= (number, column) < (end.line, end.column)
                for start, end in covered
            ):
                yield number, column
                break
