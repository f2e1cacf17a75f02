"""Policies, and episodes of one decision each, where every answer is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.algos.base import Algorithm
from trainer.algos.ppo import PPO
from trainer.algos.registry import build_algorithm
from trainer.config.hyperparameters import HYPERPARAMETERS
from trainer.config.settings import BehaviorSettings, NetworkSettings, PPOHyperparameters
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.rollout import Rollout

MAX_STEPS = 1000


def new_policy(
    continuous: int = 1,
    branches: tuple[int, ...] = (),
    *,
    num_inputs: int = 2,
    num_signals: int = 1,
    shared_critic: bool = False,
    **network: Any,
) -> ActorCritic:
    torch.set_num_threads(1)  # as a run does for small networks; two on a busy machine take minutes
    torch.manual_seed(0)
    sensor = ObservationSpec((num_inputs,), (DimensionProperty.NONE,), Kind.DEFAULT, "")
    spec = BehaviorSpec([sensor], ActionSpec(continuous, branches))
    settings = NetworkSettings(**{"hidden_units": 16, "num_layers": 1, **network})
    return ActorCritic("Bandit", spec, settings, num_signals, shared_critic)


def new_algorithm(policy: ActorCritic, trainer_type: str, **hyperparameters: Any) -> Algorithm:
    """An algorithm with constant rates that has not learnt yet."""
    given = {"learning_rate_schedule": "constant", "buffer_size": 64, **hyperparameters}
    model = HYPERPARAMETERS[trainer_type]
    if "batch_size" in model.model_fields and given.get("baseline", "value") == "value":
        given.setdefault("batch_size", 64)
    if "beta" in model.model_fields:
        given.setdefault("beta", 0.0)
    settings = BehaviorSettings.model_validate(
        {"trainer_type": trainer_type, "hyperparameters": given, "max_steps": MAX_STEPS}
    )
    gamma = torch.full((policy.value_head.out_features,), 0.99)
    return build_algorithm(settings, policy, gamma, torch.Generator().manual_seed(1))


def new_ppo(policy: ActorCritic, **hyperparameters: Any) -> PPO:
    settings = PPOHyperparameters(
        **{
            "learning_rate_schedule": "constant",
            "batch_size": 64,
            "buffer_size": 64,
            "beta": 0.0,
            **hyperparameters,
        }
    )
    signals = policy.value_head.out_features
    gamma = torch.full((signals,), 0.99)
    return PPO(policy, settings, gamma, MAX_STEPS, torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_obs(rows: int, num_inputs: int = 2, seed: int = 0) -> Tensor:
    return torch.randn((rows, num_inputs), generator=seeded(seed))


def play(
    policy: ActorCritic, obs: Tensor, generator: torch.Generator, mask: Tensor | None = None
) -> Rollout:
    """Lets the policy act once in each row; each row is an episode, with a reward of 0 so far."""
    with torch.no_grad():
        action = policy.act(policy.inputs([obs]), mask, generator)
    rows = len(obs)
    return Rollout(
        obs=(obs,),
        action_mask=mask,
        continuous=action.continuous,
        discrete=action.discrete,
        log_probs=action.log_probs,
        rewards=torch.zeros(rows, policy.value_head.out_features),
        segment_starts=torch.arange(rows + 1),
        bootstrap_obs=(obs,),
        terminated=torch.ones(rows, dtype=torch.bool),
    )


def weights(policy: ActorCritic) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])
