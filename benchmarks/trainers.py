"""Runs ppo-train or mlagents-learn as a user would, and times it from outside.

Only what a trainer writes to its console is used, with the time at which the line came here. No
trainer's own timers have to be believed, and both are measured in the same way:

- *end to end*: agent-steps per second over whole cycles of collecting and updating, from a mark in
  one cycle to the same mark in a later one. Start-up and the first cycle are left out. The mark is
  a summary half-way between two updates. (mlagents-learn counts whole trajectories only and
  overshoots its buffer by some of them, so its mark is the beginning of an update.)
- *collecting*: a run of its own whose buffer is larger than the run, so no update ever happens;
  agent-steps per second between two summaries, without the first third.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
SUMMARY = re.compile(r"\. Step: (\d+)\. Time Elapsed")
# peers/mlagents_learn.py writes this line.
UPDATED = re.compile(r"\[bench\] update at step (\d+)")
TIMEOUT_S = 900.0
ENDLESS = 1_000_000_000

Line = tuple[float, str]
"""A line of a trainer's output, and when it came."""
Mark = tuple[float, int]
"""A time and the trainer's step then."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """A trainer that takes mlagents-learn's command line."""

    name: str
    command: tuple[str, ...]
    python: Path
    device: str = "cpu"
    """Where it learns."""


def ppo_train(device: str = "cpu") -> Trainer:
    """Finds our own trainer beside the interpreter that runs this program."""
    python = Path(sys.executable)
    return Trainer("ppo-train", (str(python.parent / "ppo-train"),), python, device)


def mlagents_learn(venv: Path) -> Trainer:
    """Finds mlagents-learn in its own venv.

    Raises:
        SystemExit: the venv is not there.
    """
    python = REPOSITORY / venv / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is not there; benchmarks/make_peers.sh mlagents builds it.")
    script = REPOSITORY / "benchmarks" / "peers" / "mlagents_learn.py"
    return Trainer("mlagents-learn", (str(python), str(script)), python)


@dataclass(frozen=True, slots=True)
class Job:
    """What a trainer is given: an ML-Agents YAML, simulators, and the YAML's buffer size."""

    settings: Mapping[str, Any]
    environment: str
    """For --env."""
    num_envs: int
    num_areas: int
    buffer_size: int

    def changed(self, **changes: int) -> dict[str, Any]:
        """Gives the YAML with other values in its behaviour; buffer_size is a hyperparameter."""
        settings = copy.deepcopy(dict(self.settings))
        for behavior in settings["behaviors"].values():
            for key, value in changes.items():
                place = behavior["hyperparameters"] if key == "buffer_size" else behavior
                place[key] = value
        return settings


def end_to_end(trainer: Trainer, job: Job, cycles: int, cycles_per_mark: int = 1) -> float:
    """Trains and gives agent-steps per second over `cycles` cycles; takes up to a minute.

    Args:
        trainer: which.
        job: what it trains.
        cycles: measured ones, a multiple of `cycles_per_mark`.
        cycles_per_mark: an odd number; more where a cycle is short, for summaries cost time too.
    """
    summary_freq = cycles_per_mark * job.buffer_size // 2

    def marks(lines: Sequence[Line]) -> list[Mark]:
        if trainer.name == "mlagents-learn":
            return _find(UPDATED, lines)
        # Even ones fall together with an update, and may be before or behind it.
        return [mark for mark in _find(SUMMARY, lines) if mark[1] // summary_freq % 2]

    # The first mark is in the warm-up.
    last = 1 + cycles // cycles_per_mark
    settings = job.changed(max_steps=ENDLESS, summary_freq=summary_freq)
    lines = train(trainer, job, settings, until=lambda lines: len(marks(lines)) > last)
    return _rate(marks(lines)[1 : last + 1])


def collecting(trainer: Trainer, job: Job, steps: int) -> float:
    """Runs without an update and gives agent-steps per second; takes seconds."""
    settings = job.changed(buffer_size=2 * steps, max_steps=ENDLESS, summary_freq=steps // 12)

    def marks(lines: Sequence[Line]) -> list[Mark]:
        return [mark for mark in _find(SUMMARY, lines) if steps <= 3 * mark[1] <= 3 * steps]

    lines = train(trainer, job, settings, until=lambda lines: len(marks(lines)) >= 9)
    return _rate(marks(lines))


def free_port_range(length: int) -> int:
    """Finds `length` free consecutive ports; mlagents-learn cannot let the system choose."""
    for first in range(21000 + os.getpid() % 1000, 32000, 50):
        try:
            for port in range(first, first + length):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free range of ports between 21000 and 32000")


def train(
    trainer: Trainer,
    job: Job,
    settings: Mapping[str, Any],
    until: Callable[[Sequence[Line]], bool],
) -> list[Line]:
    """Trains in a folder that is deleted afterwards, and gives the output up to then.

    Args:
        trainer: which.
        job: where it simulates.
        settings: the YAML.
        until: says by the lines so far whether it is enough; the trainer is ended with SIGINT then.

    Raises:
        RuntimeError: the trainer ended before; the end of its output is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="ppo-train-bench-") as folder:
        path = Path(folder) / "settings.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return _run(command_line(trainer, path, job), folder, until)


def command_line(trainer: Trainer, settings: Path, job: Job) -> list[str]:
    """Writes the command that trains; its results lie beside the settings."""
    command = [*trainer.command, str(settings), "--env", job.environment, "--run-id", "run"]
    command += [
        "--results-dir",
        str(settings.parent),
        "--seed",
        "1",
        "--torch-device",
        trainer.device,
    ]
    command += ["--num-envs", str(job.num_envs), "--num-areas", str(job.num_areas)]
    command += ["--no-graphics"]
    if trainer.name == "mlagents-learn":
        command += ["--base-port", str(free_port_range(job.num_envs))]
    return command


def _run(
    command: Sequence[str], folder: str, until: Callable[[Sequence[Line]], bool]
) -> list[Line]:
    """Runs a command until its lines are enough; gives them, each with the time it came."""
    lines: list[Line] = []
    process = subprocess.Popen(
        command,
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    # A trainer that hangs without a word is ended too.
    alarm = threading.Timer(TIMEOUT_S, process.terminate)
    alarm.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic(), line.rstrip()))
            if until(lines):
                return lines
    finally:
        alarm.cancel()
        end(process)
    tail = "\n  ".join(line for _, line in lines[-30:])
    raise RuntimeError(
        f"{' '.join(command)} ended with exit code {process.returncode} before the benchmark had "
        f"what it needs:\n  {tail}"
    )


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a trainer as a user would, with SIGINT; waits up to a minute before it kills.

    Then whatever is left of its session is killed: mlagents-learn leaves its workers behind.
    """
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _find(pattern: re.Pattern[str], lines: Sequence[Line]) -> list[Mark]:
    """Finds a pattern's step in the lines and gives it with the time of its line."""
    return [(time_s, int(step)) for time_s, line in lines for step in pattern.findall(line)]


def _rate(marks: Sequence[Mark]) -> float:
    """Gives agent-steps per second between the first and the last mark.

    Raises:
        RuntimeError: there are not two marks.
    """
    if len(marks) < 2:
        raise RuntimeError(
            f"found {len(marks)} marks in the trainer's output where two or more were expected; "
            f"has the form of its summary line changed?"
        )
    (start_s, first), (end_s, last) = marks[0], marks[-1]
    return round((last - first) / (end_s - start_s), 1)
