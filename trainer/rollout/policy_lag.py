"""How old the policy is that chose what is learnt from, in updates.

The lag of a decision is the version learnt from minus the version that chose it. Where updates run
beside collection it is 1 for most of a rollout, and 2 for the few decisions that were open when
the rollout before was taken. What waits longer (an agent that is silent for long, an episode of
several rollouts, a slow simulator) is dropped beyond a bound.

Letters: B decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.rollout.steplog import CONTINUED, TRUNCATED, StepLog


@dataclass(frozen=True, slots=True)
class PolicyLag:
    """Of one rollout."""

    mean: float
    largest: int


def complete_rows(log: StepLog) -> NDArray[np.int64]:
    """Gives the rows whose decision has had its reward; (B,)."""
    status = log.columns["status"][: log.num_rows]
    return np.flatnonzero((status >= CONTINUED) & (status <= TRUNCATED))


def lag_of(log: StepLog, rows: NDArray[np.int64], version: int) -> PolicyLag:
    """Measures these rows, at least one; (B,).

    Args:
        log: keeps versions.
        rows: that are learnt from.
        version: of the weights that learn from them.
    """
    lags = version - log.columns["policy_version"][rows]  # (B,)
    return PolicyLag(float(lags.mean()), int(lags.max()))


def drop_stale(log: StepLog, oldest: int) -> int:
    """Gives up the complete rows that were chosen by versions before `oldest`; says how many.

    An agent's decisions are chosen by ever newer versions, so what goes is the beginning of its
    segment, and what stays is a segment of its own.
    """
    rows = complete_rows(log)
    stale = rows[log.columns["policy_version"][rows] < oldest]
    if not len(stale):
        return 0
    log.give_up(stale)
    _forget_last_obs(log, stale)
    return len(stale)


def _forget_last_obs(log: StepLog, rows: NDArray[np.int64]) -> None:
    """Forgets the last observations of truncated episodes that follow these rows."""
    kept = [~np.isin(final_rows, rows) for final_rows in log.final_rows]
    log.final_obs[:] = [
        tuple(sensor[keeps] for sensor in obs)
        for obs, keeps in zip(log.final_obs, kept, strict=True)
        if keeps.any()
    ]
    log.final_rows[:] = [
        final_rows[keeps]
        for final_rows, keeps in zip(log.final_rows, kept, strict=True)
        if keeps.any()
    ]
