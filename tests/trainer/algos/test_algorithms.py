"""What holds for every trainer_type."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from bandit import MAX_STEPS, new_algorithm, new_policy, play, seeded, some_obs, weights
from pytest import approx
from test_ppo_learning import MASK, ROWS, both, contexts, near_target, right_choice
from torch import Tensor

from trainer.algos.base import Algorithm
from trainer.algos.registry import ALGORITHMS
from trainer.config.hyperparameters import HYPERPARAMETERS
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.memory import Sequences
from trainer.rollout.rollout import Rollout

TRAINERS = list(HYPERPARAMETERS)
KINDS = [(2, ()), (0, (3, 2)), (2, (3,))]

# How each learns the bandits in 24 updates of 256 decisions.
QUICK: dict[str, dict[str, Any]] = {
    "ppo": {"learning_rate": 0.005, "num_epoch": 5},
    "ppo_kl": {"learning_rate": 0.01, "num_epoch": 8, "kl_target": 0.05},
    "a2c": {"learning_rate": 0.03, "normalize_advantages": True},
    "reinforce": {"learning_rate": 0.05, "num_value_epoch": 10},
    "trpo": {"max_kl": 0.1, "learning_rate": 0.01},
    "npg": {"max_kl": 0.05, "learning_rate": 0.01},
}


def rewarded(policy: ActorCritic, seed: int = 0, rows: int = 64) -> Rollout:
    """Segments of 4 decisions; the reward is the first action dimension."""
    rollout = play(policy, some_obs(rows, seed=seed), seeded(seed))
    actions = torch.cat([rollout.continuous, rollout.discrete.float()], dim=1)
    segments = rows // 4
    return dataclasses.replace(
        rollout,
        rewards=actions[:, :1].repeat(1, rollout.rewards.shape[1]),
        segment_starts=4 * torch.arange(segments + 1),
        bootstrap_obs=(some_obs(segments, seed=5),),
        terminated=torch.arange(segments) % 2 == 0,
    )


def with_sequences(policy: ActorCritic, rollout: Rollout) -> Rollout:
    memory = torch.randn((len(rollout.terminated), policy.memory_width), generator=seeded(7))
    return dataclasses.replace(
        rollout, sequences=Sequences(rollout.segment_starts, 0.1 * memory, 4)
    )


def test_every_trainer_type_has_an_algorithm() -> None:
    assert list(ALGORITHMS) == TRAINERS


@pytest.mark.parametrize("trainer_type", TRAINERS)
@pytest.mark.parametrize(("continuous", "branches"), KINDS)
def test_all_actions_and_several_signals_are_learnt_from(
    trainer_type: str, continuous: int, branches: tuple[int, ...]
) -> None:
    policy = new_policy(continuous, branches, num_signals=2, normalize=True)
    before = weights(policy)
    update = new_algorithm(policy, trainer_type).update(rewarded(policy), 0)
    for tag, value in update.statistics.items():
        assert value.shape == (), tag
        assert not value.requires_grad, tag
        assert value.isfinite(), tag
    assert {"Losses/Policy Loss", "Losses/Value Loss", "Policy/Entropy"} <= update.statistics.keys()
    assert update.mean_values is not None
    assert update.mean_values.shape == (2,)
    assert weights(policy).isfinite().all()
    assert (weights(policy) - before).abs().max() > 1e-5


@pytest.mark.parametrize("trainer_type", TRAINERS)
def test_update_changes_weights_only(trainer_type: str) -> None:
    policy = new_policy(2, (3,), normalize=True)
    rollout = rewarded(policy)
    kept = copy.deepcopy(rollout)
    buffers = {name: value.clone() for name, value in policy.named_buffers()}
    chance = torch.get_rng_state()
    new_algorithm(policy, trainer_type).update(rollout, 0)
    assert torch.equal(torch.get_rng_state(), chance)
    for name, value in policy.named_buffers():
        assert torch.equal(value, buffers[name]), name
    for field in dataclasses.fields(rollout):
        ours, before = getattr(rollout, field.name), getattr(kept, field.name)
        if isinstance(ours, Tensor):
            assert torch.equal(ours, before), field.name


def learner(trainer_type: str, has_memory: bool, **settings: Any) -> tuple[ActorCritic, Algorithm]:
    memory: Any = {"memory_size": 8, "sequence_length": 4} if has_memory else None
    policy = new_policy(2, (3,), normalize=True, memory=memory)
    return policy, new_algorithm(policy, trainer_type, **settings)


def next_rollout(policy: ActorCritic, seed: int) -> Rollout:
    if not policy.memory_size:
        return rewarded(policy, seed)
    with torch.no_grad():  # `play` has no memory; learning takes any actions
        plain = new_policy(2, (3,))
        return with_sequences(policy, rewarded(plain, seed))


@pytest.mark.parametrize("has_memory", [False, True], ids=["plain", "memory"])
@pytest.mark.parametrize(
    ("trainer_type", "settings"),
    [
        *((trainer_type, {}) for trainer_type in TRAINERS),
        ("ppo", {"critic_learning_rate": 1e-3}),
        ("a2c", {"critic_learning_rate": 1e-3, "optimizer": "adam"}),
    ],
)
def test_going_on_from_a_state_is_going_on(
    trainer_type: str, settings: dict[str, Any], has_memory: bool
) -> None:
    if "batch_size" in HYPERPARAMETERS[trainer_type].model_fields:
        settings = {**settings, "batch_size": 16}
    settings = {**settings, "max_grad_norm": 0.5}
    policy, algorithm = learner(trainer_type, has_memory, **settings)
    first = next_rollout(policy, seed=1)
    algorithm.update(first, 0)
    policy.update_normalizer(first.obs)
    saved = copy.deepcopy((policy.state_dict(), algorithm.state_dict()))

    other_policy, other = learner(trainer_type, has_memory, **settings)
    for seed in (7, 8):  # what was there must not matter, nor how often it has shuffled
        other.update(next_rollout(other_policy, seed=seed), 0)
    other_policy.load_state_dict(saved[0])
    other.load_state_dict(saved[1])

    for step in (2, 3):
        rollout = next_rollout(policy, seed=step)
        one, two = algorithm.update(rollout, step), other.update(rollout, step)
        for tag, value in one.statistics.items():
            assert torch.equal(value, two.statistics[tag]), tag
        assert torch.equal(weights(policy), weights(other_policy))


@pytest.mark.parametrize("trainer_type", TRAINERS)
def test_memory_is_learnt_through(trainer_type: str) -> None:
    """The actor's LSTM moves, and what comes of a sequence does not depend on other sequences."""
    policy, algorithm = learner(trainer_type, has_memory=True)
    assert policy.actor_memory is not None
    before = [parameter.detach().clone() for parameter in policy.actor_memory.parameters()]
    update = algorithm.update(next_rollout(policy, seed=1), 0)
    assert all(value.isfinite() for value in update.statistics.values())
    after = policy.actor_memory.parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("trainer_type", TRAINERS)
def test_schedule_ends_at_max_steps(trainer_type: str) -> None:
    policy = new_policy()
    algorithm = new_algorithm(
        policy, trainer_type, learning_rate_schedule="linear", learning_rate=1e-2
    )
    assert algorithm.rates(0)["Policy/Learning Rate"] == 1e-2
    assert algorithm.rates(MAX_STEPS // 2)["Policy/Learning Rate"] == approx(5e-3)
    assert algorithm.rates(MAX_STEPS)["Policy/Learning Rate"] == approx(1e-10)


@pytest.mark.parametrize("trainer_type", ["ppo_kl", "trpo", "npg"])
def test_divergence_is_measured_over_all_pieces(
    trainer_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rows_at_once in (1000, 5):
        policy = new_policy(2, (3,))
        monkeypatch.setattr(policy.actor_body, "rows_at_once", rows_at_once)
        statistics = new_algorithm(policy, trainer_type).update(rewarded(policy), 0).statistics
        found.append({tag: value.item() for tag, value in statistics.items()})
    assert found[0] == approx(found[1], rel=1e-2)


def train(
    trainer_type: str, policy: ActorCritic, reward: Any, mask: Tensor | None, **settings: Any
) -> float:
    """Gives the mean reward of the policy's best guesses after 24 updates."""
    algorithm = new_algorithm(
        policy, trainer_type, **{"buffer_size": ROWS, **QUICK[trainer_type], **settings}
    )
    generator = seeded(3)
    rows_mask = None if mask is None else mask.expand(ROWS, -1)
    for update in range(24):
        obs = contexts(update)
        rollout = play(policy, obs, generator, rows_mask)
        rollout = dataclasses.replace(rollout, rewards=reward(obs, rollout).unsqueeze(1))
        algorithm.update(rollout, 0)
    obs = contexts(99)
    best = policy.act(policy.inputs([obs]), rows_mask, generator, deterministic=True)
    found: float = reward(obs, best).mean().item()
    return found


@pytest.mark.parametrize("trainer_type", TRAINERS)
def test_continuous_bandit_is_learnt(trainer_type: str) -> None:
    # from about -1.25 with a mean of 0
    assert train(trainer_type, new_policy(2), near_target, None) > -0.1


@pytest.mark.parametrize("trainer_type", TRAINERS)
def test_hybrid_bandit_with_a_mask_is_learnt(trainer_type: str) -> None:
    assert train(trainer_type, new_policy(2, (3, 2)), both, MASK) > 1.85


@pytest.mark.parametrize(
    ("trainer_type", "settings"),
    [
        ("a2c", {"critic_target": "q"}),
        ("a2c", {"critic_target": "td_error"}),
        ("a2c", {"n_steps": 1, "critic_learning_rate": 0.1}),
        ("reinforce", {"baseline": "mean", "num_value_epoch": 3, "learning_rate": 0.02}),
        ("reinforce", {"baseline": "none", "num_value_epoch": 3, "learning_rate": 0.02}),
        ("reinforce", {"returns": "whole"}),
        ("ppo", {"target_kl": 0.03, "past_target_kl": "freeze_policy"}),
        ("ppo", {"critic_learning_rate": 0.01}),
        ("ppo_kl", {"kl_hinge": 50, "kl_stop": 4, "kl_low": 0.5, "kl_high": 2, "kl_alpha": 1.5}),
        ("ppo_kl", {"kl_mode": "fixed", "kl_target": 0.01}),
    ],
)
def test_every_option_still_learns(trainer_type: str, settings: dict[str, Any]) -> None:
    earned = train(trainer_type, new_policy(0, (3, 2)), right_choice, MASK, **settings)
    assert earned > 1.9  # chance gives 1


@pytest.mark.parametrize("trainer_type", TRAINERS)
def test_useless_rates_learn_nothing(trainer_type: str) -> None:
    """The thresholds can be missed."""
    useless = {"max_kl": 1e-12} if trainer_type in ("trpo", "npg") else {"learning_rate": 1e-9}
    assert train(trainer_type, new_policy(2), near_target, None, **useless) < -1.0


def test_frozen_policy_stays_while_its_critic_goes_on() -> None:
    moved = []
    for target_kl in (None, 1e-9):
        policy = new_policy()
        actor = [parameter.detach().clone() for parameter in policy.actor_parameters()]
        critic = [parameter.detach().clone() for parameter in policy.critic_parameters()]
        settings = {} if target_kl is None else {
            "target_kl": target_kl, "past_target_kl": "freeze_policy"
        }  # fmt: skip
        rollout = rewarded(policy)
        # The policy that acted was another one, further away than the bound.
        rollout = dataclasses.replace(rollout, log_probs=rollout.log_probs - 0.1)
        new_algorithm(policy, "ppo", num_epoch=5, **settings).update(rollout, 0)
        moved.append(
            [
                max((new - old).abs().max().item() for new, old in zip(parts, before, strict=True))
                for parts, before in (
                    (policy.actor_parameters(), actor),
                    (policy.critic_parameters(), critic),
                )
            ]
        )
    assert moved[0][0] > 1e-4
    assert moved[1][0] == 0.0
    assert moved[1][1] > 1e-4
