"""Collecting through the trainer against the simulators' own speed, where these are the bottleneck.

    python -m benchmarks.simulator_bound [--rounds 3] [--rows Walker2d-v5 sleeping ...]

The simulators alone: as many processes with as many environments each, stepping with random actions
as fast as they can, no trainer and no bridge; of the null simulator, one that makes its messages
and sleeps in every env_step. Then the same simulators under the trainer, in a run without updates
(`trainers.py`), in turns. Collecting must not take more than 1.3 times as long. Takes about 4
minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import gym_shaped, machine, report, trainers
from benchmarks.trainers import Job
from envs.testing import null

MUST = 1.3
STEP_S = 0.005
# The policy's first actions are drawn like this, too: of unit deviation, clipped at 3, over 3.
ACTION_LIMIT = 3.0
NULL_SHAPE = ("Null?team=0", 64, 4)  # behaviour, observation, continuous actions


@dataclass(frozen=True, slots=True)
class Simulators:
    """What simulates, in how many processes."""

    environment: str
    """A Gymnasium id; empty: null simulators that sleep."""
    processes: int
    agents: int
    """Of each process."""
    steps: int
    """Agent-steps of a run through the trainer; some 10 s."""


ROWS = {
    "Walker2d-v5": Simulators("Walker2d-v5", processes=2, agents=4, steps=90_000),
    "Humanoid-v5": Simulators("Humanoid-v5", processes=2, agents=4, steps=24_000),
    "sleeping": Simulators("", processes=4, agents=10, steps=60_000),
}


def play_gym(environment: str, agents: int, seconds: float) -> float:
    """Steps environments of one process in turn; gives steps per second."""
    import gymnasium

    envs = [gymnasium.make(environment) for _ in range(agents)]
    chance = np.random.default_rng(0)
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    shape = envs[0].action_space.shape
    assert shape is not None
    low, high = envs[0].action_space.low, envs[0].action_space.high
    drawn = chance.standard_normal((4096, *shape)).clip(-ACTION_LIMIT, ACTION_LIMIT) / ACTION_LIMIT
    actions = low + (drawn + 1.0) / 2.0 * (high - low)
    num_steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for env in envs:
            _, _, terminated, truncated, _ = env.step(actions[num_steps % len(actions)])
            if terminated or truncated:
                env.reset()
            num_steps += 1
    return num_steps / (time.perf_counter() - started)


def play_null(agents: int, seconds: float) -> float:
    """Makes the messages of a sleeping null simulator; gives agent-steps per second."""
    behavior, observations, continuous = NULL_SHAPE
    simulator = null.NullSimulator(behavior, observations, continuous, (), agents, 100)
    simulator.reset()
    num_steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        time.sleep(STEP_S)
        simulator.step()
        num_steps += agents
    return num_steps / (time.perf_counter() - started)


def measure_alone(row: str, seconds: float) -> float:
    """Runs the simulators of a row without a trainer, all at once; gives agent-steps per second."""
    command = [sys.executable, "-m", "benchmarks.simulator_bound", "--alone", row]
    command += ["--seconds", str(seconds)]
    playing = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=trainers.REPOSITORY)
        for _ in range(ROWS[row].processes)
    ]
    printed = [process.communicate()[0] for process in playing]
    return round(sum(float(json.loads(text)) for text in printed), 1)


def measure_collecting(row: str) -> float:
    """Runs the same simulators under the trainer, without updates."""
    plan = ROWS[row]
    settings = gym_shaped.settings(plan.environment or "Null")
    buffer = gym_shaped.STEPS_PER_UPDATE
    if plan.environment:
        job = Job(settings, f"gym:{plan.environment}", plan.processes, plan.agents, buffer)
        return trainers.collecting(trainers.ppo_train(), job, plan.steps)
    behavior, observations, continuous = NULL_SHAPE
    words = ["--behavior", behavior, "--observations", str(observations), "--continuous"]
    words += [str(continuous), "--agents", str(plan.agents), "--episode-length", "100"]
    words += ["--step-ms", str(1000 * STEP_S)]
    with tempfile.TemporaryDirectory(prefix="ppo-train-bench-") as folder:
        build = null.write_executable(Path(folder) / "null.x86_64", words)
        job = Job(settings, str(build), plan.processes, 1, buffer)
        return trainers.collecting(trainers.ppo_train(), job, plan.steps)


def table_row(row: str, alone: list[float], collecting: list[float]) -> report.TableRow:
    """Writes the line of one row."""
    plan = ROWS[row]
    own, ours = report.median(alone), report.median(collecting)
    name = plan.environment or f"null simulators that sleep {1000 * STEP_S:g} ms"
    return report.TableRow(
        work=f"collecting alone, {name}, {plan.processes} x {plan.agents}",
        ours=f"{ours:,.0f} steps/s",
        peer=f"the simulators alone {own:,.0f}",
        ratio=round(own / ours, 2),
        must=f"takes <= {MUST} x",
        met=own / ours <= MUST,
    )


def main() -> None:
    """Measures the rows and publishes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seconds", type=float, default=6.0, help="of simulators alone")
    parser.add_argument("--alone", choices=list(ROWS), help="be one of the simulators; prints")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.alone:
        plan = ROWS[options.alone]
        print(
            play_gym(plan.environment, plan.agents, options.seconds)
            if plan.environment
            else play_null(plan.agents, options.seconds)
        )
        return

    about = machine.describe()
    report.warn_if_busy(about)
    measured: dict[str, dict[str, list[float]]] = {}
    for row in options.rows:
        own = measured[row] = {"simulators alone": [], "ppo-train": []}
        for _ in range(options.rounds):
            own["simulators alone"].append(measure_alone(row, options.seconds))
            own["ppo-train"].append(measure_collecting(row))
            print(f"{row:12} {own['simulators alone'][-1]:10,.0f} {own['ppo-train'][-1]:10,.0f}")
    lines = [table_row(row, *both.values()) for row, both in measured.items()]
    report.publish("simulator_bound", about, lines, measured, options.results)


if __name__ == "__main__":
    main()
