"""Trains PPO of skrl once and prints what it measured; runs in the peer's own venv.

    python benchmarks/peers/skrl_ppo.py --env Walker2d-v5 --updates 20

Observations are normalised (RunningStandardScaler), as on our side; one torch thread.
"""

from __future__ import annotations

import tempfile
from typing import Any

import gymnasium
import torch
from peer_clock import Clock, parse
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.resources.preprocessors.torch import RunningStandardScaler
from skrl.trainers.torch import SequentialTrainer
from skrl.utils.model_instantiators.torch import (
    categorical_model,
    deterministic_model,
    gaussian_model,
)


def main() -> None:
    """Trains and prints the figures."""
    options = parse()
    torch.set_num_threads(1)
    envs = gymnasium.make_vec(options.env, num_envs=options.envs, vectorization_mode="sync")
    env = wrap_env(envs, wrapper="gymnasium")
    per_update = options.envs * options.steps
    clock = Clock(per_update)

    class Clocked(PPO):  # type: ignore[misc]  # untyped here, it lives in the peer's venv
        def update(self, **named: Any) -> None:
            super().update(**named)
            clock.update_ended()

    spaces = {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "device": "cpu",
    }
    layers = [options.hidden] * options.layers
    network = [
        {"name": "net", "input": "OBSERVATIONS", "layers": layers, "activations": "tanh"},
    ]
    is_discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    policy = categorical_model if is_discrete else gaussian_model
    models = {
        "policy": policy(**spaces, network=network, output="ACTIONS"),
        "value": deterministic_model(**spaces, network=network, output="ONE"),
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = PPO_CFG(
            rollouts=options.steps,
            learning_epochs=options.epochs,
            mini_batches=per_update // options.batch,
            learning_rate=3e-4,
            grad_norm_clip=0.5,
            value_loss_scale=0.5,
            observation_preprocessor=RunningStandardScaler,
            observation_preprocessor_kwargs={"size": env.observation_space, "device": "cpu"},
        )
        settings.experiment.directory = folder
        settings.experiment.write_interval = 0
        settings.experiment.checkpoint_interval = 0
        agent = Clocked(
            cfg=settings,
            models=models,
            memory=RandomMemory(memory_size=options.steps, num_envs=options.envs, device="cpu"),
            **spaces,
        )
        timesteps = (1 + options.updates) * options.steps
        SequentialTrainer(
            env=env,
            agents=agent,
            cfg={"timesteps": timesteps, "headless": True, "disable_progressbar": True},
        ).train()
    clock.print_result()


if __name__ == "__main__":
    main()
