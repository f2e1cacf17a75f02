"""Gives memory that is free, but still the process's, back to the operating system.

An update takes and frees hundreds of megabytes in pieces of all sizes. glibc keeps what it got, in
heaps that fill with gaps: a process that holds no more than before still grows, by 100 MB an hour
with Walker.yaml. So the gaps are given back once in a while, which takes some milliseconds.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim  # None with a C library other than glibc, which has no such heaps


_trim = _find_trim()


def return_free_memory() -> None:
    """Gives free pages back; does nothing where the C library keeps none."""
    if _trim is not None:
        _trim(0)


class MemoryReturn:
    """Gives free memory back behind an update, when least is in use, but not behind every one.

    What is given back has to be fetched again by the next update, a few milliseconds for each
    100 MB: nothing beside an update of seconds, much beside one of milliseconds.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = 0.0

    def after_update(self) -> None:
        """Gives it back if the last time was at least `interval_s` ago."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            return_free_memory()
            self._next_s = now_s + self._interval_s
