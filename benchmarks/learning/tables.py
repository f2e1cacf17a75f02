"""What the named tables train: tasks x algorithms, each with all its settings.

The settings of one algorithm are the same for all tasks of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One row of a table."""

    name: str
    trainer_type: str
    hyperparameters: Settings


@dataclass(frozen=True, slots=True)
class Table:
    """Tasks (Gymnasium ids) x algorithms, trained for `max_steps` each."""

    tasks: tuple[str, ...]
    algorithms: tuple[Algorithm, ...]
    max_steps: int
    num_seeds: int
    behavior: Settings  # everything beside trainer_type, hyperparameters and max_steps
    num_envs: int = 1
    num_areas: int = 4

    def settings(self, task: str, algorithm: Algorithm) -> dict[str, Any]:
        """Gives the settings file of one run."""
        return {
            "behaviors": {
                behavior_name(task): {
                    "trainer_type": algorithm.trainer_type,
                    "hyperparameters": dict(algorithm.hyperparameters),
                    "max_steps": self.max_steps,
                    "summary_freq": max(self.max_steps // 100, 100),
                    "checkpoint_interval": self.max_steps,
                    **self.behavior,
                }
            },
            "env_settings": {
                "env_path": f"gym:{task}",
                "num_envs": self.num_envs,
                "num_areas": self.num_areas,
            },
        }


def behavior_name(task: str) -> str:
    """Gives the name of a task's behaviour: its id without the version."""
    return task.rpartition("-v")[0]


NETWORK: Settings = {
    "normalize": True,
    "hidden_units": 64,
    "num_layers": 2,
    "activation": "tanh",
    "initialization": "orthogonal",
    "initial_log_std": 0.4,
}
MUJOCO: Settings = {
    "network_settings": NETWORK,
    "reward_signals": {"extrinsic": {"gamma": 0.99, "normalize": True, "clip": 10.0}},
    "time_horizon": 2048,
}
ROLLOUT: Settings = {"buffer_size": 2048, "learning_rate_schedule": "linear"}
EPOCHS: Settings = {
    **ROLLOUT,
    "batch_size": 64,
    "num_epoch": 10,
    "learning_rate": 3e-4,
    "beta": 0.0,
    "lambd": 0.95,
    "max_grad_norm": 0.5,
}
CLIPPED: Settings = {**EPOCHS, "epsilon_schedule": "constant"}
PENALISED: Settings = {**EPOCHS, "num_value_epoch": 10}
NATURAL: Settings = {
    **ROLLOUT,
    "batch_size": 64,
    "num_value_epoch": 10,
    "learning_rate": 1e-3,
    "lambd": 0.97,
}
FAMILY = (
    Algorithm("ppo", "ppo", CLIPPED),
    Algorithm("ppo_kl", "ppo_kl", PENALISED),
    Algorithm("trpo", "trpo", NATURAL),
    Algorithm("npg", "npg", NATURAL),
    Algorithm(
        "a2c",
        "a2c",
        {"buffer_size": 80, "lambd": 0.95, "beta": 0.0, "learning_rate": 7e-4},
    ),
    Algorithm(
        "reinforce",
        "reinforce",
        {**ROLLOUT, "batch_size": 64, "num_value_epoch": 10, "beta": 0.0, "learning_rate": 3e-3},
    ),
)
SURROGATES = (
    Algorithm("no clipping or penalty", "ppo_kl",
              {**PENALISED, "kl_mode": "fixed", "kl_coefficient": 0.0}),
    *(Algorithm(f"clipping, epsilon {epsilon}", "ppo", {**CLIPPED, "epsilon": epsilon})
      for epsilon in (0.1, 0.2, 0.3)),
    *(Algorithm(f"adaptive KL, target {target}", "ppo_kl", {**PENALISED, "kl_target": target})
      for target in (0.003, 0.01, 0.03)),
    *(Algorithm(f"fixed KL, coefficient {weight}", "ppo_kl",
                {**PENALISED, "kl_mode": "fixed", "kl_coefficient": weight})
      for weight in (0.3, 1.0, 3.0, 10.0)),
)  # fmt: skip
SEVEN_TASKS = (
    "HalfCheetah-v5",
    "Hopper-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
)

TABLES: Mapping[str, Table] = {
    "mujoco": Table(SEVEN_TASKS, FAMILY, 1_000_000, 5, MUJOCO),
    "surrogates": Table(SEVEN_TASKS, SURROGATES, 1_000_000, 3, MUJOCO),
    "small-budget": Table(
        ("InvertedPendulum-v5", "Reacher-v5", "Pendulum-v1"), FAMILY[:3], 100_000, 5, MUJOCO
    ),
    "discrete": Table(
        ("CartPole-v1", "Acrobot-v1", "LunarLander-v3", "MountainCar-v0"),
        FAMILY, 100_000, 5, MUJOCO,
    ),
    # A minute, to see that everything works; its figures mean nothing.
    "smoke": Table(("CartPole-v1",), (FAMILY[0], FAMILY[2]), 4_096, 2, MUJOCO),
}  # fmt: skip
