from __future__ import annotations

import pytest
import torch
from pytest import approx
from torch import Tensor

from trainer.algos.ppo import clipped_surrogate, value_loss


def gradient(loss: Tensor, of: Tensor) -> list[float]:
    (found,) = torch.autograd.grad(loss, of)
    return [float(number) for number in found.flatten()]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.0),
        (0.9, -2.0, 1.8, 2.0),
        # a good action is already likelier by more than 0.2: nothing to gain
        (1.5, 2.0, -2.4, 0.0),
        # a bad one is already rarer: nothing to gain
        (0.5, -2.0, 1.6, 0.0),
        # a good action has become rare, a bad one likely: the way back is always open
        (0.5, 2.0, -1.0, -2.0),
        (1.5, -2.0, 3.0, 2.0),
    ],
)
def test_surrogate_is_clipped_only_where_the_policy_would_gain(
    ratio: float, advantage: float, loss: float, slope: float
) -> None:
    ratios = torch.tensor([ratio], requires_grad=True)
    found = clipped_surrogate(ratios, torch.tensor([advantage]), epsilon=0.2)
    assert found.item() == approx(loss, rel=1e-6)
    assert gradient(found, ratios) == approx([slope])


def test_surrogate_is_the_mean_over_rows() -> None:
    ratios = torch.tensor([1.0, 2.0, 0.1])
    # -(3 + 1.2 * 1 + 0.8 * -5) / 3
    loss = clipped_surrogate(ratios, torch.tensor([3.0, 1.0, -5.0]), epsilon=0.2)
    assert loss.item() == approx(-0.2 / 3, rel=1e-5)


def test_each_dimension_is_clipped_by_itself() -> None:
    ratios = torch.tensor([[1.5, 1.0], [0.5, 0.9]], requires_grad=True)
    advantages = torch.tensor([[1.0], [-1.0]])
    loss = clipped_surrogate(ratios, advantages, epsilon=0.2)
    # -(1.2 + 1.0 - 0.8 - 0.9) / 4
    assert loss.item() == approx(-0.125)
    assert gradient(loss, ratios) == approx([0.0, -0.25, 0.0, 0.25])


def test_value_loss_is_the_mean_square_over_rows_and_signals() -> None:
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    returns = torch.tensor([[1.0, 12.0], [5.0, 20.0]])
    # (0 + 4 + 9 + 0) / 4
    assert value_loss(values, torch.full((2, 2), 99.0), returns, None).item() == 3.25


@pytest.mark.parametrize(
    ("value", "old_value", "loss", "slope"),
    [
        # the return is 5, the limit 1
        (2.0, 2.5, 9.0, -6.0),  # within the limit: (2 - 5)^2
        (2.0, 0.0, 16.0, 0.0),  # 2 away from the old value: (0 + 1 - 5)^2, no gain in going on
        (7.0, 5.5, 4.0, 4.0),  # too far on the other side: (7 - 5)^2, the way back is open
        (2.0, 5.0, 9.0, -6.0),  # moved away from the return: (2 - 5)^2, the way back is open
    ],
)
def test_clipped_value_gains_nothing_far_from_its_old_value(
    value: float, old_value: float, loss: float, slope: float
) -> None:
    values = torch.tensor([[value]], requires_grad=True)
    found = value_loss(values, torch.tensor([[old_value]]), torch.tensor([[5.0]]), 1.0)
    assert found.item() == approx(loss)
    assert gradient(found, values) == approx([slope])


def test_old_value_is_not_the_return() -> None:
    # With old value = return, as in ML-Agents, the limit would never bind.
    values, returns = torch.tensor([[3.0]]), torch.tensor([[5.0]])
    assert value_loss(values, returns, returns, 0.1).item() == 4.0
    # old value 0: (0.1 - 5)^2
    assert value_loss(values, torch.zeros(1, 1), returns, 0.1).item() == approx(24.01)
