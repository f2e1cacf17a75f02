"""K environments of one kind that step together in the trainer's process, as columns.

Letters: K environments, E of them whose episode is over, C continuous action size, L sum of branch
sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from envs.batch import Bool, Float32, Int32, Int64, Observations
from envs.bridge.side_channels import Sampler, StatsMessage
from envs.spec import BehaviorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessPlan:
    """What to build in the trainer's process."""

    env: str  # the word after `gym:` or `torch:`
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Sequence[Mapping[str, Mapping[str, Any]]] = ()
    behavior_name: str | None = None  # None: from the id
    video: Path | None = None  # films the first environment's episodes
    device: str | None = None  # of an environment on tensors; "auto" = a GPU if there is one

    @property
    def words(self) -> str:
        """What stands behind --env."""
        return f"{'gym' if self.device is None else 'torch'}:{self.env}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Some environments cannot go on."""

    unit: int
    error: Exception


@dataclass(slots=True)
class Turn:
    """What one env_step of K environments came to; columns are overwritten by the next one."""

    obs: tuple[Observations, ...]  # (K, *shape) each, what agents see now
    reward: Float32  # (K,) of the decisions before, 0 at an episode's beginning
    asks: Bool  # (K,) who waits for an action
    ended: Int64  # (E,) rows whose episode is over
    final_obs: tuple[Observations, ...] = ()  # (E, *shape) each
    final_reward: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))  # (E,)
    truncated: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))  # (E,)
    action_mask: Bool | None = None  # (K, L) True = allowed; None without branches
    failures: list[Failure] = field(default_factory=list)
    stats: tuple[StatsMessage, ...] = ()


class Copies(Protocol):
    """K environments of one kind; a *unit* is what fails and is built anew as one."""

    behavior_id: str
    spec: BehaviorSpec
    units: Sequence[slice]  # rows of each unit

    def begin(self, unit: int, seed: int) -> Turn:
        """Builds a unit, unless that was done, and begins its first episodes.

        Gives the columns as they are now; only those of the unit's rows are new.
        """
        ...

    def step(self, continuous: Float32, discrete: Int32, is_running: Sequence[bool]) -> Turn:
        """Makes one env_step in all units that are running; (K, C) in -1..1, (K, branches)."""
        ...

    def begin_row(self, row: int, turn: Turn) -> bool:
        """Begins one environment's next episode now; False where that cannot be done."""
        ...

    def discard(self, unit: int) -> None:
        """Lets go of a unit; `begin` builds it anew."""
        ...

    def set_parameters(self, parameters: Mapping[str, float | Sampler], seed: int) -> None:
        """Takes environment parameters for the episodes that begin from now on."""
        ...
