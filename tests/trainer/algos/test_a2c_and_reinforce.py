from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from bandit import new_algorithm, new_policy, play, seeded, some_obs, weights
from pytest import approx

from trainer.algos import a2c, reinforce
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.rollout import Rollout

SIZE = 4  # decisions of a segment
GAMMA = 0.99  # of `new_algorithm`


def chain(policy: ActorCritic, terminated: list[bool]) -> Rollout:
    """Segments of `SIZE` decisions; the rewards are 1, 2, 3, ..."""
    rows = SIZE * len(terminated)
    rollout = play(policy, some_obs(rows), seeded())
    return dataclasses.replace(
        rollout,
        rewards=torch.arange(1.0, rows + 1).unsqueeze(1),
        segment_starts=SIZE * torch.arange(len(terminated) + 1),
        bootstrap_obs=(some_obs(len(terminated), seed=5),),
        terminated=torch.tensor(terminated),
    )


def values_of(policy: ActorCritic, rollout: Rollout) -> tuple[list[float], list[float]]:
    with torch.no_grad():
        values = policy.values(policy.inputs(rollout.obs))[:, 0]
        following = policy.values(policy.inputs(rollout.bootstrap_obs))[:, 0]
    ends = following * ~rollout.terminated
    return values.tolist(), ends.tolist()


def looking_ahead(
    rewards: list[float], values: list[float], ends: list[float], num_steps: int
) -> list[float]:
    """n-step returns, one row at a time."""
    found = []
    for row in range(len(rewards)):
        segment = row // SIZE
        last = min(row + num_steps, (segment + 1) * SIZE)
        total = sum(GAMMA ** (k - row) * rewards[k] for k in range(row, last))
        follows = ends[segment] if last == (segment + 1) * SIZE else values[last]
        found.append(total + GAMMA ** (last - row) * follows)
    return found


def loss_of(rollout: Rollout, found_weights: list[float]) -> float:
    log_probs = rollout.log_probs.sum(dim=1)
    return abs((log_probs * torch.tensor(found_weights)).mean().item())


def statistics(algorithm: Any, rollout: Rollout) -> dict[str, float]:
    update = algorithm.update(rollout, 0)
    return {tag: value.item() for tag, value in update.statistics.items()}


@pytest.mark.parametrize("loss", [a2c.policy_gradient_loss, reinforce.policy_gradient_loss])
def test_policy_loss_is_the_weighed_log_probability(loss: Any) -> None:
    log_probs = torch.tensor([-1.0, -2.0], requires_grad=True)
    found = loss(log_probs, torch.tensor([3.0, -4.0]))
    assert found.item() == approx(-2.5)  # -(-3 + 8) / 2
    (slope,) = torch.autograd.grad(found, log_probs)
    assert slope.tolist() == [-1.5, 2.0]


@pytest.mark.parametrize("loss", [a2c.value_loss, reinforce.value_loss])
def test_value_loss_is_the_mean_square(loss: Any) -> None:
    # (1 + 9) / 2
    assert loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [5.0]])).item() == 5.0


@pytest.mark.parametrize(
    ("settings", "num_steps", "has_baseline"),
    [
        ({}, 100, True),  # A3C's own: to the end of the segment
        ({"n_steps": 2}, 2, True),
        ({"n_steps": 3, "critic_target": "q"}, 3, False),
        ({"critic_target": "q"}, 100, False),
        ({"critic_target": "td_error"}, 1, True),
        ({"lambd": 0.0}, 1, True),
    ],
)
def test_a2c_weighs_with_what_critic_target_says(
    settings: dict[str, Any], num_steps: int, has_baseline: bool
) -> None:
    policy = new_policy()
    rollout = chain(policy, [True, False])
    values, ends = values_of(policy, rollout)
    returns = looking_ahead(rollout.rewards[:, 0].tolist(), values, ends, num_steps)
    errors = [wanted - value for wanted, value in zip(returns, values, strict=True)]
    found = statistics(new_algorithm(policy, "a2c", **settings), rollout)
    expected = loss_of(rollout, errors if has_baseline else returns)
    assert found["Losses/Policy Loss"] == approx(expected, rel=1e-4)
    assert found["Losses/Value Loss"] == approx(
        sum(error**2 for error in errors) / len(errors), rel=1e-4
    )


@pytest.mark.parametrize(("optimizer", "factor"), [("rmsprop", 10.0), ("adam", 1.0)])
def test_a2c_takes_one_step_of_its_optimizer(optimizer: str, factor: float) -> None:
    policy = new_policy()
    before = weights(policy)
    algorithm = new_algorithm(
        policy, "a2c", optimizer=optimizer, learning_rate=1e-3, max_grad_norm=None,
        optimizer_epsilon=1e-12,
    )  # fmt: skip
    algorithm.update(chain(policy, [True, False]), 0)
    # RMSprop's first mean of squares is 0.01 of the square; Adam's is corrected
    largest = (weights(policy) - before).abs().max().item()
    assert largest == approx(1e-3 * factor, rel=1e-3)


@pytest.mark.parametrize("trainer_type", ["a2c", "reinforce"])
def test_pieces_that_fit_into_memory_sum_up_to_the_whole_gradient(
    trainer_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rows_at_once in (1000, 3):
        policy = new_policy(2, (3,))
        rollout = chain(policy, [True, False, False])
        monkeypatch.setattr(policy.actor_body, "rows_at_once", rows_at_once)
        settings = {"optimizer": "adam"} if trainer_type == "a2c" else {"batch_size": 12}
        algorithm = new_algorithm(policy, trainer_type, beta=0.01, **settings)
        found.append((statistics(algorithm, rollout), weights(policy)))
    assert found[0][0] == approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


def to_the_end(rewards: list[float], ends: list[float]) -> list[float]:
    return looking_ahead(rewards, [0.0] * len(rewards), ends, 100)


@pytest.mark.parametrize("returns", ["reward_to_go", "whole"])
@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_reinforce_compares_returns_with_its_baseline(returns: str, baseline: str) -> None:
    policy = new_policy()
    rollout = chain(policy, [True, False])
    values, ends = values_of(policy, rollout)
    if baseline != "value":
        values, ends = [0.0] * len(values), [0.0] * len(ends)  # what was cut ends there
    sums = to_the_end(rollout.rewards[:, 0].tolist(), ends)
    if returns == "whole":
        sums = [sums[row // SIZE * SIZE] for row in range(len(sums))]
    found_weights = torch.tensor(sums) - torch.tensor(values)
    if baseline == "mean":
        found_weights -= found_weights.mean()
    algorithm = new_algorithm(policy, "reinforce", returns=returns, baseline=baseline)
    update = algorithm.update(rollout, 0)
    assert update.statistics["Losses/Policy Loss"].item() == approx(
        loss_of(rollout, found_weights.tolist()), rel=1e-4
    )
    assert (update.mean_values is None) == (baseline != "value")


@pytest.mark.parametrize(("baseline", "moves"), [("none", False), ("mean", False), ("value", True)])
def test_reinforce_moves_the_critic_only_if_it_is_the_baseline(baseline: str, moves: bool) -> None:
    policy = new_policy()
    before = [parameter.detach().clone() for parameter in policy.critic_parameters()]
    new_algorithm(policy, "reinforce", baseline=baseline).update(chain(policy, [True]), 0)
    after = policy.critic_parameters()
    same = all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert same is not moves


def test_rates_of_actor_and_critic_are_their_own() -> None:
    for trainer_type in ("ppo", "a2c", "ppo_kl", "reinforce"):
        policy = new_policy()
        rollout = dataclasses.replace(
            play(policy, some_obs(64), seeded()), rewards=torch.ones(64, 1)
        )
        before = [
            [parameter.detach().clone() for parameter in parameters]
            for parameters in (policy.actor_parameters(), policy.critic_parameters())
        ]
        epochs = {"ppo": ["num_epoch"], "ppo_kl": ["num_epoch", "num_value_epoch"]}
        settings: dict[str, Any] = {
            **dict.fromkeys(epochs.get(trainer_type, []), 1),
            **({"optimizer": "adam"} if trainer_type == "a2c" else {}),
            **({"num_value_epoch": 1} if trainer_type == "reinforce" else {}),
        }
        algorithm = new_algorithm(
            policy, trainer_type, learning_rate=1e-3, critic_learning_rate=1e-2, **settings
        )
        assert algorithm.rates(0)["Policy/Critic Learning Rate"] == 1e-2
        algorithm.update(rollout, 0)
        for parameters, old, rate in zip(
            (policy.actor_parameters(), policy.critic_parameters()), before, (1e-3, 1e-2),
            strict=True,
        ):  # fmt: skip
            largest = max(
                (new.detach() - was).abs().max().item()
                for new, was in zip(parameters, old, strict=True)
            )
            # Adam's first step is the learning rate in every weight that has a gradient.
            assert largest == approx(rate, rel=0.01), trainer_type
