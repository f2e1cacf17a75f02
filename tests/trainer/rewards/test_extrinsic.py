from __future__ import annotations

import torch
from pytest import approx

from trainer.config.settings import RewardSignalSettings
from trainer.rewards.extrinsic import ExtrinsicReward
from trainer.rewards.reward_scale import returns_so_far
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


def rollout_of(lengths: list[int]) -> Rollout:
    rows = sum(lengths)
    starts = torch.tensor([0, *lengths]).cumsum(0)
    return Rollout(
        obs=(),
        action_mask=None,
        continuous=torch.zeros(rows, 0),
        discrete=torch.zeros(rows, 0, dtype=torch.int64),
        log_probs=torch.zeros(rows, 0),
        rewards=torch.zeros(rows, 0),
        segment_starts=starts,
        bootstrap_obs=(),
        terminated=torch.ones(len(lengths), dtype=torch.bool),
    )


def test_return_so_far_looks_back_within_its_segment() -> None:
    found = returns_so_far(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]), rollout_of([3, 2]), 0.5)
    assert found.tolist() == [1.0, 2.5, 5.25, 8.0, 20.0]


def test_normalised_rewards_are_divided_by_the_deviation_of_all_returns_so_far() -> None:
    signal = ExtrinsicReward(RewardSignalSettings(gamma=0.5, normalize=True, strength=2.0))
    first = signal.evaluate(rollout_of([2]), torch.tensor([1.0, 2.0]))
    # 1 and 2.5, and the imagined one; their squared distances from 1.1667, and its variance 1:
    # (1.3611 + 0.0278 + 1.7778 + 1) / 3 = 1.3889
    assert first.tolist() == approx([2 / 1.3889**0.5, 4 / 1.3889**0.5], rel=1e-4)
    state = signal.state_dict()
    many = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 50
    signal.evaluate(rollout_of([1] * 4000), many)
    assert signal.evaluate(rollout_of([1]), torch.tensor([50.0])).item() == approx(2.0, rel=0.03)
    other = ExtrinsicReward(RewardSignalSettings(gamma=0.5, normalize=True, strength=2.0))
    other.load_state_dict(state)
    again = other.evaluate(rollout_of([1] * 4000), many)
    assert again.std().item() == approx(2.0, rel=0.03)
    assert other.state_dict() != state


def test_zero_stays_zero_and_signs_stay() -> None:
    signal = ExtrinsicReward(RewardSignalSettings(normalize=True))
    found = signal.evaluate(rollout_of([3]), torch.tensor([-100.0, 0.0, 300.0]))
    assert found[1] == 0
    assert found[0] < 0 < found[2]


def test_clip_comes_before_strength() -> None:
    signal = ExtrinsicReward(RewardSignalSettings(clip=10, strength=0.5))
    found = signal.evaluate(rollout_of([3]), torch.tensor([-100.0, 4.0, 12.0]))
    assert found.tolist() == [-5.0, 2.0, 5.0]
