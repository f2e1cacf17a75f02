"""Every trainer_type learns the tiny game of ML-Agents' own learning tests, in this process.

The best possible return is 1.02; going the wrong way costs as much as the right one pays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.ratio import Game, play
from envs.testing.tiny import TinyEnv
from trainer.behavior import Behavior
from trainer.config.settings import BehaviorSettings

GAME = Game(1, 0, 0.2, 64, 256, 6000)
ROLLOUT: dict[str, Any] = {"buffer_size": 256, "learning_rate_schedule": "constant"}
MINIBATCHES: dict[str, Any] = {**ROLLOUT, "batch_size": 64}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "ppo": {**MINIBATCHES, "learning_rate": 5e-3},
    "ppo_kl": {**MINIBATCHES, "learning_rate": 5e-3, "kl_target": 0.03},
    "a2c": {**ROLLOUT, "buffer_size": 64, "learning_rate": 5e-3},
    "reinforce": {**MINIBATCHES, "learning_rate": 0.02, "num_value_epoch": 5},
    "trpo": {**MINIBATCHES, "learning_rate": 5e-3, "max_kl": 0.03},
    "npg": {**MINIBATCHES, "learning_rate": 5e-3, "max_kl": 0.03},
}


def earned(folder: Path, trainer_type: str, **changes: Any) -> float:
    """Trains once, in a few seconds; gives the mean return of the last 10 episodes."""
    torch.set_num_threads(1)
    settings = {
        "trainer_type": trainer_type,
        "hyperparameters": {**HYPERPARAMETERS[trainer_type], **changes},
        "network_settings": {"num_layers": 1, "hidden_units": 32},
        "max_steps": GAME.max_steps,
    }
    behavior = Behavior(
        "1D",
        GAME.spec,
        BehaviorSettings.model_validate(settings),
        folder,
        seed=1,
        device=torch.device("cpu"),
        is_training=True,
        state=None,
        starts_at_zero=True,
    )
    env = TinyEnv(GAME.num_continuous, GAME.num_branches, GAME.step_size, "1")
    returns, _ = play(behavior, env)
    behavior.metrics.close()
    return float(np.mean(returns[-10:]))


@pytest.mark.parametrize("trainer_type", HYPERPARAMETERS)
def test_tiny_game_is_learned(trainer_type: str, tmp_path: Path) -> None:
    assert earned(tmp_path, trainer_type) > 0.9


@pytest.mark.parametrize(
    ("trainer_type", "useless"),
    [("a2c", {"learning_rate": 1e-9}), ("reinforce", {"learning_rate": 1e-9}),
     ("trpo", {"max_kl": 1e-12}), ("ppo_kl", {"learning_rate": 1e-9})],
)  # fmt: skip
def test_tiny_game_is_not_learned_with_useless_steps(
    trainer_type: str, useless: dict[str, Any], tmp_path: Path
) -> None:
    assert earned(tmp_path, trainer_type, **useless) < 0.9
