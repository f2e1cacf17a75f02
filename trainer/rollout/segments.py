"""Cuts the step log into segments: each agent's decisions in order, end to end.

Letters: B decisions of all segments end to end, S segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.nn.memory import Sequences
from trainer.rollout.rollout import Rollout
from trainer.rollout.sequences import cut_sequences
from trainer.rollout.steplog import (
    CONTINUED,
    NO_ROW,
    PENDING,
    TERMINATED,
    TRUNCATED,
    StepLog,
)

BEHIND_THE_END = -2  # differs from every row and from NO_ROW, so that the last row ends a segment


@dataclass(frozen=True, slots=True)
class SegmentOrder:
    """Which rows of the log make up the rollout, and where its segments end."""

    rows: NDArray[np.int64]  # (B,) rows of the log, segments end to end
    starts: NDArray[np.int64]  # (S + 1,)


def order_segments(log: StepLog, time_horizon: int) -> SegmentOrder:
    """Sorts the complete rows by lane and cuts them at ends, gaps and every `time_horizon` rows."""
    count = log.num_rows
    status = log.columns["status"][:count]
    complete = np.flatnonzero((status >= CONTINUED) & (status <= TRUNCATED))
    # Stable: rows of one lane stay in the order in which they were decided.
    rows = complete[np.argsort(log.columns["lane"][complete], kind="stable")]
    following = np.append(rows[1:], BEHIND_THE_END)
    is_end = log.columns["next_row"][rows] != following
    ends = np.flatnonzero(is_end) + 1
    starts = np.concatenate(([0], ends))
    lengths = np.diff(starts)
    if len(lengths) and int(lengths.max()) > time_horizon:
        position = np.arange(len(rows)) - np.repeat(starts[:-1], lengths)
        is_end |= (position + 1) % time_horizon == 0
        starts = np.concatenate(([0], np.flatnonzero(is_end) + 1))
    return SegmentOrder(rows, starts)


def finished_segments(log: StepLog, time_horizon: int) -> SegmentOrder:
    """Gives the segments that nothing will be added to: the others wait for an open row.

    A segment is finished when its episode is over, when it is `time_horizon` long, or when its
    simulator was lost.
    """
    order = order_segments(log, time_horizon)
    lengths = np.diff(order.starts)
    last_rows = order.rows[order.starts[1:] - 1]
    status, following = log.columns["status"], log.columns["next_row"][last_rows]
    waits = (
        (status[last_rows] == CONTINUED)
        & (lengths < time_horizon)
        & (status[following] == PENDING)  # of an ended episode `following` is NO_ROW, and unread
    )
    rows = order.rows[np.repeat(~waits, lengths)]
    return SegmentOrder(rows, np.concatenate(([0], np.cumsum(lengths[~waits]))))


def take(
    log: StepLog,
    time_horizon: int,
    device: torch.device,
    sequence_length: int | None = None,
    whole_episodes: bool = False,
) -> tuple[Rollout, Tensor]:
    """Takes all complete rows out of the log, as one rollout on `device`.

    Args:
        log: at least one row to take; afterwards it holds only rows that are still open.
        time_horizon: longest segment, in decisions.
        device: where the rollout is to lie.
        sequence_length: longest sequence, in decisions; None of a policy without memory.
        whole_episodes: leave complete rows in the log until their segment is finished.

    Returns:
        The rollout, its rewards still empty, and the simulators' rewards (B,).
    """
    order = (finished_segments if whole_episodes else order_segments)(log, time_horizon)
    rows = torch.from_numpy(order.rows)

    def gather(name: str) -> Tensor:
        return log.tensors[name][rows].to(device)

    last_rows = order.rows[order.starts[1:] - 1]  # (S,)
    sequences = None
    if sequence_length is not None:
        first = cut_sequences(order.starts, sequence_length)  # (Q + 1,)
        memory = log.tensors["memory"][rows[torch.from_numpy(first[:-1])]].to(device)
        sequences = Sequences(torch.from_numpy(first), memory, sequence_length)
    reward = gather("reward")
    rollout = Rollout(
        obs=tuple(sensor[rows].to(device) for sensor in log.obs_tensors),
        action_mask=gather("action_mask") if "action_mask" in log.tensors else None,
        continuous=gather("continuous"),
        discrete=gather("discrete"),
        log_probs=gather("log_probs"),
        rewards=reward.new_empty((len(rows), 0)),
        segment_starts=torch.from_numpy(order.starts).to(device),
        bootstrap_obs=tuple(obs.to(device) for obs in _following_obs(log, last_rows)),
        terminated=torch.from_numpy(log.columns["status"][last_rows] == TERMINATED).to(device),
        sequences=sequences,
    )
    log.keep_open_rows(_left_behind(log, order.rows) if whole_episodes else None)
    return rollout, reward


def _left_behind(log: StepLog, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives the complete rows of the log that are not among those taken."""
    status = log.columns["status"][: log.num_rows]
    stays = (status >= CONTINUED) & (status <= TRUNCATED)
    stays[taken] = False
    return np.flatnonzero(stays)


def _following_obs(log: StepLog, last_rows: NDArray[np.int64]) -> list[Tensor]:
    """Gives the observations (S, *shape) that follow the last row of each segment."""
    status = log.columns["status"][last_rows]
    following = np.where(status == CONTINUED, log.columns["next_row"][last_rows], last_rows)
    obs = [sensor[following] for sensor in log.obs_tensors]
    if log.final_rows:
        final_rows = np.concatenate(log.final_rows)
        # A final row is the last row of exactly one segment.
        segment_of_row = np.full(log.num_rows, NO_ROW, dtype=np.int64)
        segment_of_row[last_rows] = np.arange(len(last_rows))
        segments = torch.from_numpy(segment_of_row[final_rows])
        for sensor, parts in zip(obs, zip(*log.final_obs, strict=True), strict=True):
            sensor[segments] = torch.from_numpy(np.concatenate(parts))
    return obs
