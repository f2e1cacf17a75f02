"""Keeps glibc's malloc from holding ever more memory that nobody uses.

An update takes and frees hundreds of megabytes in pieces of all sizes. glibc keeps what it got, in
heaps that fill with gaps: a process that holds no more than before still grows, by 100 MB an hour
with Walker.yaml. So large blocks stay out of the heaps, and what is free in these is given back
once in a while, which takes some milliseconds. Other C libraries are left alone.
"""

from __future__ import annotations

import ctypes
import sys
import time

# Layers of 2048 x 512 stay below: with 4 MiB, an update of Walker.yaml took 5.0 s instead of 4.0.
LARGE_BYTES = 8 * 2**20
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def _find_glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


_glibc = _find_glibc()


def keep_large_blocks_apart() -> None:
    """Gives blocks of 8 MiB and more pages of their own, which go back as soon as they are freed.

    glibc begins like that with 128 KiB, but whenever such a block is freed it lets blocks of that
    size into the heaps from then on, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD): the columns of
    rollouts, of which every update makes a few.
    """
    if _glibc is not None:
        _glibc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def return_free_memory() -> None:
    """Gives free pages of the heaps back."""
    if _glibc is not None:
        _glibc.malloc_trim(0)


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
