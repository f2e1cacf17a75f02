"""One training run of a table: trains unless it has been trained, evaluates, gives the score."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.learning.tables import Algorithm, Table, behavior_name

ROOT = Path(__file__).parents[2]
TRAINER = [sys.executable, "-m", "trainer.cli.main"]
REWARD_TAG = "Environment/Cumulative Reward"
EVALUATION_EPISODES = 20
FIRST_SEED = 100


@dataclass(frozen=True, slots=True)
class Score:
    """What one seed came to."""

    task: str
    algorithm: str
    seed: int
    training_return: float | None  # mean of the last 100 training episodes, None: none ended
    evaluation_return: float  # mean of 20 deterministic episodes
    steps: list[int]
    returns: list[float]  # mean training return in each summary


def run_id(task: str, algorithm: Algorithm, seed: int) -> str:
    """Names a run so that its folder tells what it is."""
    words = re.sub(r"[^\w.]+", "-", algorithm.name)
    return f"{task}-{words}-{seed}"


def one_run(results: Path, table: Table, task: str, algorithm: Algorithm, seed: int) -> Score:
    """Trains and evaluates; a run that was interrupted goes on, one that is scored is not repeated.

    Raises:
        subprocess.CalledProcessError: training or evaluation failed; the log lies beside the run.
    """
    name = run_id(task, algorithm, seed)
    scored, config = results / f"{name}.json", results / f"{name}.yaml"
    settings = yaml.safe_dump(table.settings(task, algorithm), sort_keys=False)
    same_settings = config.is_file() and config.read_text() == settings
    if scored.is_file() and same_settings:
        return Score(**json.loads(scored.read_text()))
    results.mkdir(parents=True, exist_ok=True)
    scored.unlink(missing_ok=True)
    config.write_text(settings)
    behavior = behavior_name(task)
    goes_on = same_settings and (results / name / behavior / "checkpoint.pt").is_file()
    where = ["--run-id", name, "--results-dir", str(results)]
    start = "--resume" if goes_on else "--force"
    _command(
        results / f"{name}.log", [str(config), *where, "--seed", str(FIRST_SEED * seed), start]
    )
    said = _command(
        results / f"{name}.eval.log",
        ["eval", *where, "--seed", "12345", "--episodes", str(EVALUATION_EPISODES)],
    )
    found = re.search(r"mean return (\S+), std", said)
    assert found is not None, said
    checkpoint = torch.load(results / name / behavior / "checkpoint.pt", weights_only=True)
    recent = checkpoint["state"]["recent_returns"]
    steps, returns = _curve(results / name / behavior)
    score = Score(
        task,
        algorithm.name,
        seed,
        float(np.mean(recent)) if recent else None,
        float(found.group(1)),
        [int(step) for step in steps],
        [round(float(value), 3) for value in returns],
    )
    partial = scored.with_suffix(".part")
    partial.write_text(json.dumps(asdict(score)))
    partial.replace(scored)  # whole or not there
    return score


def _command(log: Path, words: list[str]) -> str:
    """Runs ppo-train on one thread per process; gives what it printed, which goes to `log` too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        subprocess.run(
            [*TRAINER, *words], check=True, stdout=file, stderr=file, cwd=ROOT, env=environment
        )
    return log.read_text()


def _curve(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    if REWARD_TAG not in events.Tags()["scalars"]:
        return np.empty(0), np.empty(0)
    points = events.Scalars(REWARD_TAG)
    return np.array([point.step for point in points]), np.array([point.value for point in points])
