"""Strict readers of single values: what ML-Agents' YAML may hold, and nothing by accident.

Numbers may be written as 64, 64.0, 5e5 or "3e-4" (YAML 1.1 reads `5e5` as text); 3.9 is no whole
number, "false" in quotes is false, and 1 is no yes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from trainer.config.problems import show

# The two error types of our own; `explain.py` puts them into sentences.
WRONG_VALUE = "wrong_value"
CONTRADICTION = "contradiction"

# The protocol's numbers: what does not fit cannot be told to a simulator.
LARGEST_INT32 = 2**31 - 1
LARGEST_FLOAT32 = 3.4028234663852886e38

T = TypeVar("T")


def wrong(value: object, expected: str) -> PydanticCustomError:
    """Builds the error for one value that cannot be used."""
    return PydanticCustomError(
        WRONG_VALUE, "{found}; expected {expected}", {"found": show(value), "expected": expected}
    )


def contradiction(text: str, *keys: str) -> PydanticCustomError:
    """Builds the error for settings that cannot both hold; `keys` are dotted, below the model."""
    return PydanticCustomError(CONTRADICTION, "{text}", {"text": text, "keys": keys})


class Reader:
    """Annotation of a field: reads a YAML value, or says what it expected."""

    def expected(self, target: type) -> str:
        """Says in words what is allowed."""
        raise NotImplementedError

    def read(self, value: object, target: type) -> object:
        """Gives the value as `target`, or raises."""
        raise NotImplementedError

    def schema(self, target: type) -> dict[str, Any]:
        """Gives what is allowed as JSON Schema."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(
        self, source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        target = get_origin(source) or source
        return core_schema.no_info_plain_validator_function(lambda value: self.read(value, target))


@dataclass(frozen=True, kw_only=True)
class Range(Reader):
    """A finite number between optional bounds."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    even: bool = False

    def expected(self, target: type) -> str:
        """Says in words which numbers are allowed."""
        noun = "a whole number" if target is int else "a number"
        if self.even:
            noun = "an even whole number"
        if self.at_least is not None and self.at_most is not None:
            return f"{noun} from {plain(self.at_least)} to {plain(self.at_most)}"
        bounds = [
            f"{word} {plain(bound)}"
            for word, bound in (
                ("above", self.above),
                ("of at least", self.at_least),
                ("below", self.below),
                ("of at most", self.at_most),
            )
            if bound is not None
        ]
        return f"{noun} {' and '.join(bounds)}".rstrip()

    def schema(self, target: type) -> dict[str, Any]:
        """Gives type and bounds."""
        bounds = {
            "exclusiveMinimum": self.above,
            "minimum": self.at_least,
            "exclusiveMaximum": self.below,
            "maximum": self.at_most,
        }
        given = {word: bound for word, bound in bounds.items() if bound is not None}
        if self.even:
            given["multipleOf"] = 2
        return {"type": "integer" if target is int else "number", **given}

    def holds(self, number: float) -> bool:
        """Tells whether a number lies within the bounds."""
        return (
            (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.below is None or number < self.below)
            and (self.at_most is None or number <= self.at_most)
            and not (self.even and number % 2)
        )

    def read(self, value: object, target: type) -> object:
        """Gives an int or float, also from text such as "1e5"."""
        number = whole_number(value) if target is int else finite_number(value)
        if number is None or not self.holds(number):
            raise wrong(value, self.expected(target))
        return number


def plain(bound: float) -> str:
    """Writes a bound; whole numbers with all their digits."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def whole_number(value: object) -> int | None:
    """Reads 64, 64.0, "64" and "1e5"; None for anything that is no whole number."""
    match value:
        case bool():
            return None
        case int():
            return value
        case str():
            try:
                return int(value)
            except ValueError:
                pass
    number = finite_number(value)
    return int(number) if number is not None and number.is_integer() else None


def finite_number(value: object) -> float | None:
    """Reads 0.5, 1, "3e-4"; None for anything else, infinities included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class AutoOr(Reader):
    """The word auto, or a whole number between bounds; of type `int | str`."""

    numbers: Range

    def expected(self, target: type) -> str:
        """Says in words what is allowed."""
        del target
        return f"{AUTO}, or {self.numbers.expected(int)}"

    def read(self, value: object, target: type) -> object:
        """Gives `auto` or an int."""
        if isinstance(value, str) and value.strip().lower() == AUTO:
            return AUTO
        number = whole_number(value)
        if number is None or not self.numbers.holds(number):
            raise wrong(value, self.expected(target))
        return number

    def schema(self, target: type) -> dict[str, Any]:
        """Gives the word, or the numbers."""
        del target
        return {"anyOf": [{"enum": [AUTO]}, self.numbers.schema(int)]}


@dataclass(frozen=True)
class YesNo(Reader):
    """The words true and false, quoted or not."""

    def expected(self, target: type) -> str:
        """Says which words are allowed."""
        del target
        return "true or false"

    def read(self, value: object, target: type) -> object:
        """Gives a bool; numbers and other words are errors."""
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else None
        if word not in {"true", "false"}:
            raise wrong(value, self.expected(target))
        return word == "true"

    def schema(self, target: type) -> dict[str, Any]:
        """Gives a yes or no."""
        del target
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Reader):
    """Text that is not empty, and for which `rule` holds."""

    what: str = "text"
    rule: Callable[[str], bool] | None = None

    def expected(self, target: type) -> str:
        """Says what kind of text is allowed."""
        del target
        return self.what

    def read(self, value: object, target: type) -> object:
        """Gives the text unchanged."""
        if (
            not isinstance(value, str)
            or not value.strip()
            or "\0" in value
            or (self.rule is not None and not self.rule(value))
        ):
            raise wrong(value, self.expected(target))
        return value

    def schema(self, target: type) -> dict[str, Any]:
        """Gives a text; what YAML takes for a number, such as a run's id, is one too."""
        del target
        return {"type": ["string", "number"], "minLength": 1}


@dataclass(frozen=True)
class Texts(Reader):
    """A list of texts, such as command-line arguments."""

    def expected(self, target: type) -> str:
        """Says what may stand in the list."""
        del target
        return "a list of texts, such as [--level, '3']"

    def read(self, value: object, target: type) -> object:
        """Gives the texts as a tuple."""
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, str) and "\0" not in item for item in value
        ):
            raise wrong(value, self.expected(target))
        return tuple(value)

    def schema(self, target: type) -> dict[str, Any]:
        """Gives a list."""
        del target
        return {"type": "array", "items": {"type": ["string", "number", "boolean"]}}


@dataclass(frozen=True)
class PlainData(Reader):
    """A mapping of names to numbers, texts, yes/no, lists and mappings: what JSON can carry."""

    def expected(self, target: type) -> str:
        """Says what may stand in the mapping."""
        del target
        return "a mapping of names to numbers, texts, true/false, lists or mappings"

    def read(self, value: object, target: type) -> object:
        """Gives the mapping unchanged."""
        if not isinstance(value, dict):
            raise wrong(value, self.expected(target))
        for key, item in value.items():
            if not is_plain(item):
                inner = f"{self.expected(target)}; {key!r} holds {show(item)}, which is none"
                raise wrong(value, inner)
        return value

    def schema(self, target: type) -> dict[str, Any]:
        """Gives a mapping."""
        del target
        return {"type": "object"}


@dataclass(frozen=True)
class Wrappers(Reader):
    """Names with arguments, in order: `Name`, or `Name: {argument: value}`."""

    def expected(self, target: type) -> str:
        """Says what may stand in the list."""
        del target
        return "a list of names, each alone or with its arguments, such as [A, {B: {size: 4}}]"

    def read(self, value: object, target: type) -> object:
        """Gives a tuple of mappings, each of one name to its arguments."""
        if not isinstance(value, list | tuple):
            raise wrong(value, self.expected(target))
        read = []
        for number, item in enumerate(value, start=1):
            name, arguments, problem = self._one(item)
            if problem:
                raise wrong(value, f"{self.expected(target)}; item {number} {problem}")
            read.append({name: arguments})
        return tuple(read)

    def schema(self, target: type) -> dict[str, Any]:
        """Gives a list of names and mappings."""
        del target
        arguments = {"anyOf": [{"type": "object"}, {"type": "null"}]}
        with_arguments = {"type": "object", "additionalProperties": arguments}
        items = {"anyOf": [{"type": "string", "minLength": 1}, with_arguments]}
        return {"type": "array", "items": items}

    def _one(self, item: object) -> tuple[str, dict[str, object], str]:
        """Gives a name, its arguments, and what is wrong with them if anything is."""
        if isinstance(item, str):
            item = {item: {}}
        if not isinstance(item, dict):
            return "", {}, f"is {show(item)}"
        names = [str(name) for name in item]
        if len(names) != 1 or not names[0].strip():
            found = " and ".join(repr(name) for name in names)
            rule = "expected one name, with its arguments indented below it"
            return "", {}, f"has {found or 'no name'}; {rule}"
        arguments = next(iter(item.values()))
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            return "", {}, f"has {show(arguments)} behind {names[0]!r}, not arguments by name"
        for key, argument in arguments.items():
            if not isinstance(key, str) or not is_plain(argument):
                return "", {}, f"has {show(argument)} for {key!r}, which is no plain data"
        return names[0], arguments, ""


def is_plain(value: object) -> bool:
    """Tells whether a value survives a trip through JSON and back; nan does not."""
    match value:
        case dict():
            return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
        case list():
            return all(is_plain(item) for item in value)
        case float():
            return not math.isnan(value)
        case _:
            return value is None or isinstance(value, str | int | bool)


Count = Annotated[int, Range(at_least=1)]
WireCount = Annotated[int, Range(at_least=1, at_most=LARGEST_INT32)]
WireLimit = Annotated[int, Range(at_least=-1, at_most=LARGEST_INT32)]
WireSize = Annotated[int, Range(at_least=0, at_most=LARGEST_INT32)]
Positive = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
Flag = Annotated[bool, YesNo()]
Words = Annotated[str, Text()]
