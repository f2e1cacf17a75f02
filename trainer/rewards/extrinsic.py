"""The reward that the simulator itself gives.

Letters: B decisions of a rollout.
"""

from __future__ import annotations

from torch import Tensor

from trainer.config.settings import RewardSignalSettings
from trainer.rewards.reward_scale import RewardScale
from trainer.rollout.rollout import Rollout


class ExtrinsicReward:
    """The simulator's reward, group rewards included, normalised and clipped, times `strength`."""

    def __init__(self, settings: RewardSignalSettings) -> None:
        self.gamma = settings.gamma
        self.strength = settings.strength
        self.clip = settings.clip
        self.scale = RewardScale(settings.gamma) if settings.normalize else None

    def evaluate(self, rollout: Rollout, simulator_reward: Tensor) -> Tensor:
        """Gives this signal's reward of each decision, (B,) -> (B,); learns their size first."""
        rewards = simulator_reward
        if self.scale is not None:
            self.scale.update(rewards, rollout)
            rewards = rewards / self.scale.deviation
        if self.clip is not None:
            rewards = rewards.clamp(-self.clip, self.clip)
        return rewards * self.strength

    def state_dict(self) -> dict[str, object]:
        """Gives what normalising has learnt."""
        return {} if self.scale is None else {"scale": self.scale.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from `state_dict`; normalising that was not there before starts afresh."""
        scale = state.get("scale")
        if self.scale is not None and scale is not None:
            assert isinstance(scale, dict)
            self.scale.load_state_dict(scale)
