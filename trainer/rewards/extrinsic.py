"""The reward that the simulator itself gives.

Letters: B decisions of a rollout.
"""

from __future__ import annotations

from torch import Tensor

from trainer.config.settings import RewardSignalSettings
from trainer.rollout.rollout import Rollout


class ExtrinsicReward:
    """The simulator's reward, group rewards included, times `strength`."""

    def __init__(self, settings: RewardSignalSettings) -> None:
        self.gamma = settings.gamma
        self.strength = settings.strength

    def evaluate(self, rollout: Rollout, simulator_reward: Tensor) -> Tensor:
        """Gives this signal's reward of each decision; (B,) -> (B,)."""
        return simulator_reward * self.strength
