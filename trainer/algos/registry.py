"""Which algorithm a `trainer_type` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.algos.a2c import A2C
from trainer.algos.base import Algorithm
from trainer.algos.npg import NPG
from trainer.algos.ppo import PPO
from trainer.algos.ppo_kl import PPOKL
from trainer.algos.reinforce import Reinforce
from trainer.algos.trpo import TRPO
from trainer.config.settings import BehaviorSettings
from trainer.nn.actor_critic import ActorCritic

# Each takes the hyperparameters that trainer.config.hyperparameters has under the same name.
ALGORITHMS: Mapping[str, Callable[[ActorCritic, Any, Tensor, int, torch.Generator], Algorithm]] = {
    "ppo": PPO,
    "ppo_kl": PPOKL,
    "a2c": A2C,
    "reinforce": Reinforce,
    "trpo": TRPO,
    "npg": NPG,
}


def build_algorithm(
    settings: BehaviorSettings, policy: ActorCritic, gamma: Tensor, generator: torch.Generator
) -> Algorithm:
    """Gives what a behaviour learns with, fresh.

    Args:
        settings: of the behaviour.
        policy: on its final device.
        gamma: (R,), one discount per reward signal.
        generator: shuffles the minibatches; on the CPU.
    """
    algorithm = ALGORITHMS[settings.trainer_type]
    return algorithm(policy, settings.hyperparameters, gamma, settings.max_steps, generator)
