"""The step log: one row per decision, appended in arrival order, written once.

Letters: N agents in one batch, C continuous action size, K discrete branches,
L sum of branch sizes, W memory width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.batch import Choices, Decisions, Observations, Terminals
from envs.spec import BehaviorSpec, sum_of_branches
from trainer.rollout.finished_rows import FinishedRows

# What became of a row's decision.
PENDING = 0  # the agent has not been heard of since
CONTINUED = 1  # its next decision is another row
TERMINATED = 2
TRUNCATED = 3
ABANDONED = 4  # the simulator was lost or reset before it answered

NO_ROW = -1


class StepLog:
    """Columns of all decisions of one behaviour since the last update, and who waits for what.

    A row is opened when an agent decides and closed by that agent's next message, which brings the
    reward. Agents may decide at different times; rows of one agent are tied by its lane.
    The columns are numpy arrays that share their memory with torch tensors (`tensors`).
    """

    def __init__(
        self,
        spec: BehaviorSpec,
        capacity: int,
        memory_width: int = 0,
        finished: FinishedRows | None = None,
        *,
        keeps_versions: bool = False,
    ) -> None:
        """Makes room for `capacity` rows.

        Args:
            spec: of the behaviour.
            capacity: rows at first; more come as they are needed.
            memory_width: numbers that an agent with memory carries.
            finished: counts along, where an update waits for whole episodes.
            keeps_versions: note in every row which policy chose, in a column `policy_version`.
        """
        sensors = spec.observation_specs
        self._num_sensors = len(sensors)
        action_spec = spec.action_spec
        continuous, branches = action_spec.continuous_size, action_spec.discrete_size
        self._widths: dict[str, tuple[tuple[int, ...], str | type[np.generic]]] = {
            # Images that came as PNG stay bytes: a quarter of the memory.
            **{f"obs_{i}": (tuple(s.shape), s.dtype) for i, s in enumerate(sensors)},
            "continuous": ((continuous,), np.float32),
            "discrete": ((branches,), np.int64),
            "log_probs": ((continuous + branches,), np.float32),
            "reward": ((), np.float32),
            "lane": ((), np.int64),
            "status": ((), np.int8),
            "next_row": ((), np.int64),
        }
        if branches:
            self._widths["action_mask"] = ((sum_of_branches(spec),), np.bool_)
        self.keeps_versions = keeps_versions
        self.policy_version = 0  # of the policy that chooses now: updates that were published
        if keeps_versions:
            self._widths["policy_version"] = ((), np.int64)
        if memory_width:
            self._widths["memory"] = ((memory_width,), np.float32)  # before the decision
        self.columns: dict[str, NDArray[Any]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self._resize(capacity)
        self.num_rows = 0
        self.num_complete = 0
        self.finished = finished
        self.num_kept = 0  # complete rows that the last rollout has left for a later one
        self._pending = np.full(64, NO_ROW, dtype=np.int64)  # (lanes,) a lane's open row
        # Last observations of truncated episodes, with the row that each follows.
        self.final_rows: list[NDArray[np.int64]] = []
        self.final_obs: list[tuple[Observations, ...]] = []

    @property
    def num_sensors(self) -> int:
        """How many observations a decision has."""
        return self._num_sensors

    @property
    def num_bytes(self) -> int:
        """Memory that the columns hold."""
        return sum(column.nbytes for column in self.columns.values())

    @property
    def row_bytes(self) -> dict[str, int]:
        """Memory of one row, by column."""
        return {name: column[:1].nbytes for name, column in self.columns.items()}

    def _resize(self, capacity: int) -> None:
        for name, (shape, dtype) in self._widths.items():
            column = np.zeros((capacity, *shape), dtype=dtype)
            if name in self.columns:
                column[: self.num_rows] = self.columns[name][: self.num_rows]
            self.columns[name] = column
            self.tensors[name] = torch.from_numpy(column)
        self.capacity = capacity
        sensors = range(self.num_sensors)
        self.obs_columns = [self.columns[f"obs_{i}"] for i in sensors]
        self.obs_tensors = [self.tensors[f"obs_{i}"] for i in sensors]  # each (capacity, *shape)

    def _open_rows(self, lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Gives the open rows of these lanes, NO_ROW where a lane has none."""
        try:
            return self._pending[lanes]
        except IndexError:  # a higher lane than ever before
            grown = np.full(2 * int(lanes.max()) + 1, NO_ROW, dtype=np.int64)
            grown[: len(self._pending)] = self._pending
            self._pending = grown
            return self._pending[lanes]

    def append(self, batches: Sequence[Decisions]) -> slice:
        """Writes observations, masks and lanes of new decisions; closes the lanes' open rows.

        Returns:
            The new rows, in the order of the batches; `record` must fill in what was chosen.
        """
        total = sum(len(batch) for batch in batches)
        start = self.num_rows
        if start + total > self.capacity:
            self._resize(2 * (start + total))
        columns = self.columns
        for batch in batches:
            end = start + len(batch)
            for column, obs in zip(self.obs_columns, batch.obs, strict=True):
                column[start:end] = obs
            if batch.action_mask is not None:
                columns["action_mask"][start:end] = batch.action_mask
            columns["lane"][start:end] = batch.lane
            columns["status"][start:end] = PENDING
            rows = np.arange(start, end)
            self._close(batch.lane, batch.reward + batch.group_reward, CONTINUED, rows)
            self._pending[batch.lane] = rows
            start = end
        rows_written = slice(self.num_rows, start)
        if self.keeps_versions:
            columns["policy_version"][rows_written] = self.policy_version
        self.num_rows = start
        return rows_written

    def record(self, rows: slice, choices: Choices) -> None:
        """Writes what was chosen into the rows that `append` opened."""
        columns = self.columns
        if choices.continuous.size:
            columns["continuous"][rows] = choices.continuous
        if choices.discrete.size:
            columns["discrete"][rows] = choices.discrete
        columns["log_probs"][rows] = choices.log_probs

    def record_choices(
        self, lanes: NDArray[np.int64], choices: Choices, policy_version: int
    ) -> None:
        """Writes what a simulator chose itself into the rows that these lanes have open."""
        rows = self._open_rows(lanes)
        if self.keeps_versions:
            self.columns["policy_version"][rows] = policy_version
        for name in ("continuous", "discrete", "log_probs"):
            self.columns[name][rows] = getattr(choices, name)

    def close(self, ended: Terminals) -> None:
        """Writes the last reward and the kind of ending into the open rows of ended agents."""
        kind = np.where(ended.truncated, TRUNCATED, TERMINATED).astype(np.int8)
        rows = self._close(ended.lane, ended.reward + ended.group_reward, kind, NO_ROW)
        if self.finished is not None:
            self.finished.end(ended.lane)
        self._pending[ended.lane] = NO_ROW
        cut = ended.truncated & (rows != NO_ROW)
        if cut.any():
            self.final_rows.append(rows[cut])
            self.final_obs.append(tuple(obs[cut] for obs in ended.obs))

    def _close(
        self,
        lanes: NDArray[np.int64],
        reward: NDArray[np.float32],
        status: int | NDArray[np.int8],
        next_rows: int | NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Closes the open rows of these lanes; gives them, NO_ROW where a lane had none."""
        rows = self._open_rows(lanes)
        open_rows = rows != NO_ROW
        if open_rows.all():
            closed, at = rows, slice(None)
        else:
            closed, at = rows[open_rows], open_rows
        if len(closed):
            self.columns["reward"][closed] = reward[at]
            self.columns["status"][closed] = status if isinstance(status, int) else status[at]
            self.columns["next_row"][closed] = (
                next_rows if isinstance(next_rows, int) else next_rows[at]
            )
            self.num_complete += len(closed)
            if self.finished is not None:
                self.finished.add(lanes[at])
        return rows

    def abandon(self, lanes: NDArray[np.int64]) -> None:
        """Gives up the open rows of lanes whose simulator was lost or reset.

        The rows before them stay: the abandoned row still holds what they bootstrap from.
        """
        if not len(lanes):
            return
        rows = self._open_rows(lanes)
        self.columns["status"][rows[rows != NO_ROW]] = ABANDONED
        if self.finished is not None:
            self.finished.end(lanes)
        self._pending[lanes] = NO_ROW

    def give_up(self, rows: NDArray[np.int64]) -> None:
        """Gives up complete rows, (any,): the beginnings of segments whose other rows stay."""
        self.columns["status"][rows] = ABANDONED
        self.num_complete -= len(rows)
        self.num_kept = min(self.num_kept, self.num_complete)
        if self.finished is None:
            return
        self.finished.clear()
        status = self.columns["status"][: self.num_rows]
        for row in np.flatnonzero((status >= CONTINUED) & (status <= TRUNCATED)):
            lane = self.columns["lane"][row : row + 1]
            self.finished.add(lane)
            following = self.columns["next_row"][row]
            if status[row] != CONTINUED or status[following] == ABANDONED:
                self.finished.end(lane)

    def keep_open_rows(self, complete: NDArray[np.int64] | None = None) -> None:
        """Empties the log but for the rows that still wait for their reward.

        Args:
            complete: (any,) complete rows that stay too; each with the row that follows it.
        """
        open_lanes = np.flatnonzero(self._pending != NO_ROW)
        rows = self._pending[open_lanes]
        self.num_complete = self.num_kept = 0
        if complete is not None:
            rows = np.concatenate([complete, rows])
            self.num_complete = self.num_kept = len(complete)
        if self.finished is not None:
            self.finished.clear() if complete is None else self.finished.take()
        rows.sort()  # rows of one lane stay in the order in which they were decided
        for column in self.columns.values():
            column[: len(rows)] = column[rows]
        self._pending[open_lanes] = np.searchsorted(rows, self._pending[open_lanes])
        following = self.columns["next_row"][: len(rows)]
        following[:] = np.searchsorted(rows, following)  # of open rows it means nothing yet
        self.num_rows = len(rows)
        self.final_rows.clear()
        self.final_obs.clear()
