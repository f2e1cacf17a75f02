"""Steps per second of ppo-train over its bridge and of Stable-Baselines3 in one process.

    python -m benchmarks.gym_shaped [--rounds 3] [--rows Walker2d-v5 CartPole-v1]

The same work for both: 8 environments, 256 steps of each per update, minibatches of 64, 10 epochs,
2x64 tanh for policy and value, normalised observations. ppo-train simulates in two processes of 4
environments that dial it over gRPC; Stable-Baselines3 keeps everything in one process (dummy) or
one process per environment (subproc), and its better median counts. Turns are taken, and the
median of the rounds counts. Whole cycles of collecting and updating are timed, without start-up and
without the first ones (`trainers.py`). Takes about 8 minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import machine, report, trainers
from benchmarks.trainers import Job

STEPS_PER_UPDATE = 8 * 256
MUST = 1.2
# Measured updates of one run: some 10 to 20 seconds. Multiples of CYCLES_PER_MARK.
ROWS = {"Walker2d-v5": 25, "CartPole-v1": 35}
CYCLES_PER_MARK = 5
PEERS = ("dummy", "subproc")


def settings(env: str) -> dict[str, object]:
    """Gives our YAML for the same work as benchmarks/peers/sb3_ppo.py."""
    return {
        "behaviors": {
            env.partition("-")[0]: {
                "trainer_type": "ppo",
                "hyperparameters": {
                    "batch_size": 64,
                    "buffer_size": STEPS_PER_UPDATE,
                    "learning_rate": 3.0e-4,
                    "learning_rate_schedule": "constant",
                    "beta": 0.0,
                    "epsilon": 0.2,
                    "lambd": 0.95,
                    "num_epoch": 10,
                    "max_grad_norm": 0.5,
                },
                "network_settings": {
                    "normalize": True,
                    "hidden_units": 64,
                    "num_layers": 2,
                    "activation": "tanh",
                    "initialization": "orthogonal",
                },
                "reward_signals": {"extrinsic": {"gamma": 0.99, "strength": 1.0}},
                "time_horizon": 256,
            }
        }
    }


def measure_ours(env: str, updates: int) -> float:
    """Trains once over the bridge: two simulators of four environments."""
    job = Job(settings(env), f"gym:{env}", num_envs=2, num_areas=4, buffer_size=STEPS_PER_UPDATE)
    return trainers.end_to_end(trainers.ppo_train(), job, updates, CYCLES_PER_MARK)


def measure_peer(python: Path, env: str, updates: int, vectorization: str) -> float:
    """Trains once with Stable-Baselines3; waits for it."""
    script = trainers.REPOSITORY / "benchmarks" / "peers" / "sb3_ppo.py"
    command = [str(python), str(script), "--env", env, "--updates", str(updates)]
    command += ["--vectorization", vectorization]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(printed)["steps_per_s"])


def table_row(env: str, measured: dict[str, list[float]]) -> report.TableRow:
    """Writes the line of one environment, against the better kind of peer."""
    rates = {name: report.median(runs) for name, runs in measured.items()}
    ours = rates.pop("ppo-train")
    best = max(rates, key=lambda name: rates[name])
    ratio = ours / rates[best]
    return report.TableRow(
        work=f"{env}, 8 envs in 2 simulators, 256 steps, batch 64, 10 epochs, 2x64",
        ours=f"{ours:,.0f} steps/s",
        peer=f"Stable-Baselines3 ({best}) {rates[best]:,.0f}",
        ratio=round(ratio, 2),
        must=f">= {MUST} x",
        met=ratio >= MUST,
    )


def main() -> None:
    """Measures the environments and publishes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--updates", type=int, help="of one run; default: 10 to 20 s of work")
    parser.add_argument("--only", choices=["ppo-train", *PEERS], help="prints, no JSON")
    parser.add_argument("--sb3-venv", type=Path, default=Path(".venv-sb3"))
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()

    python = trainers.REPOSITORY / options.sb3_venv / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is not there; benchmarks/make_peers.sh sb3 builds it.")
    names = [options.only] if options.only else ["ppo-train", *PEERS]
    about = machine.describe(**{"stable-baselines3": python})
    report.warn_if_busy(about)
    measured: dict[str, dict[str, list[float]]] = {}
    for env in options.rows:
        updates = options.updates or ROWS[env]
        measured[env] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                if name == "ppo-train":
                    rate = measure_ours(env, updates)
                else:
                    rate = measure_peer(python, env, updates, name)
                measured[env][name].append(rate)
                print(f"{env:12} {name:10} {rate:10,.0f}", flush=True)
    if not options.only:
        rows = [table_row(env, runs) for env, runs in measured.items()]
        report.publish("gym_shaped", about, rows, measured, options.results)


if __name__ == "__main__":
    main()
