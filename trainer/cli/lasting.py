"""Output that outlives its terminal: what nobody can read any more must not end a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class LastingStream:
    """A text stream that falls silent when its terminal is closed or its reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_silent = False

    def write(self, text: str) -> int:
        """Writes, or does nothing once that has failed."""
        if not self.is_silent:
            try:
                return self._stream.write(text)
            except (OSError, ValueError):  # ValueError: it was closed
                self.is_silent = True
        return len(text)

    def flush(self) -> None:
        """Flushes, or does nothing once that has failed."""
        if not self.is_silent:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self.is_silent = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Makes standard output and standard error lasting inside the block, and until the end.

    They stay so if they have fallen silent: at its end Python flushes them once more, and would
    report the failure with an exit code of its own.
    """
    before = sys.stdout, sys.stderr
    lasting = LastingStream(before[0]), LastingStream(before[1])
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
            stream.flush()
        if not any(stream.is_silent for stream in lasting):
            sys.stdout, sys.stderr = before
