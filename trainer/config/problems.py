"""How a mistake in the settings is put into words: where, what was found, what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

KeyPath = tuple[str | int, ...]

LONGEST_SHOWN = 60
MOST_PROBLEMS = 500  # of one file; nobody reads more, and to find the place of each takes time


@dataclass(frozen=True)
class Problem:
    """One mistake. `text` is complete but for the place, which only the loader knows."""

    path: KeyPath
    text: str
    related: tuple[KeyPath, ...] = ()  # other keys that take part in a contradiction


def dotted(path: KeyPath) -> str:
    """Writes a path as `behaviors.Walker.max_steps` or `env_settings.env_args[2]`."""
    parts: list[str] = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            name = shorten(part)
            parts.append(f".{name}" if parts else name)
    return "".join(parts)


def show(value: object) -> str:
    """Writes a value as the user would recognise it, shortened when long."""
    match value:
        case None:
            return "empty (null)"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            listed = ", ".join(show(item) for item in value[:LONGEST_SHOWN])
            return shorten(f"[{listed}]") if value else "an empty list"
        case str():
            return shorten(repr(value))
        case _:
            return shorten(str(value))


def shorten(text: str) -> str:
    """Cuts a long text in the middle of nowhere, and says so with three dots."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text)} long)"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Gives the known word that `word` was most likely meant to be."""
    by_folded = {name.lower().replace("-", "_"): name for name in known}
    folded = word.lower().replace("-", "_")[:80]
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def one_of(words: Iterable[str]) -> str:
    """Lists words for a sentence: `linear or constant`."""
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"


def unknown_word(what: str, word: str, path: KeyPath, known: Iterable[str]) -> str:
    """Says that a name is not known, and which are."""
    listed = sorted(known)
    close = nearest(word, listed)
    advice = f"Did you mean {close!r}?" if close else f"Expected {one_of(listed)}."
    place = f"under {dotted(path)}" if path else "at the top level"
    return f"unknown {what} {show(word)} {place}. {advice}"


@cache
def program() -> str:
    """Gives this program's name and version, as messages quote it."""
    # Reading package metadata costs 30 ms, so only a message that needs it pays.
    from importlib.metadata import version

    return f"ppo-train {version('ppo-train')}"
