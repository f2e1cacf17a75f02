"""Gives memory that is free, but still the process's, back to the operating system.

An update takes and frees hundreds of megabytes in pieces of all sizes. glibc keeps what it got, in
heaps that fill with gaps: a process that holds no more than before still grows, by 100 MB an hour
with Walker.yaml. Once in a while the gaps are given back, which takes some milliseconds.
"""

from __future__ import annotations

import ctypes
import sys
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
