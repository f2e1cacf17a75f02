"""Agent-steps per second of ppo-train and mlagents-learn on Unity-shaped work, in the same run.

    python -m benchmarks.unity_shaped [--rounds 3] [--rows walker-1 walker-4 ...] [--threaded]

Both trainers launch the same null simulator (ready-made messages over the real protocol) with the
same YAML. They take turns, and the median of the rounds counts. `trainers.py` defines the figures.
Takes about 40 minutes with 3 rounds on 2 idle cores; rows that are measured alone take the place of
what the result file says of them, the others stay.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine, report, trainers
from benchmarks.trainers import Job, Trainer
from envs.testing import null

NAME = "unity_shaped"
CONFIGS = trainers.REPOSITORY / "configs" / "unity"


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of Unity project: its YAML and the shape of its simulator."""

    title: str
    config: str
    simulator: str
    """Arguments of envs.testing.null."""
    cycles: dict[str, int]
    """Trainer -> cycles of one run; some 10 to 20 s of work."""
    collecting_steps: dict[str, int]
    """Trainer -> agent-steps of a run without updates; some 10 s with the warm-up."""
    must_end_to_end: dict[int, float]
    """Number of simulators -> at least this many times the peer's speed."""
    must_collecting: dict[int, float]
    """The same of collecting alone."""
    network: dict[str, Any] = field(default_factory=dict)
    """What network_settings say instead."""
    cycles_per_mark: int = 1
    """Odd; more where a cycle is short, for summaries cost time too."""


WALKER = Work(
    title="Walker-shaped (243 obs, 39 actions, 10 agents, 3x512)",
    config="Walker.yaml",
    simulator="--behavior Walker?team=0 --observations 243 --continuous 39 --agents 10",
    cycles={"ppo-train": 4, "mlagents-learn": 1},
    collecting_steps={"ppo-train": 96_000, "mlagents-learn": 24_000},
    must_end_to_end={1: 3.3, 4: 3.3, 8: 3.3},
    must_collecting={1: 3.0, 4: 5.0},
)
WALKER_256 = replace(
    WALKER,
    title="Walker-shaped, 3x256",
    network={"hidden_units": 256},
    cycles={"ppo-train": 8, "mlagents-learn": 2},
    must_end_to_end={1: 3.5, 4: 3.5, 8: 3.5},
    must_collecting={},
)
BALL = Work(
    title="3DBall-shaped (8 obs, 2 actions, 12 agents, 2x128)",
    config="3DBall.yaml",
    simulator="--behavior 3DBall?team=0 --observations 8 --continuous 2 --agents 12",
    cycles={"ppo-train": 12, "mlagents-learn": 3},
    collecting_steps={"ppo-train": 144_000, "mlagents-learn": 36_000},
    must_end_to_end={1: 5.0, 4: 6.0},
    must_collecting={},
)
DISCRETE = Work(
    title="discrete with masks (32 obs, branches 3-3-2, 10 agents, 2x128)",
    config="Discrete.yaml",
    simulator="--behavior MyAgent?team=0 --observations 32 --branches 3,3,2 --masked --agents 10",
    cycles={"ppo-train": 100, "mlagents-learn": 100},
    collecting_steps={"ppo-train": 144_000, "mlagents-learn": 36_000},
    must_end_to_end={4: 5.0},
    must_collecting={},
    cycles_per_mark=5,
)
CAMERA = Work(
    title="one 84x84x3 PNG camera (10 agents, simple encoder, 1x256)",
    config="Camera.yaml",
    simulator=(
        "--behavior MyCameraAgent?team=0 --observations 0 --image 84x84x3 --branches 5 --agents 10"
    ),
    cycles={"ppo-train": 8, "mlagents-learn": 3},
    collecting_steps={"ppo-train": 24_000, "mlagents-learn": 9_000},
    must_end_to_end={1: 3.0},
    must_collecting={},
)
ROWS = {
    "walker-1": (WALKER, 1),
    "walker-4": (WALKER, 4),
    "walker-8": (WALKER, 8),
    "walker256-1": (WALKER_256, 1),
    "walker256-4": (WALKER_256, 4),
    "walker256-8": (WALKER_256, 8),
    "3dball-1": (BALL, 1),
    "3dball-4": (BALL, 4),
    "discrete-4": (DISCRETE, 4),
    "camera-1": (CAMERA, 1),
}
# About what an untrained walker stands. mlagents-learn counts whole trajectories only, so longer
# ones would make its buffers overshoot more.
EPISODE_STEPS = 100
FIGURES = ("end to end", "collecting")

Rates = dict[str, list[float]]
"""Figure -> agent-steps per second of every round."""


@contextmanager
def make_job(work: Work, num_envs: int, configs: Path, threaded: bool = False) -> Iterator[Job]:
    """Gives the job of one row, with a simulator that lives as long as the context.

    Args:
        work: of the row.
        num_envs: of the row.
        configs: folder of the YAML files.
        threaded: both trainers update beside collection; the key is ML-Agents'.
    """
    with tempfile.TemporaryDirectory(prefix="ppo-train-bench-") as folder:
        simulator = Path(folder) / "null.x86_64"
        episodes = ["--episode-length", str(EPISODE_STEPS)]
        null.write_executable(simulator, [*work.simulator.split(), *episodes])
        settings = yaml.safe_load((configs / work.config).read_text())
        (behavior,) = settings["behaviors"].values()
        behavior["threaded"] = threaded
        behavior["network_settings"] |= work.network
        buffer_size = behavior["hyperparameters"]["buffer_size"]
        yield Job(settings, str(simulator), num_envs, 1, buffer_size)


def measure(trainer: Trainer, work: Work, figure: str, job: Job) -> float:
    """Measures one figure of one trainer once; takes up to a minute."""
    if figure == "collecting":
        return trainers.collecting(trainer, job, work.collecting_steps[trainer.name])
    return trainers.end_to_end(trainer, job, work.cycles[trainer.name], work.cycles_per_mark)


def measure_row(
    row: str, contestants: list[Trainer], rounds: int, configs: Path, threaded: bool = False
) -> dict[str, Rates]:
    """Measures one row, the trainers in turns."""
    work, num_envs = ROWS[row]
    rates: dict[str, Rates] = {
        trainer.name: {figure: [] for figure in FIGURES} for trainer in contestants
    }
    with make_job(work, num_envs, configs, threaded) as job:
        for _ in range(rounds):
            for figure in FIGURES:
                for trainer in contestants:
                    rate = measure(trainer, work, figure, job)
                    rates[trainer.name][figure].append(rate)
                    print(f"{row:10} {figure:12} {trainer.name:16} {rate:10,.0f}", flush=True)
    return rates


def table_rows(row: str, ours: Rates, peer: Rates) -> list[report.TableRow]:
    """Writes the two lines of one row: end to end, and collecting alone."""
    work, num_envs = ROWS[row]
    musts = {
        "end to end": work.must_end_to_end.get(num_envs),
        "collecting": work.must_collecting.get(num_envs),
    }
    lines = []
    for figure, must in musts.items():
        our_rate, peer_rate = report.median(ours[figure]), report.median(peer[figure])
        ratio = our_rate / peer_rate
        lines.append(
            report.TableRow(
                work=f"{work.title} x {num_envs}, {figure}",
                ours=f"{our_rate:,.0f} agent-steps/s",
                peer=f"mlagents-learn {peer_rate:,.0f}",
                ratio=round(ratio, 2),
                must="" if must is None else f">= {must} x",
                met=None if must is None else ratio >= must,
            )
        )
    return lines


def never_slower(measured: dict[str, dict[str, Rates]]) -> list[report.TableRow]:
    """Writes the line that more simulators are never slower, where more than one was measured."""
    rates = [
        report.median(measured[row]["ppo-train"]["end to end"])
        for row in ("walker-1", "walker-4", "walker-8")
        if row in measured
    ]
    if len(rates) < 2:
        return []
    shown = " / ".join(f"{rate:,.0f}" for rate in rates)
    # 2 % is what two runs of the same row differ by.
    met = all(later >= 0.98 * earlier for earlier, later in itertools.pairwise(rates))
    return [report.TableRow("Walker-shaped, more simulators", shown, "", None, "never slower", met)]


def measured_before(results: Path, name: str) -> dict[str, dict[str, Rates]]:
    """Reads what the result file says of rows that there are; {} without one."""
    path = results / f"{name}.json"
    if not path.exists():
        return {}
    found: dict[str, dict[str, Rates]] = json.loads(path.read_text())["measurements"]
    return {row: rates for row, rates in found.items() if row in ROWS}


def main() -> None:
    """Measures the rows and publishes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--only", choices=["ppo-train", "mlagents-learn"], help="prints, no JSON")
    parser.add_argument("--mlagents-venv", type=Path, default=Path(".venv-mlagents"))
    parser.add_argument("--configs", type=Path, default=CONFIGS, help="folder of the YAML files")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    parser.add_argument("--threaded", action="store_true", help="update beside collection")
    options = parser.parse_args()

    contestants = [trainers.ppo_train(), trainers.mlagents_learn(options.mlagents_venv)]
    if options.only:
        contestants = [trainer for trainer in contestants if trainer.name == options.only]
    about = machine.describe(**{t.name: t.python for t in contestants if t.name != "ppo-train"})
    report.warn_if_busy(about)
    measured = {
        row: measure_row(row, contestants, options.rounds, options.configs, options.threaded)
        for row in options.rows
    }
    if options.only:
        return
    name = f"{NAME}_threaded" if options.threaded else NAME
    known = measured_before(options.results, name) | measured
    everything = {row: known[row] for row in ROWS if row in known}
    lines: list[report.TableRow] = []
    for row, both in everything.items():
        lines += table_rows(row, both["ppo-train"], both["mlagents-learn"])
    lines += never_slower(everything)
    about["rows"] = options.rows  # that this machine, this time, has measured
    report.publish(name, about, lines, everything, options.results)


if __name__ == "__main__":
    main()
