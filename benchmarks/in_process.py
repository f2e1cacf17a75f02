"""Steps per second with environments in the trainer's process, against Stable-Baselines3.

    python -m benchmarks.in_process [--rounds 3] [--rows cartpole-256 walker-64]

The same work for both, in one process each (ours: `num_envs: 0`; the peer: DummyVecEnv): 8
environments, tanh networks of the same size for policy and value, normalised observations. Turns
are taken, and the median of the rounds counts. A row's measurements are written as soon as they are
there (`--results`), and a row that is there already is not measured again without `--again`, so the
command can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, report, trainers
from benchmarks.trainers import Job

NUM_ENVS = 8
CYCLES_PER_MARK = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    env: str
    num_steps: int  # of each environment per update
    batch_size: int
    num_epoch: int
    hidden_units: int
    num_layers: int
    must: float
    updates: int  # measured ones of one run, a multiple of CYCLES_PER_MARK

    @property
    def work(self) -> str:
        """Says what is done."""
        return (
            f"{self.env}, {NUM_ENVS} envs in process, {self.num_steps} steps, batch "
            f"{self.batch_size}, {self.num_epoch} epochs, {self.num_layers}x{self.hidden_units}"
        )


ROWS = {
    "cartpole-256": Row("CartPole-v1", 128, 256, 4, 64, 2, 2.0, 100),
    "cartpole-64": Row("CartPole-v1", 256, 64, 10, 64, 2, 3.0, 25),
    "walker-64": Row("Walker2d-v5", 256, 64, 10, 64, 2, 4.0, 25),
    "walker-2048": Row("Walker2d-v5", 2048, 2048, 3, 64, 2, 2.5, 10),
    "walker-3x512": Row("Walker2d-v5", 2048, 2048, 3, 512, 3, 2.5, 5),
}


def settings(row: Row) -> dict[str, object]:
    """Gives our YAML for the same work as benchmarks/peers/sb3_ppo.py."""
    hyperparameters = {
        "batch_size": row.batch_size,
        "buffer_size": NUM_ENVS * row.num_steps,
        "learning_rate": 3.0e-4,
        "learning_rate_schedule": "constant",
        "beta": 0.0,
        "epsilon": 0.2,
        "lambd": 0.95,
        "num_epoch": row.num_epoch,
        "max_grad_norm": 0.5,
    }
    network = {
        "normalize": True,
        "hidden_units": row.hidden_units,
        "num_layers": row.num_layers,
        "activation": "tanh",
        "initialization": "orthogonal",
    }
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": hyperparameters,
        "network_settings": network,
        "reward_signals": {"extrinsic": {"gamma": 0.99, "strength": 1.0}},
        "time_horizon": row.num_steps,
    }
    return {"behaviors": {row.env.partition("-")[0]: behavior}}


def measure_ours(row: Row, updates: int) -> float:
    """Trains once in one process; takes up to a minute."""
    job = Job(
        settings(row),
        f"gym:{row.env}",
        num_envs=0,
        num_areas=NUM_ENVS,
        buffer_size=NUM_ENVS * row.num_steps,
    )
    return trainers.end_to_end(trainers.ppo_train(), job, updates, CYCLES_PER_MARK)


def measure_peer(python: Path, row: Row, updates: int) -> float:
    """Trains once with Stable-Baselines3; waits for it."""
    script = trainers.REPOSITORY / "benchmarks" / "peers" / "sb3_ppo.py"
    command = [str(python), str(script), "--env", row.env, "--vectorization", "dummy"]
    for flag, value in (
        ("updates", updates),
        ("num-steps", row.num_steps),
        ("batch-size", row.batch_size),
        ("num-epoch", row.num_epoch),
        ("hidden-units", row.hidden_units),
        ("num-layers", row.num_layers),
    ):
        command += [f"--{flag}", str(value)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(printed)["steps_per_s"])


def table_row(row: Row, measured: dict[str, list[float]]) -> report.TableRow:
    """Writes the line of one row."""
    ours = report.median(measured["ppo-train"])
    peer = report.median(measured["stable-baselines3"])
    return report.TableRow(
        work=row.work,
        ours=f"{ours:,.0f} steps/s",
        peer=f"Stable-Baselines3 {peer:,.0f}",
        ratio=round(ours / peer, 2),
        must=f">= {row.must} x",
        met=ours / peer >= row.must,
    )


def main() -> None:
    """Measures the rows that are missing, one at a time, and publishes all that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--updates", type=int, help="of one run; default: 10 to 30 s of work")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--sb3-venv", type=Path, default=Path(".venv-sb3"))
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()

    python = trainers.REPOSITORY / options.sb3_venv / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is not there; benchmarks/make_peers.sh sb3 builds it.")
    about = machine.describe(**{"stable-baselines3": python})
    report.warn_if_busy(about)
    path = options.results / "in_process.json"
    measured: dict[str, dict[str, list[float]]] = {}
    if path.exists():
        measured = json.loads(path.read_text())["measurements"]
    for name in options.rows:
        if name in measured and not options.again:
            continue
        row = ROWS[name]
        updates = options.updates or row.updates
        found: dict[str, list[float]] = {"ppo-train": [], "stable-baselines3": []}
        for _ in range(options.rounds):
            found["ppo-train"].append(measure_ours(row, updates))
            found["stable-baselines3"].append(measure_peer(python, row, updates))
            print(
                f"{name:14} {found['ppo-train'][-1]:10,.0f} {found['stable-baselines3'][-1]:10,.0f}"
            )
        measured[name] = found
        lines = [table_row(ROWS[key], measured[key]) for key in ROWS if key in measured]
        report.publish("in_process", about, lines, measured, options.results)


if __name__ == "__main__":
    main()
