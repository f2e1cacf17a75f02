"""One decision per episode; what is best stands in an image, in a crowd, or is a goal.

PPO is to find it through every kind of network. The learning rate is ML-Agents' own for images: ten
times as much, and a constant image drives the policy to one action before it has learnt to look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from bandit import new_ppo, seeded
from sensor_specs import behavior, entities, image, vector
from torch import Tensor

from envs.spec import ObservationSpec
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.rollout import Rollout

ROWS = 128
UPDATES = 40  # five seeds of each case reached every row right
Show = Callable[[Tensor, torch.Generator], list[Tensor]]


def as_bytes(signs: Tensor, size: int = 20) -> Tensor:
    """An image that is light for +1 and dark for -1; (B,) -> (B, 1, size, size) uint8."""
    grey = (128 + 100 * signs).to(torch.uint8)
    return grey.reshape(-1, 1, 1, 1).expand(-1, 1, size, size).contiguous()


def in_a_crowd(signs: Tensor, generator: torch.Generator) -> Tensor:
    """The sign stands with the one entity that is marked, among 0 to 3 others; (B, 4, 2)."""
    rows = len(signs)
    crowd = torch.stack([signs[torch.randperm(rows, generator=generator)]] * 4, dim=1)
    crowd = torch.stack([crowd, torch.full_like(crowd, -1.0)], dim=2)
    crowd[torch.rand((rows, 4), generator=generator) < 0.4] = 0.0
    place = torch.randint(0, 4, (rows,), generator=generator)
    crowd[torch.arange(rows), place] = torch.stack([signs, torch.ones(rows)], dim=1)
    return crowd


def shown_by_camera(signs: Tensor, generator: torch.Generator) -> list[Tensor]:
    return [as_bytes(signs)]


def shown_by_crowd(signs: Tensor, generator: torch.Generator) -> list[Tensor]:
    return [in_a_crowd(signs, generator)]


def shown_by_goal(signs: Tensor, generator: torch.Generator) -> list[Tensor]:
    """The goal says whether the other observation is right, or the opposite of it."""
    said = torch.randint(0, 2, signs.shape, generator=generator) * 2.0 - 1.0
    return [(signs * said).unsqueeze(1), said.unsqueeze(1)]


CASES: dict[str, tuple[Show, Sequence[ObservationSpec]]] = {
    "camera": (shown_by_camera, [image(1, 20, 20)]),
    "crowd": (shown_by_crowd, [entities(4, 2)]),
    "goal": (shown_by_goal, [vector(1), vector(1, "goal", is_goal=True)]),
}


def learnt(case: str, *, shared_critic: bool = False, hides: bool = False) -> float:
    """Share of rows in which the policy's best guess has the right sign."""
    show, sensors = CASES[case]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = behavior(*sensors, continuous=0, branches=(2,))
    settings = NetworkSettings(hidden_units=16, num_layers=1)
    policy = ActorCritic("Bandit", spec, settings, 1, shared_critic)
    ppo = new_ppo(policy, learning_rate=3e-4, num_epoch=4, beta=1e-3)
    generator = seeded(1)

    def situation() -> tuple[Tensor, tuple[Tensor, ...]]:
        signs = torch.randint(0, 2, (ROWS,), generator=generator) * 2.0 - 1.0
        seen = signs[torch.randperm(ROWS, generator=generator)] if hides else signs
        return signs, tuple(show(seen, generator))

    for _ in range(UPDATES):
        signs, obs = situation()
        action = policy.act(policy.inputs(obs), None, generator)
        right = (action.discrete[:, :1] * 2 - 1) == signs.unsqueeze(1)
        ppo.update(
            Rollout(
                obs=obs,
                action_mask=None,
                continuous=action.continuous,
                discrete=action.discrete,
                log_probs=action.log_probs,
                rewards=right.float(),
                segment_starts=torch.arange(ROWS + 1),
                bootstrap_obs=obs,
                terminated=torch.ones(ROWS, dtype=torch.bool),
            ),
            0,
        )
    signs, obs = situation()
    best = policy.act(policy.inputs(obs), None, generator, deterministic=True)
    return ((best.discrete[:, 0] * 2 - 1) == signs).float().mean().item()


@pytest.mark.parametrize("shared_critic", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("case", CASES)
def test_what_a_sensor_shows_is_learnt(case: str, shared_critic: bool) -> None:
    assert learnt(case, shared_critic=shared_critic) > 0.95


def test_what_is_not_shown_is_not_learnt() -> None:
    assert learnt("camera", hides=True) < 0.7
