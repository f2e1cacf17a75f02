"""Where the time of a run goes, for the screen and for ML-Agents' `timers.json`."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

SIMULATORS = "simulators"
BRIDGE = "bridge"
INFERENCE = "inference"
LEARNING = "learning"
SAVING = "saving"
WAITING = "waiting for the learner"  # only where updates are threaded


class Stretch:
    """The time inside a block; cheaper than a generator, as the loop has several in each turn."""

    __slots__ = ("_began", "_busy", "_calls", "_part", "_processor_s", "_seconds")

    def __init__(
        self,
        seconds: dict[str, float],
        calls: dict[str, int],
        part: str,
        processor_s: dict[str, float],
    ) -> None:
        self._seconds, self._calls, self._part = seconds, calls, part
        self._processor_s = processor_s if part in processor_s else None  # reading it takes long
        self._busy = 0.0

    def __enter__(self) -> None:
        """Begins."""
        if self._processor_s is not None:
            self._busy = time.process_time()
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        """Adds the time since then."""
        self._seconds[self._part] += time.perf_counter() - self._began
        self._calls[self._part] += 1
        if self._processor_s is not None:
            self._processor_s[self._part] += time.process_time() - self._busy


class Timers:
    """Seconds and calls per part of the loop; parts do not overlap."""

    def __init__(self) -> None:
        self.start_time_s = time.time()
        self._started = time.perf_counter()
        self._seconds = {SIMULATORS: 0.0, BRIDGE: 0.0, INFERENCE: 0.0, LEARNING: 0.0, SAVING: 0.0}
        self._calls = dict.fromkeys(self._seconds, 0)
        self._processor_s = {LEARNING: 0.0, SAVING: 0.0}
        self._gauges: dict[str, dict[str, float]] = {}
        self._beside_s = 0.0  # in the learner's thread
        self._num_beside = 0

    def add(self, part: str) -> None:
        """Makes room for one more part of the loop."""
        self._seconds[part] = 0.0
        self._processor_s[part] = 0.0
        self._calls[part] = 0

    def count_beside(self, seconds: float) -> None:
        """Adds an update that has run beside the loop; it is no part of the loop's time."""
        self._beside_s += seconds
        self._num_beside += 1

    @property
    def update_s(self) -> float:
        """Seconds spent in updates, in the loop or beside it."""
        return self._seconds[LEARNING] + self._beside_s

    @property
    def learner_share(self) -> float | None:
        """How busy the learner was, as a share of the measured time; None: it is in the loop."""
        if WAITING not in self._seconds:
            return None
        return self._beside_s / (sum(self._seconds.values()) or 1.0)

    def measure(self, part: str) -> AbstractContextManager[None]:
        """Adds the time inside the block to a part."""
        return Stretch(self._seconds, self._calls, part, self._processor_s)

    def move(self, source: str, target: str, seconds: float) -> None:
        """Counts seconds for `target` that were measured as a part of `source`."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds
        self._calls[target] += 1

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    @property
    def collecting_s(self) -> float:
        """Seconds spent on anything but learning and saving."""
        seconds = self._seconds
        return seconds[SIMULATORS] + seconds[BRIDGE] + seconds[INFERENCE]

    def seconds(self) -> dict[str, float]:
        """Gives the seconds spent in each part so far."""
        return dict(self._seconds)

    def processor_seconds(self) -> dict[str, float]:
        """Gives the processor seconds of this process in learning and in saving so far.

        Not of collecting: reading that clock at every turn of the loop would cost more than it
        tells.
        """
        return dict(self._processor_s)

    def shares(self) -> dict[str, float]:
        """Gives each part's share of the measured time, 0 to 1."""
        total = sum(self._seconds.values()) or 1.0
        return {part: seconds / total for part, seconds in self._seconds.items()}

    def gauge(self, name: str, value: float) -> None:
        """Takes the newest value of a statistic; how far it has ranged is kept, too.

        A value that is not finite is left out: JSON has no word for it.
        """
        if not math.isfinite(value):
            return
        before = self._gauges.get(name, {"min": value, "max": value, "count": 0})
        self._gauges[name] = {
            "value": value,
            "min": min(value, before["min"]),
            "max": max(value, before["max"]),
            "count": before["count"] + 1,
        }

    def to_json(self, versions: Mapping[str, str]) -> str:
        """Gives the tree in the form of ML-Agents' `run_logs/timers.json`.

        Args:
            versions: of what the run is made of, for the metadata.
        """
        total = self.elapsed_s
        children: dict[str, dict[str, float]] = {
            part: {"total": seconds, "count": self._calls[part], "self": seconds}
            for part, seconds in self._seconds.items()
        }
        if self._num_beside:  # as ML-Agents has what ran in another thread
            beside: dict[str, float] = {"total": self._beside_s, "count": self._num_beside}
            children["learner"] = {**beside, "self": self._beside_s, "is_parallel": True}
        tree = {
            "name": "root",
            "gauges": self._gauges,
            "metadata": {
                "timer_format_version": "0.1.0",
                "start_time_seconds": str(int(self.start_time_s)),
                "end_time_seconds": str(int(self.start_time_s + total)),
                "python_version": platform.python_version(),
                "command_line_arguments": " ".join(sys.argv),
                **versions,
            },
            "total": total,
            "count": 1,
            "self": total - sum(self._seconds.values()),
            "children": children,
        }
        return json.dumps(tree, indent=2)
