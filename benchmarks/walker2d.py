"""Trains the default job with several seeds, evaluates each policy, and draws the curves.

    python -m benchmarks.walker2d [--seeds 1 2 3 4 5] [--ratio joint per_dimension] [--jobs 2]

Every run is `ppo-train behaviors.yaml` in a process of its own, and every score the mean of 10
deterministic episodes of `ppo-train eval`. Runs that have already ended are not repeated, so the
command can be stopped and started again. Writes benchmarks/results/walker2d.json and
docs/walker2d.png. Five seeds take about 20 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import machine

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "benchmarks" / "results" / "walker2d.json"
PLOT = ROOT / "docs" / "walker2d.png"
BEHAVIOR = "Walker2d"
TRAINER = [sys.executable, "-m", "trainer.cli.main"]
REWARD_TAG = "Environment/Cumulative Reward"


@dataclass(frozen=True)
class Score:
    """One seed's result."""

    ratio: str
    seed: int
    mean_return: float  # of 10 deterministic episodes
    std: float
    minimum: float
    train_seconds: float


def main() -> None:
    """Runs what is missing, then writes table and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--ratio", nargs="+", default=["joint"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results" / "walker2d-seeds")
    args = parser.parse_args()
    tasks = [(ratio, seed) for ratio in args.ratio for seed in args.seeds]
    with ThreadPoolExecutor(args.jobs) as pool:
        scores = list(pool.map(lambda task: one_seed(args.results_dir, *task), tasks))
    OUTPUT.parent.mkdir(exist_ok=True)
    document = {
        "machine": machine.describe(),
        "scores": [asdict(score) for score in scores],
    }
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")
    draw(args.results_dir, args.ratio, args.seeds)
    for ratio in args.ratio:
        returns = [score.mean_return for score in scores if score.ratio == ratio]
        print(f"ratio {ratio}: median {np.median(returns):.0f}, min {min(returns):.0f}; ", end="")
        print(", ".join(f"{value:.0f}" for value in returns))


def one_seed(results: Path, ratio: str, seed: int) -> Score:
    """Trains, unless the run is there, and evaluates."""
    run_id = f"{ratio}-{seed}"
    folder = results / run_id
    if not (folder / f"{BEHAVIOR}.onnx").is_file():
        settings = yaml.safe_load((ROOT / "behaviors.yaml").read_text())
        settings["behaviors"][BEHAVIOR]["hyperparameters"]["ratio"] = ratio
        results.mkdir(parents=True, exist_ok=True)
        config = results / f"{run_id}.yaml"
        config.write_text(yaml.safe_dump(settings))
        flags: list[str | Path] = [
            "--run-id",
            run_id,
            "--results-dir",
            results,
            "--seed",
            str(seed * 100),
            "--force",
        ]
        with (results / f"{run_id}.log").open("w") as log:
            subprocess.run([*TRAINER, config, *flags], check=True, stdout=log, stderr=log, cwd=ROOT)
    words: list[str | Path] = [
        "eval",
        "--run-id",
        run_id,
        "--results-dir",
        results,
        "--seed",
        "12345",
    ]
    done = subprocess.run([*TRAINER, *words], check=True, capture_output=True, text=True, cwd=ROOT)
    found = re.search(r"mean return (\S+), std (\S+), min (\S+),", done.stdout)
    assert found is not None, done.stdout
    mean, std, minimum = (float(text) for text in found.groups())
    timers = json.loads((folder / "run_logs" / "timers.json").read_text())
    print(f"{run_id}: {mean:.0f}", flush=True)
    return Score(ratio, seed, mean, std, minimum, round(timers["total"], 1))


def draw(results: Path, ratios: list[str], seeds: list[int]) -> None:
    """Draws the mean training return over the steps, with the interquartile band over seeds."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), dpi=110)
    for ratio in ratios:
        curves = [curve(results / f"{ratio}-{seed}" / BEHAVIOR) for seed in seeds]
        steps = curves[0][0]
        returns = np.stack([np.interp(steps, *each) for each in curves])  # (seeds, steps)
        low, middle, high = np.percentile(returns, [25, 50, 75], axis=0)
        axes.plot(steps / 1e6, middle, label=f"ratio: {ratio}")
        axes.fill_between(steps / 1e6, low, high, alpha=0.25)
    axes.set_xlabel("steps, millions")
    axes.set_ylabel("mean return while training")
    axes.set_title(f"Walker2d-v5, behaviors.yaml: median and quartiles of {len(seeds)} seeds")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT)


def curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads steps and mean returns from a behaviour's event files."""
    events = EventAccumulator(str(folder))
    events.Reload()
    points = events.Scalars(REWARD_TAG)
    return np.array([point.step for point in points]), np.array([point.value for point in points])


if __name__ == "__main__":
    main()
