"""One training run of a table: trains unless it has been trained, evaluates, gives the score."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
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
    commit: str = ""  # of the code when the run was scored; empty: older than this field


def run_id(task: str, algorithm: Algorithm, seed: int | str) -> str:
    """Names a run so that its folder tells what it is."""
    words = re.sub(r"[^\w.]+", "-", algorithm.name)
    return f"{task}-{words}-{seed}"


class Commands:
    """The `ppo-train`s that run now, so that they can be ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._has_ended = False

    def run(self, log: Path, words: list[str]) -> str:
        """Runs ppo-train on one thread per process; gives what it printed, which goes to `log`.

        Raises:
            RuntimeError: it failed, or all were ended; the text names the log.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log.open("w") as file:
            with self._lock:
                if self._has_ended:
                    raise RuntimeError("not begun, because the benchmark was stopped")
                process = subprocess.Popen(
                    [*TRAINER, *words], stdout=file, stderr=file, cwd=ROOT, env=environment
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        if code or self._has_ended:
            raise RuntimeError(f"ended with exit code {code}; its output is in {log}")
        return log.read_text()

    def end(self) -> None:
        """Asks all of them to save and end, and lets no other begin."""
        with self._lock:
            self._has_ended = True
            for process in self._running:
                process.terminate()


def scored_run(
    results: Path, table: Table, task: str, algorithm: Algorithm, seed: int
) -> Score | None:
    """Gives the score of a run that needs no repetition: it is there, with the same settings."""
    name = run_id(task, algorithm, seed)
    scored, config = results / f"{name}.json", results / f"{name}.yaml"
    if not scored.is_file() or not _is_of(config, table, task, algorithm):
        return None
    return Score(**json.loads(scored.read_text()))


def _is_of(config: Path, table: Table, task: str, algorithm: Algorithm) -> bool:
    return config.is_file() and config.read_text() == _settings(table, task, algorithm)


def _settings(table: Table, task: str, algorithm: Algorithm) -> str:
    return yaml.safe_dump(table.settings(task, algorithm), sort_keys=False)


def one_run(
    commands: Commands, results: Path, table: Table, task: str, algorithm: Algorithm, seed: int
) -> Score:
    """Trains and evaluates; a run that was interrupted goes on, one that is scored is not repeated.

    Raises:
        RuntimeError: training or evaluation failed; the text names the log.
    """
    if (known := scored_run(results, table, task, algorithm, seed)) is not None:
        return known
    name = run_id(task, algorithm, seed)
    scored, config = results / f"{name}.json", results / f"{name}.yaml"
    same_settings = _is_of(config, table, task, algorithm)
    results.mkdir(parents=True, exist_ok=True)
    scored.unlink(missing_ok=True)
    config.write_text(_settings(table, task, algorithm))
    behavior = behavior_name(task)
    goes_on = same_settings and (results / name / behavior / "checkpoint.pt").is_file()
    where = ["--run-id", name, "--results-dir", str(results)]
    start = "--resume" if goes_on else "--force"
    commands.run(
        results / f"{name}.log", [str(config), *where, "--seed", str(FIRST_SEED * seed), start]
    )
    said = commands.run(
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
        _commit(),
    )
    partial = scored.with_suffix(".part")
    partial.write_text(json.dumps(asdict(score)))
    partial.replace(scored)  # whole or not there
    return score


def _commit() -> str:
    """Gives the commit of this checkout, "+" behind it if files were changed since."""
    words = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _curve(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    if REWARD_TAG not in events.Tags()["scalars"]:
        return np.empty(0), np.empty(0)
    points = events.Scalars(REWARD_TAG)
    return np.array([point.step for point in points]), np.array([point.value for point in points])
