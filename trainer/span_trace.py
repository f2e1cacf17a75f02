"""Spans and counters of a process, in the format that chrome://tracing and Perfetto open.

Source: "Trace Event Format", JSON object format, events X (complete), C (counter), M (metadata).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.atomic_file import atomic_write

MOST_EVENTS = 2_000_000  # some 200 MB of JSON
Event = tuple[str, int, float, float]  # name, track, moment and length in seconds


class SpanTrace:
    """Collects spans by track, each of one thread. Spans of a track lie inside or beside others."""

    def __init__(self) -> None:
        self.began_s = time.perf_counter()
        self.tracks: dict[int, str] = {}
        self.spans: list[Event] = []
        self.num_left_out = 0  # beyond MOST_EVENTS
        self._counters: list[tuple[str, float, float]] = []

    def add(self, name: str, track: int, began_s: float, ended_s: float) -> None:
        """Takes a span, its moments by time.perf_counter."""
        if len(self.spans) + len(self._counters) >= MOST_EVENTS:
            self.num_left_out += 1
            return
        self.spans.append((name, track, began_s - self.began_s, ended_s - began_s))

    @contextmanager
    def span(self, name: str, track: int) -> Iterator[None]:
        """Records the time inside the block."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, track, began_s, time.perf_counter())

    def count(self, name: str, value: float) -> None:
        """Takes the value that a counter has now."""
        if len(self.spans) + len(self._counters) < MOST_EVENTS:
            self._counters.append((name, time.perf_counter() - self.began_s, value))

    def totals(self, track: int) -> dict[str, tuple[int, float]]:
        """Gives calls and seconds of a track's spans by name, in order of their first end."""
        found: dict[str, tuple[int, float]] = {}
        for name, of, _, length_s in self.spans:
            if of == track:
                calls, total_s = found.get(name, (0, 0.0))
                found[name] = calls + 1, total_s + length_s
        return found

    def write(self, path: Path) -> None:
        """Writes the file in one piece."""
        pid = os.getpid()
        events: list[dict[str, object]] = [
            {"ph": "M", "name": "thread_name", "pid": pid, "tid": track, "args": {"name": name}}
            for track, name in sorted(self.tracks.items())
        ]
        events += [
            {
                "ph": "M",
                "name": "thread_sort_index",
                "pid": pid,
                "tid": t,
                "args": {"sort_index": t},
            }
            for t in sorted(self.tracks)
        ]
        # Microseconds, as the format wants them; an outer span before those inside it.
        events += [
            {
                "ph": "X",
                "name": name,
                "pid": pid,
                "tid": track,
                "ts": round(1e6 * moment_s, 3),
                "dur": round(1e6 * length_s, 3),
            }
            for name, track, moment_s, length_s in sorted(
                self.spans, key=lambda one: (one[1], one[2], -one[3])
            )
        ]
        events += [
            {"ph": "C", "name": name, "pid": pid, "ts": round(1e6 * at_s, 3), "args": {name: value}}
            for name, at_s, value in self._counters
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
        atomic_write(path, text.encode())
