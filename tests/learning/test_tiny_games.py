"""The PPO cases of ML-Agents' own learning tests without images or variable length.

Rule of those tests: once training has ended, the mean of the last 5 episodes is above 0.9. The best
possible is 1.02 with steps of 0.2, and 1.05 with steps of 0.8. ML-Agents passes 6 of 6 seeds in
each of these cases; so every one of 10 seeds has to pass here. Figures: docs/learning.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from trainer_process import checkpoint, ppo_train, tiny_build, tiny_yaml

THRESHOLD = 0.9
WIDE: Mapping[str, Any] = {
    "max_steps": 10000,
    "hyperparameters__batch_size": 64,
    "hyperparameters__buffer_size": 640,
}
RECALL: Mapping[str, Any] = {
    "max_steps": 6000,
    "hyperparameters__learning_rate": 1e-3,
    "hyperparameters__batch_size": 64,
    "hyperparameters__buffer_size": 128,
    "network_settings__memory": {"memory_size": 16},
}
CASES: list[tuple[str, str, Mapping[str, Any]]] = [
    ("0,1", "0.2", {}),
    ("1,0", "0.2", {}),
    ("0,2", "0.8", WIDE),
    ("2,0", "0.8", WIDE),
    ("0,1", "0.2", RECALL),
    ("1,0", "0.2", RECALL),
]


def mean_of_last_episodes(
    folder: Path, actions: str, step_size: str, changes: Mapping[str, Any], seed: int
) -> float:
    """Trains through the command line; gives the mean return of the last 5 episodes."""
    memory = ["--memory"] if "network_settings__memory" in changes else []
    build = tiny_build(folder, "--actions", actions, "--step-size", step_size, *memory)
    settings = tiny_yaml(folder, **changes)
    ppo_train(settings.name, "--env", build.name, "--seed", seed, "--run-id", "run", cwd=folder)
    returns = checkpoint(folder / "results" / "run", "1D")["recent_returns"][-5:]
    assert len(returns) == 5
    return float(sum(returns)) / 5


def test_tiny_game_is_learned(tmp_path: Path) -> None:
    # Fewer steps than ML-Agents' 3000: this one is in the ordinary suite.
    assert mean_of_last_episodes(tmp_path, "0,1", "0.2", {"max_steps": 1500}, seed=1) > THRESHOLD


def test_tiny_game_is_learned_beside_collection(tmp_path: Path) -> None:
    # Lags of 0 to 2 updates cost a few of them: 2000 steps instead of 1500.
    changes = {"max_steps": 2000, "threaded": True}
    assert mean_of_last_episodes(tmp_path, "0,1", "0.2", changes, seed=1) > THRESHOLD


def test_tiny_game_is_not_learned_with_a_useless_learning_rate(tmp_path: Path) -> None:
    changes = {"max_steps": 500, "hyperparameters__learning_rate": 1e-9}
    assert mean_of_last_episodes(tmp_path, "0,1", "0.2", changes, seed=1) < THRESHOLD


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1337, 1347))
@pytest.mark.parametrize(("actions", "step_size", "changes"), CASES)
def test_case_of_ml_agents_is_learned(
    tmp_path: Path, actions: str, step_size: str, changes: Mapping[str, Any], seed: int
) -> None:
    earned = mean_of_last_episodes(tmp_path, actions, step_size, changes, seed)
    print(f"{actions} seed {seed}: {earned:.3f}")
    assert earned > THRESHOLD
