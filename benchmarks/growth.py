"""Cost of one agent-step as simulators, agents, observations, images and buffers grow.

    python -m benchmarks.growth                       what is not measured yet, then table and plot
    python -m benchmarks.growth --axes agents buffer  some
    python -m benchmarks.growth --again               everything anew, about 20 minutes
    python -m benchmarks.growth --table               only what was measured before

One axis grows at a time, the others stay at a middle value. The real trainer, with null simulators
of envs.testing.null over the real bridge, runs whole cycles of collecting and updating; its own
timers, read at the beginning of two updates, are divided by the decisions between them
(`growth_probe.py`). Every point has a file below results/growth/: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import growth_plot, machine, report, trainers
from benchmarks.trainers import Job, Line, Trainer
from envs.testing import null

MARK = "[bench] "
PROBE = trainers.REPOSITORY / "benchmarks" / "growth_probe.py"
PARTS = ("waiting", "bridge", "inference", "step log", "learning", "rest")
# Neighbouring points may differ by so much without saying anything: two rounds of one do.
TOLERANCE = 1.3


@dataclass(frozen=True, slots=True)
class Shape:
    """What one point runs; the defaults are the middle of every axis."""

    simulators: int = 4
    agents: int = 32
    observation: int = 64
    image: int = 0
    """Height and width of a camera with three channels, instead of the observation; 0 = none."""
    buffer: int = 20_480
    batch: int = 1024
    epochs: int = 3


# The same work in every update of a camera, and small enough for the slower one.
CAMERA = Shape(simulators=2, agents=8, observation=0, buffer=1024, batch=128, epochs=1)
AXES: dict[str, list[Shape]] = {
    "simulators": [Shape(simulators=count) for count in (1, 2, 4, 8, 16, 32, 64)],
    "agents": [Shape(agents=count) for count in (1, 10, 32, 100, 1000)],
    "observation": [Shape(observation=size) for size in (8, 64, 512, 4096)],
    "image": [replace(CAMERA, image=size) for size in (84, 256)],
    "buffer": [Shape(buffer=size) for size in (2048, 20_480, 204_800, 2_048_000)],
}


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured of a shape; times per agent-step."""

    shape: Shape
    microseconds: dict[str, float]
    agent_steps: int
    seconds: float
    megabytes: float
    """The most that was resident, without what was there before the first decision."""

    @property
    def total(self) -> float:
        """Microseconds of an agent-step, all parts together."""
        return sum(self.microseconds.values())


def work(axis: str, shape: Shape) -> float:
    """Says how much one agent-step has to do, in units that only ratios of mean anything.

    More simulators, agents or rows do not make one agent-step dearer; more numbers to carry do.
    """
    if axis == "observation":
        return float(shape.observation)
    return float(shape.image**2) if axis == "image" else 1.0


def settings(shape: Shape) -> dict[str, Any]:
    """Gives the YAML of a shape."""
    return {
        "behaviors": {
            "Null": {
                "trainer_type": "ppo",
                "hyperparameters": {
                    "batch_size": shape.batch,
                    "buffer_size": shape.buffer,
                    "num_epoch": shape.epochs,
                },
                "network_settings": {"normalize": True, "hidden_units": 128, "num_layers": 2},
                "time_horizon": 64,
                "max_steps": trainers.ENDLESS,
                # The axes are about agent-steps; a summary every 2 s would not matter either.
                "summary_freq": max(shape.buffer, 100_000),
            }
        }
    }


def measure(shape: Shape, seconds: float) -> Point:
    """Runs a shape for two updates at least, and `seconds` between the first and the last."""
    simulator = ["--agents", str(shape.agents), "--continuous", "4", "--episode-length", "100"]
    simulator += ["--observations", str(shape.observation)]
    if shape.image:
        simulator += ["--image", f"{shape.image}x{shape.image}x3"]
    python = Path(sys.executable)
    trainer = Trainer("ppo-train", (str(python), str(PROBE)), python)
    with tempfile.TemporaryDirectory(prefix="ppo-train-growth-") as folder:
        build = null.write_executable(Path(folder) / "null.x86_64", simulator)
        job = Job(settings(shape), str(build), shape.simulators, 1, shape.buffer)

        def is_enough(lines: Sequence[Line]) -> bool:
            marks = _marks(lines)[1:]  # the first is of the beginning
            return len(marks) > 1 and marks[-1]["wall_s"] - marks[0]["wall_s"] >= seconds

        lines = trainers.train(trainer, job, job.settings, until=is_enough)
    return _point(shape, _marks(lines))


def _marks(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Finds what the probe has said."""
    return [json.loads(line[len(MARK) :]) for _, line in lines if line.startswith(MARK)]


def _point(shape: Shape, marks: Sequence[dict[str, Any]]) -> Point:
    """Divides what lies between the first and the last update by its decisions."""
    beginning, first, *_, last = marks
    steps = last["step"] - first["step"]
    spent = {name: last["seconds"][name] - first["seconds"][name] for name in last["seconds"]}
    step_log = last["step_log_s"] - first["step_log_s"]
    seconds = last["wall_s"] - first["wall_s"]
    parts = {
        "waiting": spent["simulators"],
        "bridge": spent["bridge"],
        "inference": spent["inference"] - step_log,
        "step log": step_log,
        "learning": spent["learning"],
    }
    parts["rest"] = seconds - sum(parts.values())
    return Point(
        shape,
        {name: round(value * 1e6 / steps, 3) for name, value in parts.items()},
        steps,
        round(seconds, 2),
        round(last["megabytes"]["VmHWM"] - beginning["megabytes"]["VmRSS"], 1),
    )


def growth(axis: str, points: Sequence[Point]) -> list[float]:
    """Compares each point with the one before: how the cost grew, over how the work grew.

    Above `TOLERANCE`, something grows faster than its work. The first is 1.
    """
    found = [1.0]
    for before, point in itertools.pairwise(points):
        of_work = work(axis, point.shape) / work(axis, before.shape)
        found.append(point.total / before.total / max(1.0, of_work))
    return found


def table(measured: dict[str, list[Point]]) -> str:
    """Writes all points as one Markdown table."""
    lines = [
        "| Axis | | us per agent-step | " + " | ".join(PARTS) + " | growth | MB |",
        "|---|" + "---|" * (len(PARTS) + 4),
    ]
    for axis, points in measured.items():
        for point, grown in zip(points, growth(axis, points), strict=True):
            value = getattr(point.shape, axis)
            shown = f"{value}x{value}x3" if axis == "image" else f"{value:,}"
            parts = " | ".join(f"{point.microseconds[part]:.2f}" for part in PARTS)
            mark = f"**{grown:.2f}**" if grown > TOLERANCE else f"{grown:.2f}"
            lines.append(
                f"| {axis} | {shown} | {point.total:.1f} | {parts} | {mark} "
                f"| {point.megabytes:,.0f} |"
            )
    return "\n".join(lines)


def path_of(folder: Path, axis: str, shape: Shape) -> Path:
    """Names the file of a point."""
    return folder / f"{axis}-{getattr(shape, axis)}.json"


def load(folder: Path) -> dict[str, list[Point]]:
    """Reads the points that are there, in the order of the axes."""
    measured: dict[str, list[Point]] = {}
    for axis, shapes in AXES.items():
        for shape in shapes:
            path = path_of(folder, axis, shape)
            if path.exists():
                found = json.loads(path.read_text())["point"]
                own = Point(**{**found, "shape": Shape(**found["shape"])})
                measured.setdefault(axis, []).append(own)
    return measured


def main() -> None:
    """Measures what is missing, prints the table and draws it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--axes", nargs="*", choices=list(AXES), default=list(AXES))
    parser.add_argument("--most", type=int, help="leave out values of an axis above this")
    parser.add_argument("--seconds", type=float, default=12.0, help="of a point, at least")
    parser.add_argument("--again", action="store_true", help="also what has been measured before")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()

    folder = options.results / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    about = machine.describe()
    if not options.table:
        report.warn_if_busy(about)
    for axis in [] if options.table else options.axes:
        for shape in AXES[axis]:
            path = path_of(folder, axis, shape)
            is_too_large = options.most is not None and getattr(shape, axis) > options.most
            if is_too_large or (path.exists() and not options.again):
                continue
            point = measure(shape, options.seconds)
            document = {"machine": about, "point": asdict(point)}
            path.write_text(json.dumps(document, indent=1) + "\n")
            print(f"{axis:12} {getattr(shape, axis):>9,} {point.total:8.1f} us", flush=True)
    measured = load(folder)
    print(f"\n{table(measured)}")
    plot = options.results / "growth.svg"
    growth_plot.draw(
        {
            axis: (
                [getattr(point.shape, axis) for point in points],
                {part: [point.microseconds[part] for point in points] for part in PARTS},
            )
            for axis, points in measured.items()
        },
        plot,
    )
    print(f"written: {plot}")


if __name__ == "__main__":
    main()
