from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pytest import approx
from test_actor_critic import policy_of, seeded, some_inputs

from trainer.config.settings import NetworkSettings
from trainer.nn.std_head import StdHead

STATE_TYPES = ("state_log_std", "state_softplus")


def std_of(head: StdHead, *features: float) -> list[float]:
    with torch.no_grad():
        std = head(torch.tensor([features])).exp()
    return [float(value) for value in std[0]]


@pytest.mark.parametrize("std_type", STATE_TYPES)
@pytest.mark.parametrize("initialization", ["kaiming", "orthogonal"])
def test_features_of_zero_have_the_first_deviation(std_type: Any, initialization: Any) -> None:
    network = NetworkSettings(
        std_type=std_type, initialization=initialization, initial_log_std=math.log(0.3)
    )
    assert std_of(StdHead(2, 3, network, 0.2), 0.0, 0.0) == approx([0.3, 0.3, 0.3])


def test_softplus_has_a_floor_and_grows_like_what_the_layer_says() -> None:
    head = StdHead(1, 1, NetworkSettings(std_type="state_softplus", min_std=0.1), 0.2)
    with torch.no_grad():
        head.weight.fill_(1.0)
        head.bias.zero_()
    assert std_of(head, 0.0) == approx([0.1 + 0.693147])  # ln 2
    assert std_of(head, 1.0) == approx([0.1 + 1.313262])  # ln(1 + e)
    assert std_of(head, 50.0) == approx([50.1])
    assert std_of(head, -500.0) == approx([0.1])


def test_logarithm_is_cut_at_both_ends() -> None:
    head = StdHead(1, 1, NetworkSettings(std_type="state_log_std"), 0.2)
    with torch.no_grad():
        head.weight.fill_(1.0)
        head.bias.zero_()
    assert std_of(head, -1.0) == approx([0.3678794])
    assert std_of(head, 7.0) == approx([7.389056])  # e^2
    assert std_of(head, -99.0) == approx([2.0611536e-9])  # e^-20


@pytest.mark.parametrize("std_type", STATE_TYPES)
def test_rows_are_judged_by_their_own_deviation(std_type: Any) -> None:
    policy = policy_of(3, std_type=std_type)
    inputs = some_inputs(50)
    with torch.no_grad():
        distribution = policy.distribution(inputs, None)
        action = policy.act(inputs, None, seeded())
        evaluation = policy.evaluate(inputs, None, action.continuous, action.discrete)
    assert distribution.mean is not None
    assert distribution.log_std is not None
    std = distribution.log_std.exp()
    assert std.shape == (50, 3)
    assert (std.std(dim=0) > 0.01).all()
    reference: Any = torch.distributions.Normal(distribution.mean, std)
    expected = reference.log_prob(action.continuous)
    torch.testing.assert_close(action.log_probs, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(evaluation.log_probs, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(evaluation.entropies, reference.entropy())


def test_fixed_deviation_is_saved_and_never_learnt() -> None:
    policy = policy_of(2, std_type="fixed", initial_log_std=-1.2)
    names = [name for name, _ in policy.named_parameters()]
    assert "log_std" not in names
    assert policy.state_dict()["log_std"].tolist() == approx([-1.2, -1.2])
    inputs = some_inputs(40_000)
    drawn = policy.act(inputs, None, seeded()).continuous
    mean = policy.act(inputs, None, seeded(), deterministic=True).continuous
    # 0.301 is 0.05 of the range of 6; 5 standard errors of a deviation: 5 / sqrt(2 n) of it
    assert (drawn - mean).std(dim=0).tolist() == approx([0.3012, 0.3012], rel=0.018)
    evaluation = policy.evaluate(inputs, None, drawn, torch.zeros(40_000, 0, dtype=torch.int64))
    assert not evaluation.entropies.requires_grad
    assert evaluation.log_probs.requires_grad


def test_discrete_policy_has_no_deviation() -> None:
    policy = policy_of(0, (3,), std_type="state_softplus")
    assert policy.std_head is None
