"""Returns and lengths of episodes, summed up as rewards come in.

Letters: N agents in one batch.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from envs.batch import AgentColumns, Decisions, Terminals


class EpisodeTracker:
    """Running sums per lane; what a finished episode came to goes to `finished`.

    Returns are undiscounted sums of the agents' individual rewards (ML-Agents' Cumulative Reward;
    group rewards are not in it). Lengths count every transition, the terminal one too.
    """

    def __init__(self, window: int = 100) -> None:
        self._returns = np.zeros(64, dtype=np.float64)  # (lanes,)
        self._lengths = np.full(64, -1, dtype=np.int64)  # (lanes,) -1 = lane not in an episode
        self.recent_returns: deque[float] = deque(maxlen=window)
        self.recent_lengths: deque[int] = deque(maxlen=window)
        self._finished: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []

    def _lengths_of(self, lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Gives the lengths so far; the tables grow with the highest lane."""
        try:
            return self._lengths[lanes]
        except IndexError:
            more = 2 * int(lanes.max()) + 1 - len(self._returns)
            self._returns = np.append(self._returns, np.zeros(more))
            self._lengths = np.append(self._lengths, np.full(more, -1, dtype=np.int64))
            return self._lengths[lanes]

    def _add(self, batch: AgentColumns) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Adds the rewards to the lanes' episodes; gives returns and lengths so far, (N,) each."""
        lanes = batch.lane
        lengths = self._lengths_of(lanes) + 1
        returns = self._returns[lanes] + batch.reward
        if not lengths.all():
            # A lane's first message only says that the agent lives: no decision came before it.
            returns[lengths == 0] = 0.0
        self._lengths[lanes] = lengths
        self._returns[lanes] = returns
        return returns, lengths

    def decide(self, batch: Decisions) -> None:
        """Counts the rewards that came with new decisions."""
        self._add(batch)

    def end(self, batch: Terminals) -> None:
        """Counts the last rewards and files the finished episodes."""
        returns, lengths = self._add(batch)
        self.add_finished(returns, lengths)
        self.abandon(batch.lane)

    def add_finished(self, returns: NDArray[np.float64], lengths: NDArray[np.int64]) -> None:
        """Files episodes that somebody else has summed up, in the order in which they ended."""
        self._finished.append((returns, lengths))
        window = self.recent_returns.maxlen or 0
        self.recent_returns.extend(returns[-window:].tolist())
        self.recent_lengths.extend(lengths[-window:].tolist())

    def abandon(self, lanes: NDArray[np.int64]) -> None:
        """Forgets the unfinished episodes of these lanes."""
        known = lanes[lanes < len(self._lengths)]
        self._returns[known] = 0.0
        self._lengths[known] = -1

    def take_finished(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Gives returns and lengths of the episodes finished since the last call."""
        if not self._finished:
            return np.zeros(0), np.zeros(0, dtype=np.int64)
        returns = np.concatenate([part[0] for part in self._finished])
        lengths = np.concatenate([part[1] for part in self._finished])
        self._finished.clear()
        return returns, lengths
