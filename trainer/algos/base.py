"""What a run asks of every algorithm.

Letters: B decisions of a rollout, R reward signals.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from trainer.rollout.rollout import Rollout


class Algorithm(Protocol):
    """Learns from one rollout at a time; owns the optimiser, not the policy."""

    def update(self, rollout: Rollout, step: int) -> dict[str, Tensor]:
        """Changes the policy's weights.

        Args:
            rollout: everything since the last update, rewards (B, R) filled in.
            step: decisions learnt from so far; schedules depend on it.

        Returns:
            Statistics by TensorBoard tag, each a scalar tensor that nobody has waited for yet.
        """
        ...

    def state_dict(self) -> dict[str, object]:
        """Gives everything that has to outlive the process: tensors, numbers and strings."""
        ...

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from a state that `state_dict` gave."""
        ...
