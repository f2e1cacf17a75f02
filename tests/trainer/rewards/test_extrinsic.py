from __future__ import annotations

import torch

from trainer.config.settings import RewardSignalSettings
from trainer.rewards.extrinsic import ExtrinsicReward
from trainer.rollout.rollout import Rollout


def empty_rollout() -> Rollout:
    return Rollout(
        obs=(),
        action_mask=None,
        continuous=torch.zeros(3, 0),
        discrete=torch.zeros(3, 0, dtype=torch.int64),
        log_probs=torch.zeros(3, 0),
        rewards=torch.zeros(3, 0),
        segment_starts=torch.tensor([0, 3]),
        bootstrap_obs=(),
        terminated=torch.tensor([True]),
    )


def test_reward_is_the_simulators_times_strength_and_leaves_it_alone() -> None:
    signal = ExtrinsicReward(RewardSignalSettings(strength=-0.5, gamma=0.9))
    simulator_reward = torch.tensor([100.0, 101.0, -2.0])
    assert signal.evaluate(empty_rollout(), simulator_reward).tolist() == [-50.0, -50.5, 1.0]
    assert simulator_reward.tolist() == [100.0, 101.0, -2.0]
    assert signal.gamma == 0.9
