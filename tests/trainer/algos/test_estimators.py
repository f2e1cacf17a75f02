from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from pytest import approx
from torch import Tensor
from torch_results import LargestResults

from trainer.algos.estimators import (
    approximate_kl,
    discounted_suffix_sums,
    explained_variance,
    gae,
    monte_carlo_returns,
    n_step_returns,
    normalized,
    whole_returns,
)


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32).unsqueeze(1)


def ends_of(lengths: list[int]) -> Tensor:
    ends = torch.zeros(sum(lengths), dtype=torch.bool)
    ends[torch.tensor(lengths).cumsum(0) - 1] = True
    return ends


def test_lambda_zero_is_the_one_step_error() -> None:
    advantages, returns = gae(
        rewards=column(1, 0, 2),
        values=column(0.5, 0.25, 4),
        next_values=column(0.25, 4, 8),
        segment_end=ends_of([3]),
        gamma=torch.tensor([0.5]),
        lambd=0.0,
    )
    # 1 + 0.5*0.25 - 0.5; 0 + 0.5*4 - 0.25; 2 + 0.5*8 - 4
    assert advantages[:, 0].tolist() == [0.625, 1.75, 2.0]
    assert returns[:, 0].tolist() == [1.125, 2.0, 6.0]


def test_lambda_one_is_the_discounted_return_minus_the_value() -> None:
    advantages, returns = gae(
        rewards=column(1, 0, 2),
        values=column(0.5, 0.25, 4),
        next_values=column(0.25, 4, 8),
        segment_end=ends_of([3]),
        gamma=torch.tensor([0.5]),
        lambd=1.0,
    )
    # from the end: 2 + 0.5*8 = 6; 0 + 0.5*6 = 3; 1 + 0.5*3 = 2.5
    assert returns[:, 0].tolist() == [2.5, 3.0, 6.0]
    assert advantages[:, 0].tolist() == [2.0, 2.75, 2.0]


def test_lambda_between_is_the_hand_computed_mixture() -> None:
    advantages, _ = gae(
        rewards=column(1, 0, 2),
        values=column(0.5, 0.25, 4),
        next_values=column(0.25, 4, 8),
        segment_end=ends_of([3]),
        gamma=torch.tensor([0.5]),
        lambd=0.5,
    )
    # the errors 0.625, 1.75, 2.0 of lambda zero, each passed on with 0.5 * 0.5:
    # 2; 1.75 + 0.25*2 = 2.25; 0.625 + 0.25*2.25
    assert advantages[:, 0].tolist() == [1.1875, 2.25, 2.0]


@pytest.mark.parametrize("length", [1, 2, 7, 64, 1000])
def test_constant_reward_without_a_critic_sums_a_geometric_series(length: int) -> None:
    gamma, lambd = 0.99, 0.95
    zeros = torch.zeros(length, 1)
    advantages, returns = gae(
        zeros + 1, zeros, zeros, ends_of([length]), torch.tensor([gamma]), lambd
    )
    ratio = gamma * lambd
    left = np.arange(length, 0, -1)
    assert advantages[:, 0].numpy() == approx((1 - ratio**left) / (1 - ratio), rel=1e-5)
    assert torch.equal(advantages, returns)


@pytest.mark.parametrize("lambd", [0.0, 0.5, 1.0])
def test_critic_that_is_right_leaves_no_advantage(lambd: float) -> None:
    # reward 1 for ever at gamma 0.75 is worth 1 / (1 - 0.75) everywhere
    fours = torch.full((9, 1), 4.0)
    ends = ends_of([4, 5])
    advantages, returns = gae(fours / 4, fours, fours, ends, torch.tensor([0.75]), lambd)
    assert advantages.eq(0.0).all()
    assert returns.eq(4.0).all()


def test_each_signal_has_a_discount_of_its_own() -> None:
    _, returns = gae(
        rewards=torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]),
        values=torch.zeros(3, 2),
        next_values=torch.zeros(3, 2),
        segment_end=ends_of([3]),
        gamma=torch.tensor([0.0, 0.5]),
        lambd=1.0,
    )
    # 1 + 0.5 + 0.25 with gamma 0.5
    assert returns.tolist() == [[1.0, 1.75], [1.0, 1.5], [1.0, 1.0]]


def test_nothing_leaks_from_one_segment_into_the_one_before() -> None:
    lengths = [3, 1, 1, 4]
    rewards = torch.ones(9, 1)
    zeros = torch.zeros(9, 1)
    gamma = torch.tensor([1.0])
    before, _ = gae(rewards, zeros, zeros, ends_of(lengths), gamma, 1.0)
    assert before[:, 0].tolist() == [3, 2, 1, 1, 1, 4, 3, 2, 1]
    rewards[3] = 1e6
    after, _ = gae(rewards, zeros, zeros, ends_of(lengths), gamma, 1.0)
    changed = (before != after)[:, 0].tolist()
    assert changed == [False] * 3 + [True] + [False] * 5


def sequential_gae(
    rewards: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    bootstrap: float,
    gamma: float,
    lambd: float,
) -> list[float]:
    """Advantages of one segment of one signal, backwards, one step at a time, in float64."""
    following, advantage = bootstrap, 0.0
    backwards = []
    for reward, value in zip(rewards[::-1], values[::-1], strict=True):
        advantage = reward + gamma * following - value + gamma * lambd * advantage
        following = value
        backwards.append(float(advantage))
    return backwards[::-1]


@pytest.mark.parametrize(
    "lengths",
    [[1], [2], [1, 1, 1], [1, 3000, 1, 17], [64] * 40, [4096], [1, 2, 3, 4, 5, 6, 7, 8] * 30],
)
@pytest.mark.parametrize("lambd", [0.0, 0.95, 1.0])
def test_all_segments_at_once_equal_one_step_at_a_time(lengths: list[int], lambd: float) -> None:
    generator = torch.Generator().manual_seed(len(lengths))
    rows, gamma = sum(lengths), torch.tensor([0.99, 0.5, 0.999])
    rewards = torch.randn((rows, 3), generator=generator)
    values = 5 * torch.randn((rows, 3), generator=generator)
    bootstrap = 5 * torch.randn((len(lengths), 3), generator=generator)
    ends = ends_of(lengths)
    next_values = torch.cat([values[1:], values[:1]])
    next_values[ends] = bootstrap
    advantages, returns = gae(rewards, values, next_values, ends, gamma, lambd)

    starts = np.cumsum([0, *lengths]).tolist()
    for signal in range(3):
        expected = [
            advantage
            for segment, (start, end) in enumerate(pairwise(starts))
            for advantage in sequential_gae(
                rewards[start:end, signal].double().numpy(),
                values[start:end, signal].double().numpy(),
                bootstrap[segment, signal].item(),
                gamma[signal].item(),
                lambd,
            )
        ]
        # float32 sums of up to 4096 terms of size 5
        assert advantages[:, signal].numpy() == approx(np.array(expected), rel=1e-4, abs=5e-4)
    torch.testing.assert_close(returns - advantages, values, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 1023, 1024, 1025])
def test_suffix_sums_without_decay_count_the_rows_left(rows: int) -> None:
    sums = discounted_suffix_sums(torch.ones(rows, 1), torch.ones(rows, 1))
    assert sums[:, 0].tolist() == list(range(rows, 0, -1))


def test_suffix_sums_leave_their_arguments_alone() -> None:
    terms, decays = torch.ones(5, 2), torch.full((5, 2), 0.5)
    discounted_suffix_sums(terms, decays)
    assert terms.eq(1.0).all()
    assert decays.eq(0.5).all()


def test_kl_of_unchanged_probabilities_is_zero_and_of_others_positive() -> None:
    assert approximate_kl(torch.zeros(5)).item() == 0.0
    random = torch.randn(200, generator=torch.Generator().manual_seed(0))
    for scale in (1e-7, 1e-5, 1e-3, 1.0):
        for one in scale * random:
            assert approximate_kl(one.reshape(1)) >= 0.0


def test_kl_of_hardly_changed_probabilities_is_half_their_square() -> None:
    # e^x - 1 - x = x^2 / 2 for small x; 1 + 1e-4 has three digits of x left in float32
    assert approximate_kl(torch.tensor([1e-4])).item() == approx(5e-9, rel=0.01)


def test_kl_estimate_finds_the_divergence_of_two_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0))
    new = torch.distributions.Normal(torch.tensor(0.3), torch.tensor(1.2))
    drawn = torch.randn(400_000, generator=generator)  # from the old one, as in training
    log_ratios = new.log_prob(drawn) - old.log_prob(drawn)  # type: ignore[no-untyped-call]
    # ln 1.2 + (1 + 0.09) / (2 * 1.44) - 1/2
    assert approximate_kl(log_ratios).item() == approx(0.060794, abs=0.001)


def test_explained_variance_of_perfect_constant_and_harmful_critics() -> None:
    returns = column(1, 2, 3, 6)
    assert explained_variance(returns, returns).item() == 1.0
    assert explained_variance(returns + 100, returns).item() == approx(1.0, abs=1e-4)
    assert explained_variance(torch.zeros(4, 1), returns).item() == 0.0
    # twice the spread in the wrong direction: 1 - (3 s)^2 / s^2
    assert explained_variance(-2 * returns, returns).item() == approx(-8.0)
    assert explained_variance(returns, torch.ones(4, 1)).isfinite()


def test_normalized_has_mean_zero_and_population_deviation_one() -> None:
    # mean 3, deviation sqrt((4 + 0 + 4) / 3)
    expected = [-1.224745, 0.0, 1.224745]
    assert normalized(torch.tensor([1.0, 3.0, 5.0])).tolist() == approx(expected, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 64])
def test_normalized_equal_advantages_are_zero(rows: int) -> None:
    assert normalized(torch.full((rows,), 0.25)).eq(0.0).all()


def test_n_steps_sum_rewards_and_then_ask_the_critic() -> None:
    returns = [
        n_step_returns(
            rewards=column(1, 0, 2, 7),
            next_values=column(0.25, 4, 8, 16),
            segment_end=ends_of([3, 1]),
            gamma=torch.tensor([0.5]),
            num_steps=steps,
        )[:, 0].tolist()
        for steps in (1, 2, 3, 100)
    ]
    assert returns[0] == [1.125, 2.0, 6.0, 15.0]  # 1 + 0.25/2; 0 + 4/2; 2 + 8/2; 7 + 16/2
    assert returns[1] == [2.0, 3.0, 6.0, 15.0]  # 1 + 0 + 4/4; 0 + 2/2 + 8/4; no further
    assert returns[2] == returns[3] == [2.5, 3.0, 6.0, 15.0]  # 1 + 0 + 2/4 + 8/8


@pytest.mark.parametrize("lengths", [[1], [5, 1, 7], [1, 1, 1], [20]])
def test_many_steps_are_generalised_advantages_with_lambda_one(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = sum(lengths)
    rewards, values, next_values = torch.randn((3, rows, 2), generator=generator)
    ends, gamma = ends_of(lengths), torch.tensor([0.9, 0.5])
    next_values[:-1] = torch.where(ends[:-1, None], next_values[:-1], values[1:])
    _, expected = gae(rewards, values, next_values, ends, gamma, 1.0)
    found = n_step_returns(rewards, next_values, ends, gamma, rows)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_monte_carlo_returns_sum_to_the_end_and_take_no_notice_of_values_on_the_way() -> None:
    to_go = monte_carlo_returns(
        rewards=column(1, 0, 2, 7),
        next_values=column(99, 99, 8, 0),
        segment_end=ends_of([3, 1]),
        gamma=torch.tensor([0.5]),
    )
    assert to_go[:, 0].tolist() == [2.5, 3.0, 6.0, 7.0]  # 1 + 0 + 2/4 + 8/8; ...; nothing follows
    assert whole_returns(to_go, ends_of([3, 1]))[:, 0].tolist() == [2.5, 2.5, 2.5, 7.0]


def test_operations_grow_with_the_longest_segment_and_not_with_the_rows() -> None:
    def num_operations(rows: int, length: int) -> int:
        decays = torch.ones(rows, 1)
        decays[length - 1 :: length] = 0.0
        with LargestResults() as results:
            sums = discounted_suffix_sums(torch.ones(rows, 1), decays)
        # A row's sum is how many rows its segment still has.
        assert sums[:length, 0].tolist() == list(range(length, 0, -1))
        assert torch.equal(sums.reshape(-1, length), sums[:length, 0].expand(rows // length, -1))
        return int(results.num_operations)

    assert num_operations(rows=64 * 1000, length=16) == num_operations(rows=64, length=16)
    assert num_operations(64 * 10, 64) > num_operations(64 * 10, 16)
