"""The points of a run's curves as `events.jsonl` tells them: those that are never taken back.

A summary can still be taken back, by a kill after which the run goes on from the checkpoint before.
It is final once a checkpoint of its behaviour follows. Only then may it go to a tracker, where
nothing can be taken back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Point:
    """All curves of one behaviour at one step: what TensorBoard shows there, by tag."""

    behavior: str
    step: int
    time_s: float  # seconds since 1970
    scalars: Mapping[str, float]


@dataclass
class Journal:
    """Reads `events.jsonl` while it grows.

    Attributes:
        path: of the file; it may not be there yet.
        began: what tells this run from another one that had the folder before; None: no line yet.
        exit_code: of the run; None: it has not ended.
    """

    path: Path
    began: str | None = None
    exit_code: int | None = None
    _offset: int = 0
    _waiting: dict[str, list[Point]] = field(default_factory=dict)  # by behaviour, not yet final

    def read(self) -> Iterator[Point]:
        """Yields the points that have become final since the last call, in the file's order."""
        for line in self._new_lines():
            try:
                event = json.loads(line)
                kind, step, time_s = event["event"], int(event["step"]), float(event["time"])
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill; the trainer repairs the last line only
            if self.began is None:
                self.began = f"{time_s} {event.get('pid')}"
            if kind == "start":
                self.exit_code = None
            elif kind == "end":
                self.exit_code = int(event["exit_code"])
            elif kind == "summary":
                self._take(Point(event["behavior"], step, time_s, _numbers(event["values"])))
            elif kind == "checkpoint":
                yield from self._released(event["behavior"], int(event["shown_step"]))

    def _take(self, point: Point) -> None:
        """Keeps a point until it is final; one that comes again replaces what was taken back."""
        waiting = self._waiting.get(point.behavior, [])
        kept = [other for other in waiting if other.step < point.step]
        self._waiting[point.behavior] = [*kept, point]

    def _released(self, behavior: str, shown_step: int) -> list[Point]:
        """Gives the points that a checkpoint covers; those that came while it was written wait."""
        waiting = self._waiting.get(behavior, [])
        self._waiting[behavior] = [point for point in waiting if point.step > shown_step]
        return [point for point in waiting if point.step <= shown_step]

    def _new_lines(self) -> list[bytes]:
        """Reads the complete lines that were appended since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.splitlines()


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Gives numbers by tag; JSON has not NaN and infinities, which the log writes as texts."""
    return {tag: float(str(value)) for tag, value in values.items()}
