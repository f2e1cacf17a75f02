"""What the named tables train: tasks x algorithms, each with all its settings.

There are two kinds of table. One compares algorithms, the settings of each the same for all tasks.
The other trains the ready files in configs/gym, which are tuned for their task and say by
themselves which algorithm and how many steps; their numbers stand there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

Settings = Mapping[str, Any]
READY = Path(__file__).parents[2] / "configs" / "gym"
NUM_SUMMARIES = 100  # points of a curve


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One row of a table."""

    name: str
    trainer_type: str
    hyperparameters: Settings


class Table(Protocol):
    """Tasks (Gymnasium ids) x algorithms."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Gymnasium ids."""

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Rows."""

    @property
    def num_seeds(self) -> int:
        """Runs of each task and algorithm."""

    @property
    def wanted(self) -> Mapping[str, float]:
        """Mean return of the deterministic episodes that the median seed has to reach, by task."""

    def max_steps(self, task: str) -> int:
        """Gives the length of a run."""

    def settings(self, task: str, algorithm: Algorithm) -> dict[str, Any]:
        """Gives the settings file of one run."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Algorithms whose settings are the same for every task, all trained for as many steps."""

    tasks: tuple[str, ...]
    algorithms: tuple[Algorithm, ...]
    num_steps: int
    num_seeds: int
    behavior: Settings  # everything beside trainer_type, hyperparameters and max_steps
    num_envs: int = 1
    num_areas: int = 4
    wanted: Mapping[str, float] = field(default_factory=dict)

    def max_steps(self, task: str) -> int:
        """Gives the length of a run."""
        return self.num_steps

    def settings(self, task: str, algorithm: Algorithm) -> dict[str, Any]:
        """Gives the settings file of one run."""
        return {
            "behaviors": {
                behavior_name(task): {
                    "trainer_type": algorithm.trainer_type,
                    "hyperparameters": dict(algorithm.hyperparameters),
                    "max_steps": self.num_steps,
                    "summary_freq": max(self.num_steps // NUM_SUMMARIES, 100),
                    "checkpoint_interval": self.num_steps,
                    **self.behavior,
                }
            },
            "env_settings": {
                "env_path": f"gym:{task}",
                "num_envs": self.num_envs,
                "num_areas": self.num_areas,
            },
        }


@dataclass(frozen=True, slots=True)
class ReadyFiles:
    """The files of configs/gym, one per task, and what their authors want of them."""

    wanted: Mapping[str, float]
    num_seeds: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """Gymnasium ids."""
        return tuple(self.wanted)

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """One row: whatever each file says."""
        return (Algorithm("configs/gym", "as the file says", {}),)

    def max_steps(self, task: str) -> int:
        """Gives the length of a run."""
        (behavior,) = ready_file(task)["behaviors"].values()
        return int(behavior["max_steps"])

    def settings(self, task: str, algorithm: Algorithm) -> dict[str, Any]:
        """Gives the task's file; only summaries come at other moments, for the curve."""
        document = ready_file(task)
        (behavior,) = document["behaviors"].values()
        behavior["summary_freq"] = max(self.max_steps(task) // NUM_SUMMARIES, 100)
        return document


def ready_file(task: str) -> dict[str, Any]:
    """Reads a task's file in configs/gym."""
    document: dict[str, Any] = yaml.safe_load((READY / f"{task}.yaml").read_text())
    return document


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
    "mujoco": Comparison(SEVEN_TASKS, FAMILY, 1_000_000, 5, MUJOCO),
    "surrogates": Comparison(SEVEN_TASKS, SURROGATES, 1_000_000, 3, MUJOCO),
    "small-budget": ReadyFiles(
        {"InvertedPendulum-v5": 1000.0, "Reacher-v5": -8.6, "Pendulum-v1": -250.0}, 5
    ),
    # What Stable-Baselines3's Zoo publishes of the best of its PPO, TRPO and A2C.
    "discrete": ReadyFiles(
        {"CartPole-v1": 500.0, "Acrobot-v1": -73.5, "LunarLander-v3": 242.0,
         "MountainCar-v0": -107.0}, 5,
    ),
    # A minute, to see that everything works; its figures mean nothing.
    "smoke": Comparison(("CartPole-v1",), (FAMILY[0], FAMILY[2]), 4_096, 2, MUJOCO),
}  # fmt: skip
