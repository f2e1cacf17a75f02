"""One decision per episode, and the best one is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bandit import new_policy, new_ppo, play, seeded
from torch import Tensor

from trainer.nn.actor_critic import Action, ActorCritic
from trainer.rollout.rollout import Rollout

Reward = Callable[[Tensor, Rollout | Action], Tensor]
ROWS = 256
UPDATES = 24
MASK = torch.tensor([[True, True, False, True, True]])  # branches of 3 and 2


def contexts(seed: int) -> Tensor:
    """(B, 2): a sign to be read, and a constant."""
    signs = torch.randint(0, 2, (ROWS, 1), generator=seeded(seed)) * 2.0 - 1.0
    return torch.cat([signs, torch.ones(ROWS, 1)], dim=1)


def train(
    policy: ActorCritic, reward: Reward, mask: Tensor | None = None, **settings: Any
) -> float:
    """Gives the mean reward of the policy's best guesses after a few updates."""
    ppo = new_ppo(
        policy,
        **{"learning_rate": 0.005, "num_epoch": 5, "buffer_size": ROWS, "beta": 1e-3, **settings},
    )
    generator = seeded(3)
    rows_mask = None if mask is None else mask.expand(ROWS, -1)
    for update in range(UPDATES):
        obs = contexts(update)
        rollout = play(policy, obs, generator, rows_mask)
        rollout = dataclasses.replace(rollout, rewards=reward(obs, rollout).unsqueeze(1))
        ppo.update(rollout, 0)
    obs = contexts(99)
    best = policy.act(policy.inputs([obs]), rows_mask, generator, deterministic=True)
    return reward(obs, best).mean().item()


def near_target(obs: Tensor, chosen: Rollout | Action) -> Tensor:
    """Best at (sign, -0.5); 0 there, -1 at a distance of 1."""
    target = torch.stack([obs[:, 0], torch.full((ROWS,), -0.5)], dim=1)
    return -((chosen.continuous - target) ** 2).sum(dim=1)


def right_choice(obs: Tensor, chosen: Rollout | Action) -> Tensor:
    """First branch: 2 would be best but is forbidden, then 0 or 1 by the sign; second: always 1."""
    first = chosen.discrete[:, 0]
    wanted = (obs[:, 0] > 0).long()
    points = (first == wanted).float() + 10.0 * (first == 2).float()
    return points + (chosen.discrete[:, 1] == 1).float()


def both(obs: Tensor, chosen: Rollout | Action) -> Tensor:
    return near_target(obs, chosen) + right_choice(obs, chosen)


@pytest.mark.parametrize("ratio", ["joint", "per_dimension"])
def test_continuous_bandit_is_solved(ratio: str) -> None:
    # from about -1.25 with a mean of 0
    assert train(new_policy(2), near_target, ratio=ratio) > -0.05


@pytest.mark.parametrize("ratio", ["joint", "per_dimension"])
def test_discrete_bandit_with_a_mask_is_solved(ratio: str) -> None:
    # chance gives 1; the forbidden choice would give 10 more
    assert train(new_policy(0, (3, 2)), right_choice, MASK, ratio=ratio) == 2.0


@pytest.mark.parametrize("ratio", ["joint", "per_dimension"])
def test_hybrid_bandit_is_solved(ratio: str) -> None:
    assert train(new_policy(2, (3, 2)), both, MASK, ratio=ratio) > 1.9


@pytest.mark.parametrize(
    "settings",
    [
        {"recompute_advantages": True},
        {"normalize_advantages": False},
        {"value_clip": 0.2},
        {"max_grad_norm": 0.5},
        {"target_kl": 0.05},
        {"shared_critic": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_option_still_learns(settings: dict[str, Any]) -> None:
    options = dict(settings)
    policy = new_policy(2, shared_critic=options.pop("shared_critic", False))
    assert train(policy, near_target, **options) > -0.1


def test_wrong_sign_is_not_learnt() -> None:
    """The threshold can be missed: with rewards turned round the policy runs away."""
    policy = new_policy(2)
    assert train(policy, lambda obs, chosen: -near_target(obs, chosen)) > 1.0
