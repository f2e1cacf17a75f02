"""The PPO cases of ML-Agents' own learning tests with images, entities and goals.

Rule of those tests: once training has ended, the mean of the last 5 episodes is above a threshold.
ML-Agents itself misses it now and then (5 of 6 seeds with one image, continuous actions and a
shared critic; 6 of 6 in the other cases that were measured), so a case with images and continuous
actions may fail on one seed of ten, and no other. Where ML-Agents reads a lone variable-length goal
like any other observation without a word, `goal_conditioning_type: none` says so here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from trainer_process import checkpoint, ppo_train, tiny_build, tiny_yaml


@dataclass(frozen=True)
class Case:
    """What the game shows, what is changed in the settings, and how well it has to go."""

    game: str
    changes: Mapping[str, Any]
    threshold: float = 0.9
    may_fail: int = 0  # of ten seeds


SLOWLY: Mapping[str, Any] = {"hyperparameters__learning_rate": 3e-4}
SHARED: Mapping[str, Any] = {**SLOWLY, "hyperparameters__shared_critic": True}
NOT_STEERED: Mapping[str, Any] = {**SLOWLY, "network_settings__goal_conditioning_type": "none"}


def advanced(encoder: str) -> Mapping[str, Any]:
    return {
        **SLOWLY,
        "max_steps": 900,
        "network_settings__hidden_units": 16,
        "network_settings__vis_encode_type": encoder,
    }


CASES = {
    # Ours: a PNG has no negative numbers, so one of the two goals is a black image, which moves
    # nothing but biases: 8 of 10.
    "1 PNG image": Case("0,1 --vectors 0 --images 1 --image-format png", SLOWLY, may_fail=2),
    # Measured for ML-Agents too, though not among its tests.
    "2 entities, discrete": Case("0,1 --vectors 0 --entities 2", SLOWLY),
}
KINDS = {"discrete": "0,1", "continuous": "1,0"}

for (kind, actions), num_images, is_shared in product(KINDS.items(), (1, 2), (False, True)):
    name = f"{num_images} images, {kind}{', shared' if is_shared else ''}"
    CASES[name] = Case(
        f"{actions} --vectors 0 --images {num_images}",
        SHARED if is_shared else SLOWLY,
        may_fail=1 if kind == "continuous" else 0,
    )

for encoder, num_images in product(("resnet", "nature_cnn", "match3"), (1, 2)):
    shape = "3,5,5" if encoder == "match3" else "3,36,36"
    game = f"0,1 --step-size 0.5 --vectors 0 --images {num_images} --image-shape {shape}"
    CASES[f"{encoder}, {num_images} images"] = Case(game, advanced(encoder), 0.5)

for (kind, actions), images, vectors, crowds in product(KINDS.items(), (0, 1), (0, 1), (1, 2)):
    CASES[f"{crowds} entities, {vectors} vectors, {images} images, first is goal, {kind}"] = Case(
        f"{actions} --vectors {vectors} --images {images} --entities {crowds} --goal 0",
        SLOWLY if images or vectors else NOT_STEERED,
        may_fail=1 if images and kind == "continuous" else 0,  # as with images alone
    )


def mean_of_last_episodes(folder: Path, case: Case, seed: int) -> float:
    """Trains through the command line; gives the mean return of the last 5 episodes."""
    build = tiny_build(folder, "--actions", *case.game.split())
    settings = tiny_yaml(folder, **case.changes)
    with settings.open("a") as file:
        # Several threads that share their cores with other tests wait for each other for minutes.
        file.write("torch_settings: {num_threads: 1}\n")
    ppo_train(settings.name, "--env", build.name, "--seed", seed, "--run-id", "run", cwd=folder)
    returns = checkpoint(folder / "results" / "run", "1D")["recent_returns"][-5:]
    assert len(returns) == 5
    return float(sum(returns)) / 5


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_case_of_ml_agents_is_learned(tmp_path: Path, name: str) -> None:
    earned = []
    for seed in range(1337, 1347):
        folder = tmp_path / str(seed)
        folder.mkdir()
        earned.append(mean_of_last_episodes(folder, CASES[name], seed))
    print(f"{name}: {[round(mean, 3) for mean in earned]}")
    assert sum(mean <= CASES[name].threshold for mean in earned) <= CASES[name].may_fail
