from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from bandit import new_algorithm, new_policy, play, seeded, some_obs
from pytest import approx
from torch import Tensor

from trainer.algos import npg, trpo
from trainer.algos.npg import NPG
from trainer.algos.trpo import TRPO
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.rollout import Rollout

ROWS = 64
KINDS = [(2, ()), (0, (3, 2)), (1, (3,))]


def rewarded(policy: ActorCritic, seed: int = 0) -> Rollout:
    rollout = play(policy, some_obs(ROWS, seed=seed), seeded(seed))
    actions = torch.cat([rollout.continuous, rollout.discrete.float()], dim=1)
    return dataclasses.replace(rollout, rewards=actions[:, :1] * rollout.obs[0][:, :1])


def actor_weights(policy: ActorCritic) -> Tensor:
    return torch.cat([part.detach().flatten() for part in policy.actor_parameters()])


def learner(policy: ActorCritic, trainer_type: str, **settings: Any) -> Any:
    return new_algorithm(policy, trainer_type, **settings)


def minibatch(policy: ActorCritic, rollout: Rollout, advantages: Tensor) -> Minibatch:
    zeros = torch.zeros(ROWS, 1)
    return Minibatch(
        inputs=policy.inputs(rollout.obs),
        continuous=rollout.continuous,
        discrete=rollout.discrete,
        old_log_probs=rollout.log_probs.sum(dim=1),
        old_values=zeros,
        advantages=advantages,
        returns=zeros,
    ).with_distribution_of(policy)


@pytest.mark.parametrize("surrogate", [trpo.surrogate, npg.surrogate])
def test_surrogate_is_the_mean_of_ratio_times_advantage(surrogate: Any) -> None:
    log_ratio = torch.tensor([2.0, 0.5]).log()
    # (2 * 3 + 0.5 * -4) / 2
    found = surrogate(log_ratio - 1.0, torch.tensor([-1.0, -1.0]), torch.tensor([3.0, -4.0]))
    assert found.item() == approx(2.0)


@pytest.mark.parametrize(("continuous", "branches"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_trpo_improves_within_the_bound(
    continuous: int, branches: tuple[int, ...], seed: int
) -> None:
    policy = new_policy(continuous, branches)
    rollout = rewarded(policy, seed)
    found = learner(policy, "trpo", max_kl=0.02).update(rollout, 0).statistics
    assert 0 < found["Policy/KL"].item() <= 0.02
    assert found["Losses/Policy Loss"].item() > 0
    assert 0 < found["Policy/Accepted Step"].item() <= 1


def test_line_search_takes_the_first_step_that_keeps_to_the_bound() -> None:
    policy = new_policy(2)
    algorithm: TRPO = learner(policy, "trpo", max_kl=0.01, backtrack_ratio=0.5, num_backtracks=30)
    whole = minibatch(policy, rewarded(policy), torch.linspace(-1, 1, ROWS))
    gradient = algorithm._gradient(whole)
    old = actor_weights(policy)
    improvement, share = algorithm._line_search(whole, 1e3 * gradient)
    assert 0 < share < 1e-2
    assert improvement.item() > 0
    assert whole.divergence_of(policy).item() <= 0.01
    torch.testing.assert_close(actor_weights(policy), old + share * 1e3 * gradient)
    with torch.no_grad():  # twice as long was tried before
        algorithm.actor.vector.copy_(old + 2 * share * 1e3 * gradient)
    assert whole.divergence_of(policy).item() > 0.01


def test_line_search_puts_the_old_parameters_back_when_nothing_improves() -> None:
    policy = new_policy(2)
    algorithm: TRPO = learner(policy, "trpo", max_kl=1.0)
    whole = minibatch(policy, rewarded(policy), torch.linspace(-1, 1, ROWS))
    old = actor_weights(policy)
    improvement, share = algorithm._line_search(whole, -1e-2 * algorithm._gradient(whole))
    assert (improvement.item(), share) == (0.0, 0.0)
    assert torch.equal(actor_weights(policy), old)


def test_line_search_puts_the_old_parameters_back_when_every_step_is_too_long() -> None:
    policy = new_policy(2)
    algorithm: TRPO = learner(policy, "trpo", max_kl=1e-9, num_backtracks=3)
    whole = minibatch(policy, rewarded(policy), torch.linspace(-1, 1, ROWS))
    old = actor_weights(policy)
    _, share = algorithm._line_search(whole, algorithm._gradient(whole))
    assert share == 0.0
    assert torch.equal(actor_weights(policy), old)


def test_failed_search_leaves_the_policy_while_the_critic_learns() -> None:
    policy = new_policy(2)
    rollout = rewarded(policy)
    # A policy of other log-probabilities than those that acted: the surrogate overflows.
    rollout = dataclasses.replace(rollout, log_probs=rollout.log_probs - 100)
    old, old_value = actor_weights(policy), policy.value_head.weight.detach().clone()
    found = learner(policy, "trpo").update(rollout, 0).statistics
    assert found["Policy/Accepted Step"].item() == 0.0
    assert torch.equal(actor_weights(policy), old)
    assert not torch.equal(policy.value_head.weight, old_value)


@pytest.mark.parametrize("trainer_type", ["trpo", "npg"])
def test_without_advantages_the_policy_stays(trainer_type: str) -> None:
    policy = new_policy(2, (3,))
    with torch.no_grad():
        policy.value_head.weight.zero_()
    old = actor_weights(policy)
    rollout = play(policy, some_obs(ROWS), seeded())  # value 0, reward 0
    learner(policy, trainer_type).update(rollout, 0)
    assert torch.equal(actor_weights(policy), old)


@pytest.mark.parametrize(("continuous", "branches"), KINDS)
def test_npg_moves_by_the_divergence_of_the_quadratic_model(
    continuous: int, branches: tuple[int, ...]
) -> None:
    policy = new_policy(continuous, branches)
    algorithm: NPG = learner(policy, "npg", max_kl=1e-5, cg_damping=1e-3, num_cg_iterations=20)
    found = algorithm.update(rewarded(policy), 0).statistics
    assert found["Policy/KL"].item() == approx(1e-5, rel=0.1)
