"""How many rows of a step log are in segments that nothing will be added to, counted as they come.

`segments.finished_segments` finds them by sorting the whole log, which is too much at every step of
the simulators while an update waits for whole episodes.

Letters: N agents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class FinishedRows:
    """Counts per lane the rows of the segment that may still grow, and all rows of the others."""

    def __init__(self, time_horizon: int) -> None:
        """Starts with an empty log.

        Args:
            time_horizon: longest segment, in decisions.
        """
        self.num_rows = 0
        self._time_horizon = time_horizon
        self._growing = np.zeros(64, np.int64)  # (lanes,)

    def add(self, lanes: NDArray[np.int64]) -> None:
        """Takes note of one more complete row in each of these lanes; (N,), none twice."""
        highest = int(lanes.max(initial=0))
        if highest >= len(self._growing):
            more = np.zeros(2 * highest + 1 - len(self._growing), np.int64)
            self._growing = np.append(self._growing, more)
        length = self._growing[lanes] + 1
        length[length == self._time_horizon] = 0
        self.num_rows += self._time_horizon * int(np.count_nonzero(length == 0))
        self._growing[lanes] = length

    def end(self, lanes: NDArray[np.int64]) -> None:
        """Takes note that nothing more comes to the segments of these lanes; (N,)."""
        lanes = lanes[lanes < len(self._growing)]
        self.num_rows += int(self._growing[lanes].sum())
        self._growing[lanes] = 0

    def take(self) -> None:
        """Takes note that all finished rows have left the log, and no others."""
        self.num_rows = 0

    def clear(self) -> None:
        """Takes note that all complete rows have left the log."""
        self.num_rows = 0
        self._growing[:] = 0
