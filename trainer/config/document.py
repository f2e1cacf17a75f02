"""A YAML file as plain values that remember where they stand.

Stricter than PyYAML: duplicate keys are problems, keys are always texts (`on:` is a fine name), and
1e-3 is a number wherever it stands unquoted, as in YAML 1.2.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trainer.config.errors import ConfigError
from trainer.config.problems import KeyPath, Problem, dotted, shorten
from trainer.config.syntax import explain_syntax

# The parser written in C is ten times faster; the other one reads the same files.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

LARGEST_FILE_BYTES = 1_000_000
DEEPEST_NESTING = 50
MOST_VALUES = 100_000
LONGEST_NUMBER = 400  # characters; no float is longer
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
STRING_TAG = "tag:yaml.org,2002:str"
COLLECTION_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
NO_SCALAR_TAGS = {  # the loader would take these for something empty, or for bytes
    f"tag:yaml.org,2002:{kind}" for kind in ("binary", "map", "seq", "set", "omap", "pairs")
}
MERGE_TAG = "tag:yaml.org,2002:merge"


class Place(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int

    @staticmethod
    def of(mark: Any) -> Place:
        """Translates PyYAML's mark, which counts from 0."""
        return Place(mark.line + 1, mark.column + 1)


@dataclass
class Document:
    """One parsed file: `values` for the program, places and spelling for messages."""

    path: Path
    text: str = ""
    root: yaml.Node | None = None
    values: object = None
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Gives where a key stands, or the nearest one above it that the file has."""
        return self._walk(path)[0]

    def has(self, path: KeyPath) -> bool:
        """Tells whether the file itself has this key."""
        return self._walk(path)[2]

    def value(self, path: KeyPath) -> object:
        """Gives what the file says at a path of mappings; None where it says nothing."""
        found: object = self.values
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def spelling(self, path: KeyPath) -> str | None:
        """Gives a scalar as it is written in the file, such as 007; None for anything else."""
        _, node, found = self._walk(path)
        return node.value if found and isinstance(node, yaml.ScalarNode) else None

    def _walk(self, path: KeyPath) -> tuple[Place, yaml.Node | None, bool]:
        node = self.root
        place = Place.of(node.start_mark) if node is not None else Place(1, 1)
        for part in path:
            step = child(node, part)
            if step is None:
                return place, node, False
            place, node = step
        return place, node, True


def child(node: yaml.Node | None, part: str | int) -> tuple[Place, yaml.Node] | None:
    """Steps into a node; the last of equal keys counts, as in YAML's merge rule."""
    if isinstance(part, str) and isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == part:
                return Place.of(key.start_mark), value
    elif isinstance(part, int) and isinstance(node, yaml.SequenceNode) and part < len(node.value):
        value = node.value[part]
        return Place.of(value.start_mark), value
    return None


def read_document(path: Path) -> Document:
    """Reads and parses a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is empty. Duplicate keys are not
            raised but kept in `problems`, so that they can be told with all the others.
    """
    return parse_document(path, read_text(path))


def read_text(path: Path) -> str:
    """Reads a file as UTF-8."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if path.is_file() and size <= LARGEST_FILE_BYTES else b""
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.{neighbours(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{shorten(str(path))}: cannot be read: {reason}.") from error
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; expected a YAML file.{neighbours(path / 'x')}")
    if size > LARGEST_FILE_BYTES:
        raise ConfigError(
            f"{path}: is {size / 1e6:.1f} MB; expected settings in YAML, a few kB. Give the path "
            "of a settings file."
        )
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path}: is encoded as UTF-16; expected UTF-8. Save it again as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; expected a text file "
            "in UTF-8. Save it again as UTF-8."
        ) from error


def neighbours(path: Path) -> str:
    """Names YAML files beside a missing one."""
    folder = path.parent
    names = sorted(file.name for file in folder.glob("*.y*ml"))[:5] if folder.is_dir() else []
    where = "here" if folder == Path() else f"in {folder}"
    return f" There is {', '.join(names)} {where}." if names else ""


def parse_document(path: Path, text: str) -> Document:
    """Parses YAML text; see `read_document`."""
    try:
        refuse_deep_nesting(path, text)
        loader = Loader(text)
        try:
            root = loader.get_single_node()
            document = Document(path, text, root)
            if root is not None:
                document.values = Builder(loader, document).build(root, ())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(explain_syntax(path, text, error)) from error
    if document.values is None:
        raise ConfigError(f"{path}: is empty; expected settings, at least `behaviors:`.")
    return document


def rebuilt(document: Document, root: yaml.Node) -> Document:
    """Gives a document with other nodes, which keep their places in the file."""
    made = Document(document.path, document.text, root)
    loader = Loader("")
    try:
        made.values = Builder(loader, made).build(root, ())
    finally:
        loader.dispose()
    made.problems = []
    return made


def refuse_deep_nesting(path: Path, text: str) -> None:
    """Stops before the parser in C, which recurses, overflows its stack."""
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST_NESTING:
                place = Place.of(event.start_mark)
                raise ConfigError(
                    f"{path}:{place.line}:{place.column}: is nested more than {DEEPEST_NESTING} "
                    "deep; expected settings, which need 8."
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


@dataclass
class Builder:
    """Turns nodes into dicts, lists and scalars."""

    loader: Any
    document: Document
    open_nodes: set[int] = field(default_factory=set)
    num_values: int = 0

    def build(self, node: yaml.Node, path: KeyPath) -> object:
        """Gives the value of a node, and notes problems on the way."""
        self.num_values += 1
        if self.num_values > MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"aliases multiply to more than {MOST_VALUES} values", node.start_mark
            )
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if node.tag not in COLLECTION_TAGS:
            raise yaml.composer.ComposerError(
                None, None, f"the tag {node.tag} is not known; expected none", node.start_mark
            )
        if id(node) in self.open_nodes:
            raise yaml.composer.ComposerError(
                None, None, "this alias contains itself", node.start_mark
            )
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
            return self.mapping(node, path)
        finally:
            self.open_nodes.discard(id(node))

    def scalar(self, node: yaml.ScalarNode) -> object:
        """Gives a number, text, yes/no or null."""
        if node.tag in NO_SCALAR_TAGS:
            raise yaml.composer.ComposerError(
                None, None, f"the tag {node.tag} is not known; expected none", node.start_mark
            )
        is_quoted = bool(node.style)  # '' or None when it is not, by parser
        if not is_quoted and node.tag == STRING_TAG and EXPONENT.fullmatch(node.value):
            number = float(node.value)
            return number if math.isfinite(number) else node.value
        if len(node.value) > LONGEST_NUMBER and node.tag != STRING_TAG:
            return node.value  # 1:1:1:..., of which YAML 1.1 makes one number, takes minutes
        try:
            return self.loader.construct_object(node)
        # The 45th of a month; and tags that the file itself gives: !!bool maybe, !!int "".
        except (ValueError, OverflowError, KeyError, IndexError, AttributeError):
            return node.value

    def mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, object]:
        """Gives a dict whose keys are texts; of equal keys the last counts."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.composer.ComposerError(
                    None, None, "a key is a list or a mapping; expected a name", key.start_mark
                )
            line = key.start_mark.line + 1
            if key.value in lines and key.tag != MERGE_TAG:
                self.problem(
                    (*path, key.value),
                    f"{dotted((*path, key.value))} is given twice, first in line "
                    f"{lines[key.value]}; expected each key once. Remove one of them",
                )
            lines[key.value] = line
        self.require_few_merged(node)
        self.loader.flatten_mapping(node)  # `<<: *anchor`
        return {key.value: self.build(value, (*path, key.value)) for key, value in node.value}

    def require_few_merged(self, node: yaml.Node) -> None:
        """Raises ComposerError when `<<` would multiply keys beyond all measure."""
        num_keys = self.num_keys(node, {})
        if num_keys > MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"<< multiplies keys to more than {MOST_VALUES}", node.start_mark
            )

    def num_keys(self, node: yaml.Node, counted: dict[int, int]) -> int:
        """Counts the keys of a node with all that it merges, each as often as it comes."""
        if id(node) in counted:
            return counted[id(node)]
        counted[id(node)] = 0  # a node that merges itself; PyYAML merges nothing then
        if isinstance(node, yaml.SequenceNode):
            total = sum(self.num_keys(item, counted) for item in node.value)
        elif isinstance(node, yaml.MappingNode):
            total = sum(
                self.num_keys(value, counted) if key.tag == MERGE_TAG else 1
                for key, value in node.value
            )
        else:
            total = 1
        counted[id(node)] = total
        return total

    def problem(self, path: KeyPath, text: str) -> None:
        """Notes a problem."""
        self.document.problems.append(Problem(path, f"{text}."))
