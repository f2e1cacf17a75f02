"""What living agents carry from one decision to the next, for a policy with memory.

Letters: N agents ready now, W memory width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class CarriedMemory:
    """A row per lane; 0 for an agent that has not decided yet.

    Whoever ends a lane has to `forget` it, since another agent will get its number.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self._table = torch.zeros((64, width), device=device)  # (lanes, W)

    def of(self, lanes: NDArray[np.int64]) -> Tensor:
        """Gives what these agents carry, as a copy; (N,) -> (N, W)."""
        highest = int(lanes.max(initial=-1))
        if highest >= len(self._table):
            more = self._table.new_zeros((2 * highest + 1 - len(self._table), self.width))
            self._table = torch.cat([self._table, more])
        return self._table[self._rows(lanes)]

    @property
    def width(self) -> int:
        """W, numbers that one agent carries."""
        return self._table.shape[1]

    def keep(self, lanes: NDArray[np.int64], memory: Tensor) -> None:
        """Takes note of what agents carry on, after `of` was asked for them; (N,), (N, W)."""
        self._table[self._rows(lanes)] = memory

    def forget(self, lanes: NDArray[np.int64]) -> None:
        """Clears lanes whose episode is over."""
        self._table[self._rows(lanes[lanes < len(self._table)])] = 0.0

    def _rows(self, lanes: NDArray[np.int64]) -> Tensor:
        # A copy, because the lanes of a message cannot be written to, and torch warns of that.
        return torch.from_numpy(lanes.copy()).to(self._table.device)
