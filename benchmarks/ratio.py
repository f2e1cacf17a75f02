"""Which probability ratio learns the tiny games better: that of the whole action, or one per part?

    python -m benchmarks.ratio --seeds 10

Trains every case with `ratio: joint` and `ratio: per_dimension` through the command line, as
ML-Agents' own learning tests are set up, and counts the seeds whose last 5 episodes earn more than
0.9 in the mean, and the steps until a whole summary (100 steps) does. A game with one action
dimension is not here: both ratios are the same there.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from benchmarks.machine import describe
from benchmarks.report import RESULTS

THRESHOLD = 0.9
FIRST_SEED = 1337
SUMMARY = re.compile(r"\. Step: (\d+)\. .*Mean Reward: (-?\d+\.\d+)\.")


@dataclass(frozen=True, slots=True)
class Game:
    """One tiny game and how long it is trained."""

    actions: str  # continuous dimensions, discrete branches
    step_size: float
    batch_size: int
    buffer_size: int
    max_steps: int


GAMES = (
    Game("0,2", 0.8, 64, 640, 10000),
    Game("2,0", 0.8, 64, 640, 10000),
    Game("1,1", 0.2, 16, 64, 3000),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run came to."""

    last_5: float
    steps: int | None
    """At the first summary above the threshold; None: there was none."""


def settings(game: Game, ratio: str) -> dict[str, object]:
    """Gives the YAML: ML-Agents' own test settings, with one ratio or the other."""
    hyperparameters = {
        "batch_size": game.batch_size,
        "buffer_size": game.buffer_size,
        "learning_rate": 5.0e-3,
        "learning_rate_schedule": "constant",
        "beta_schedule": "linear",
        "epsilon_schedule": "linear",
        "ratio": ratio,
    }
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": hyperparameters,
        "network_settings": {"num_layers": 1, "hidden_units": 32},
        "max_steps": game.max_steps,
        "summary_freq": 100,
        "time_horizon": 64,
    }
    return {"behaviors": {"1D": behavior}}


def train(game: Game, ratio: str, seed: int) -> Result:
    """Trains once through the command line; takes some seconds."""
    with tempfile.TemporaryDirectory(prefix="ppo-train-ratio-") as name:
        folder = Path(name)
        simulator = ["envs.testing.tiny", "--actions", game.actions]
        simulator += ["--step-size", str(game.step_size)]
        build = folder / "tiny.x86_64"
        build.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", *simulator])} "$@"\n')
        build.chmod(0o755)
        path = folder / "settings.yaml"
        path.write_text(yaml.safe_dump(settings(game, ratio)))
        words = [str(Path(sys.executable).parent / "ppo-train"), str(path), "--env", str(build)]
        words += ["--run-id", "run", "--seed", str(seed)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
        state = torch.load(folder / "results/run/1D/checkpoint.pt", weights_only=True)["state"]
        last = state["recent_returns"][-5:]
        above = [int(at) for at, mean in SUMMARY.findall(done.stdout) if float(mean) > THRESHOLD]
        return Result(sum(last) / len(last), above[0] if above else None)


def row(game: Game, ratio: str, results: list[Result]) -> dict[str, object]:
    """Gives the figures of one game and ratio."""
    steps = [result.steps for result in results if result.steps is not None]
    last = [result.last_5 for result in results]
    return {
        "actions": game.actions,
        "ratio": ratio,
        "passed": sum(earned > THRESHOLD for earned in last),
        "seeds": len(results),
        "median_steps": statistics.median(steps) if steps else None,
        "most_steps": max(steps) if len(steps) == len(results) else None,
        "lowest": round(min(last), 3),
        "median": round(statistics.median(last), 3),
        "runs": [[round(result.last_5, 3), result.steps] for result in results],
    }


def table(rows: list[dict[str, object]]) -> str:
    """Writes the figures as a Markdown table."""
    columns = ("actions", "ratio", "passed", "median_steps", "most_steps", "lowest", "median")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for figures in rows:
        shown = {**figures, "passed": f"{figures['passed']}/{figures['seeds']}"}
        cells = ("never" if shown[name] is None else str(shown[name]) for name in columns)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains everything, one run at a time, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratio", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ratios", nargs="+", default=["joint", "per_dimension"])
    options = parser.parse_args()
    machine = describe()
    rows: list[dict[str, object]] = []
    for game in GAMES:
        for ratio in options.ratios:
            results = []
            for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
                results.append(train(game, ratio, seed))
                print(game.actions, ratio, seed, results[-1], flush=True)
            rows.append(row(game, ratio, results))
    print(table(rows))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "ratio.json"
    path.write_text(json.dumps({"benchmark": "ratio", "machine": machine, "rows": rows}, indent=1))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
