from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from bandit import new_algorithm, new_policy, play, seeded, some_obs
from pytest import approx
from torch import Tensor

from trainer.algos.ppo_kl import PPOKL, adapted, penalised_surrogate, value_loss
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.rollout import Rollout

ROWS = 64


def learner(policy: ActorCritic, **settings: Any) -> PPOKL:
    algorithm = new_algorithm(policy, "ppo_kl", **settings)
    assert isinstance(algorithm, PPOKL)
    return algorithm


def rewarded(policy: ActorCritic) -> Rollout:
    rollout = play(policy, some_obs(ROWS), seeded())
    return dataclasses.replace(rollout, rewards=rollout.continuous[:, :1])


def weights(parameters: list[torch.nn.Parameter]) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


@pytest.mark.parametrize(
    ("coefficient", "hinge", "expected"),
    [
        # -(2 * 3 + 0.5 * 4) / 2 = -4; mean divergence 0.05
        (0.0, 0.0, -4.0),
        (10.0, 0.0, -3.5),  # + 10 * 0.05
        (10.0, 50.0, -3.455),  # + 50 * (0.05 - 2 * 0.01)^2
    ],
)
def test_penalty_and_hinge_are_added_to_the_surrogate(
    coefficient: float, hinge: float, expected: float
) -> None:
    ratio, advantages = torch.tensor([2.0, 0.5]), torch.tensor([3.0, 4.0])
    kl = torch.tensor([0.02, 0.08])
    loss = penalised_surrogate(ratio, advantages, kl, coefficient, 0.01, hinge)
    assert loss.item() == approx(expected)


def test_hinge_has_no_say_within_twice_the_target() -> None:
    kl = torch.tensor([0.01, 0.03], requires_grad=True)
    ones = torch.ones(2)
    penalised_surrogate(ones, ones, kl, 0.0, 0.01, 50.0).backward()  # type: ignore[no-untyped-call]
    assert kl.grad is not None
    assert kl.grad.eq(0).all()


def test_value_loss_is_the_mean_square() -> None:
    # (1 + 9) / 2
    assert value_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [5.0]])).item() == 5.0


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (0.0149, 3.0),  # the paper's rule at target 0.01: nothing between 0.01 / 1.5 and 0.015
        (0.0151, 6.0),
        (0.0067, 3.0),
        (0.0066, 1.5),
        (0.0, 1.5),
    ],
)
def test_coefficient_follows_the_rule_of_the_paper(kl: float, expected: float) -> None:
    assert adapted(3.0, kl, 0.01, 2 / 3, 1.5, 2.0) == expected


def test_coefficient_follows_the_rule_of_dppo() -> None:
    assert adapted(3.0, 0.021, 0.01, 0.5, 2.0, 1.5) == 4.5
    assert adapted(3.0, 0.019, 0.01, 0.5, 2.0, 1.5) == 3.0
    assert adapted(3.0, 0.004, 0.01, 0.5, 2.0, 1.5) == 2.0


def test_coefficient_always_finds_back() -> None:
    coefficient = 1.0
    for _ in range(2000):
        coefficient = adapted(coefficient, 0.0, 0.01, 2 / 3, 1.5, 2.0)
    assert coefficient == 1e-6
    for _ in range(2000):
        coefficient = adapted(coefficient, 1.0, 0.01, 2 / 3, 1.5, 2.0)
    assert coefficient == 1e6


@pytest.mark.parametrize(
    ("mode", "target", "expected"),
    [("adaptive", 1e-6, 2.0), ("adaptive", 100.0, 0.5), ("fixed", 0.01, 1.0)],
)
def test_update_moves_the_coefficient(mode: str, target: float, expected: float) -> None:
    policy = new_policy()
    algorithm = learner(policy, kl_mode=mode, kl_target=target, learning_rate=0.01)
    found = algorithm.update(rewarded(policy), 0).statistics
    assert found["Policy/KL Coefficient"].item() == algorithm.coefficient == expected


def test_heavier_penalty_keeps_the_policy_nearer() -> None:
    found = []
    for coefficient in (0.0, 10.0, 1000.0):
        policy = new_policy()
        algorithm = learner(
            policy, kl_mode="fixed", kl_coefficient=coefficient, num_epoch=30, learning_rate=0.01
        )
        found.append(algorithm.update(rewarded(policy), 0).statistics["Policy/KL"].item())
    assert found[0] > 2 * found[1] > 4 * found[2] > 0


def test_hinge_keeps_the_policy_nearer() -> None:
    found = []
    for hinge in (0.0, 1000.0):
        policy = new_policy()
        algorithm = learner(
            policy, kl_mode="fixed", kl_coefficient=0, num_epoch=30, learning_rate=0.01,
            kl_hinge=hinge, **({"kl_target": 0.02} if hinge else {}),
        )  # fmt: skip
        found.append(algorithm.update(rewarded(policy), 0).statistics["Policy/KL"].item())
    assert found[0] > 0.1
    assert found[1] < 0.06


def test_divergence_is_that_of_the_distributions_not_of_the_sample() -> None:
    policy = new_policy(2)
    rollout = rewarded(policy)
    with torch.no_grad():
        old = policy.distribution(policy.inputs(rollout.obs), None)
        assert old.mean is not None
        assert old.log_std is not None
        before: Any = torch.distributions.Normal(old.mean.clone(), old.log_std.exp().clone())
    found = learner(policy, num_epoch=5, learning_rate=0.01).update(rollout, 0).statistics
    with torch.no_grad():
        new = policy.distribution(policy.inputs(rollout.obs), None)
        assert new.mean is not None
        assert new.log_std is not None
        after: Any = torch.distributions.Normal(new.mean, new.log_std.exp())
    expected = torch.distributions.kl_divergence(before, after).sum(dim=1).mean()
    assert found["Policy/KL"].item() == approx(expected.item(), rel=1e-3)


def test_passes_end_beyond_the_stop() -> None:
    def epochs(**settings: Any) -> float:
        policy = new_policy()
        algorithm = learner(
            policy, num_epoch=20, learning_rate=0.05, kl_coefficient=1e-3, **settings
        )
        return algorithm.update(rewarded(policy), 0).statistics["Policy/Epochs"].item()

    assert epochs() == 20
    assert 1 < epochs(kl_stop=4) < 20


def test_actor_and_critic_have_sub_iterations_of_their_own() -> None:
    moved = []
    for num_epoch, num_value_epoch in ((3, 1), (3, 5), (1, 5)):
        policy = new_policy()
        learner(policy, num_epoch=num_epoch, num_value_epoch=num_value_epoch).update(
            rewarded(policy), 0
        )
        moved.append((weights(policy.actor_parameters()), weights(policy.critic_parameters())))
    assert torch.equal(moved[0][0], moved[1][0])
    assert not torch.equal(moved[0][1], moved[1][1])
    assert not torch.equal(moved[1][0], moved[2][0])
    torch.testing.assert_close(moved[1][1], moved[2][1], rtol=1e-3, atol=1e-5)


def test_coefficient_outlives_the_process() -> None:
    policy = new_policy()
    algorithm = learner(policy, kl_target=1e-6)
    algorithm.update(rewarded(policy), 0)
    other = learner(new_policy())
    other.load_state_dict(algorithm.state_dict())
    assert other.coefficient == algorithm.coefficient == 2.0
    fixed = learner(new_policy(), kl_mode="fixed", kl_coefficient=7.0)
    fixed.load_state_dict(algorithm.state_dict())  # what the user says now
    assert fixed.coefficient == 7.0
