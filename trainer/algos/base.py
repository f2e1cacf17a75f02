"""What a run asks of every algorithm.

Letters: B decisions of a rollout, R reward signals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trainer.rollout.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Update:
    """What an update has to tell; tensors that nobody has waited for yet."""

    statistics: dict[str, Tensor]  # scalars by TensorBoard tag
    # (R,) what the critic thought of the rollout's rows before it learnt; None where there is none
    mean_values: Tensor | None


class Algorithm(Protocol):
    """Learns from one rollout at a time; owns the optimiser, not the policy."""

    def update(self, rollout: Rollout, step: int) -> Update:
        """Changes the policy's weights.

        Args:
            rollout: everything since the last update, rewards (B, R) filled in.
            step: decisions learnt from so far; schedules depend on it.
        """
        ...

    def rates(self, step: int) -> dict[str, float]:
        """Gives the numbers that schedules set, as they are at a step, by TensorBoard tag."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Gives everything that has to outlive the process: tensors, numbers and strings."""
        ...

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from a state that `state_dict` gave."""
        ...
