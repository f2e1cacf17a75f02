"""Steps per second over the last seconds."""

from __future__ import annotations

import time
from collections import deque

WINDOW_S = 10.0


class Speedometer:
    """Remembers how far the run was at each reading of the last seconds."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, int]] = deque()

    def read(self, total_steps: int) -> float:
        """Takes the steps of the run so far; gives steps per second, 0 at the first reading."""
        now = time.perf_counter()
        self._readings.append((now, total_steps))
        # The oldest reading may lie before the window: an update can take longer than that.
        while len(self._readings) > 2 and now - self._readings[1][0] > WINDOW_S:
            self._readings.popleft()
        then, before = self._readings[0]
        return (total_steps - before) / (now - then) if now > then else 0.0
