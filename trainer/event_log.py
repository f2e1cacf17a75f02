"""Everything that happens in a run, one JSON object per line, in a file that only ever grows.

Every line has `time` (seconds since 1970), `event` and `step`; what else it has depends on the
event. A line is written in one piece as soon as the event happens, so what a killed process leaves
is complete but for, at worst, its last line; whoever opens the file next repairs that.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

SPARE_BYTES = 1 << 16
TAIL_BYTES = 1 << 16  # read at once when looking for the end of the last complete line


class EventLog:
    """Appends events to a file. One writer per file; a context manager is not needed."""

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        """Opens the file, and makes its folder.

        Args:
            path: such as `run_logs/events.jsonl`.
            goes_on: keep what is there and repair its last line; else begin with an empty file.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file: int | None = os.open(path, flags | (0 if goes_on else os.O_TRUNC), 0o644)
        self.torn_bytes = _repair(self._file)
        # Room for the last words of a run that has filled its disk; freed by closing it.
        self._spare: IO[bytes] | None = TemporaryFile(dir=path.parent, buffering=0)  # noqa: SIM115  # closed in `close`
        self._spare.write(bytes(SPARE_BYTES))

    def write(self, event: str, *, step: int, **fields: object) -> None:
        """Appends one line.

        Args:
            event: what happened.
            step: of the behaviour that it happened to, else of all behaviours together.
            **fields: more about it: texts, numbers, booleans, None, and lists and mappings of them.
                NaN and infinities, which JSON has not, become the texts `nan`, `inf` and `-inf`.
        """
        assert self._file is not None, "the run has ended"
        line = {"time": round(time.time(), 3), "event": event, "step": step, **fields}
        text = json.dumps(_plain(line), ensure_ascii=False, allow_nan=False)
        content = memoryview(f"{text}\n".encode())
        while len(content):  # once, but for disks that are full or signals
            try:
                content = content[os.write(self._file, content) :]
            except OSError as error:
                if error.errno != errno.ENOSPC or self._spare is None:
                    raise
                self._free_spare()

    def _free_spare(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def close(self) -> None:
        """Ends the file; nothing may be written any more."""
        self._free_spare()
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _repair(file: int) -> int:
    """Ends an unfinished last line, or takes it away; gives how many bytes were taken away."""
    size = os.lseek(file, 0, os.SEEK_END)
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        begin = max(0, start - TAIL_BYTES)
        os.lseek(file, begin, os.SEEK_SET)
        tail = os.read(file, start - begin) + tail
        start = begin
    last = tail.rpartition(b"\n")[2]
    if not last:
        return 0
    try:
        is_complete = isinstance(json.loads(last), dict)
    except ValueError:
        is_complete = False
    if is_complete:
        os.write(file, b"\n")
        return 0
    os.ftruncate(file, size - len(last))
    return len(last)


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
