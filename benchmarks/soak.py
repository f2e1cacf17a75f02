"""A long run with simulators that never stop to misbehave, beside good ones: what leaks?

    python -m benchmarks.soak [--minutes 30]

Of eight simulators three are good; the others crash, hang, send garbage, send NaN and change their
spec, are started again, and do it again. The trainer is looked at from outside: resident memory,
open files, threads, child processes, and by its own endpoint steps and restarts. Then it gets
SIGTERM. No process may be left, and the last checkpoint has to go on. The first 20 % of the time do
not count for slopes: buffers and the network's own memory are still growing there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import machine, report
from benchmarks.memory import FLAT_MB_PER_HOUR, WARM_UP, resident_mb
from benchmarks.trainers import ENDLESS, ppo_train
from trainer.control_client import read_address

GOOD = ("terminal-with-decision",) * 3
BAD = ("crash-mid-episode", "silent", "garbage", "nan-episodes", "other-shape")
EPISODE_STEPS = 50
AT_LEAST, AT_MOST = 50, 500  # env_steps between start and misbehaviour; drawn at every start
SILENCE_S = 5
RUN_ID = "soak"
MARK = "PPO_TRAIN_SOAK"  # environment variable that the trainer and all its children have
START_WAIT_S = 120.0
END_WAIT_S = 120.0
RESUMED_STEPS = 5_000
# A leak of one per crash would be hundreds; this much is what comes and goes.
MOST_RISE = 4.0
SETTINGS: Mapping[str, object] = {
    "behaviors": {
        "Scripted": {
            "trainer_type": "ppo",
            "hyperparameters": {"batch_size": 256, "buffer_size": 2048},
            "network_settings": {"normalize": True, "hidden_units": 32, "num_layers": 1},
            "reward_signals": {"extrinsic": {"normalize": True}},
            "keep_checkpoints": 3,
            "max_steps": ENDLESS,
            "summary_freq": 2_000,
        }
    },
    "env_settings": {
        "timeout_wait": SILENCE_S,
        "max_lifetime_restarts": -1,
        "restarts_rate_limit_n": -1,
        "restart_delay_s": 0,
    },
    "checkpoint_settings": {"checkpoint_interval_s": 20, "run_id": RUN_ID},
}


@dataclass
class Samples:
    """What was seen of the trainer, a value per sample."""

    minutes: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, minutes: float, seen: Mapping[str, float]) -> None:
        """Takes one sample."""
        self.minutes.append(minutes)
        for name, value in seen.items():
            self.values.setdefault(name, []).append(value)

    def settled(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Gives minutes and values without the warm-up."""
        minutes, values = np.array(self.minutes), np.array(self.values[name])
        late = minutes >= WARM_UP * minutes[-1]
        return minutes[late], values[late]

    def slope_per_hour(self, name: str) -> float:
        """Fits a straight line behind the warm-up."""
        return float(np.polyfit(*self.settled(name), deg=1)[0]) * 60.0

    def rise(self, name: str) -> float:
        """Gives by how much that line rises from its beginning to its end."""
        minutes, _ = self.settled(name)
        return self.slope_per_hour(name) * float(minutes[-1] - minutes[0]) / 60.0

    def rate(self, name: str, first: float, last: float) -> float:
        """Gives how fast a counter grew per second, between two shares of the time."""
        begin = round(first * (len(self.minutes) - 1))
        end = round(last * (len(self.minutes) - 1))
        values = self.values[name]
        return (values[end] - values[begin]) / (60.0 * (self.minutes[end] - self.minutes[begin]))

    def figures(self, name: str) -> dict[str, float]:
        """Gives start, end, largest and slope of a quantity."""
        _, values = self.settled(name)
        return {
            "start": round(float(values[0]), 1),
            "end": round(float(values[-1]), 1),
            "max": round(float(values.max()), 1),
            "slope_per_hour": round(self.slope_per_hour(name), 2),
        }


def write_simulator(path: Path) -> None:
    """Writes an executable that is another simulator by its number, and at every start."""
    cases = "\n".join(
        f"  *Player-{i}.log*) script={script}; at={EPISODE_STEPS if i < len(GOOD) else '$drawn'};;"
        for i, script in enumerate((*GOOD, *BAD))
    )
    command = shlex.join([sys.executable, "-m", "envs.testing.scripted"])
    path.write_text(
        f"#!/bin/sh\ndrawn=$(( $$ * 7919 % {AT_MOST - AT_LEAST} + {AT_LEAST} ))\n"
        f'case "$*" in\n{cases}\nesac\nexec {command} --script $script --at $at "$@"\n'
    )
    path.chmod(0o755)


def look_at(pid: int) -> dict[str, float]:
    """Gives what a process has: resident memory in MB, open files, threads, children."""
    status = Path(f"/proc/{pid}/status").read_text()
    (threads,) = [line for line in status.splitlines() if line.startswith("Threads:")]
    return {
        "resident_mb": resident_mb(pid),
        "open_files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(threads.split()[1]),
        "children": sum(parent == pid for parent in _parents()),
    }


def _parents() -> Iterator[int]:
    """Yields the parent of every process, of those that nobody has waited for too."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:  # it has just ended
                continue
            yield int(text.rpartition(")")[2].split()[1])


def counters(logs: Path) -> dict[str, float]:
    """Asks the run's endpoint for steps and restarts.

    Raises:
        RuntimeError: it does not answer.
    """
    address = read_address(logs / "control.json")
    try:
        if address is None:
            raise OSError("there is no control.json")
        _, body = address.request("GET", "/metrics", timeout_s=30)
    except (OSError, HTTPException) as error:
        raise RuntimeError(f"the run in {logs.parent} does not answer: {error}") from error
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    return {
        "steps": found["ppo_train_steps_total"],
        "restarts": found["ppo_train_simulator_restarts_total"],
    }


def relatives(mark: str) -> list[int]:
    """Gives the living processes that have the mark."""
    needle, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def soak(folder: Path, minutes: float, sample_s: float) -> tuple[Samples, dict[str, object]]:
    """Runs, samples, ends and resumes; gives the samples, and how it ended.

    Raises:
        RuntimeError: the run ended by itself, left processes behind, or cannot be resumed.
    """
    simulator = folder / "soak.x86_64"
    write_simulator(simulator)
    (folder / "settings.yaml").write_text(yaml.safe_dump(dict(SETTINGS)))
    num_envs = len(GOOD) + len(BAD)
    words = ["settings.yaml", "--env", str(simulator), "--num-envs", str(num_envs), "--control"]
    mark = uuid.uuid4().hex
    logs = folder / "results" / RUN_ID / "run_logs"
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*ppo_train().command, *words],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, MARK: mark},
        )
        try:
            samples = _sample(process, logs, 60.0 * minutes, sample_s)
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(END_WAIT_S)
        except (RuntimeError, OSError, KeyError) as error:
            tail = "\n  ".join((folder / "output.txt").read_text().splitlines()[-30:])
            raise RuntimeError(f"{error}\n  {tail}") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    left = _left_after(mark)
    ended: dict[str, object] = {"exit_code": exit_code, "processes_left": len(left)}
    if exit_code != 128 + signal.SIGTERM or left:
        raise RuntimeError(f"after SIGTERM: exit code {exit_code}, processes {left} are left")
    return samples, {**ended, "resumed_from": _resume(folder, simulator)}


def _left_after(mark: str) -> list[int]:
    """Gives the processes that are left some seconds later; the kernel ends orphans too."""
    deadline = time.monotonic() + 10.0
    while (left := relatives(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _sample(
    process: subprocess.Popen[bytes], logs: Path, duration_s: float, sample_s: float
) -> Samples:
    started_s = time.monotonic()
    while True:  # until the run has its first progress to tell
        try:
            counters(logs)
            break
        except (RuntimeError, KeyError):
            if process.poll() is not None or time.monotonic() - started_s > START_WAIT_S:
                raise
            time.sleep(0.2)
    samples, started_s = Samples(), time.monotonic()
    while (passed_s := time.monotonic() - started_s) < duration_s:
        if process.poll() is not None:
            raise RuntimeError(f"the trainer ended after {passed_s:.0f} s by itself")
        samples.add(passed_s / 60.0, {**look_at(process.pid), **counters(logs)})
        time.sleep(sample_s)
    return samples


def _resume(folder: Path, simulator: Path) -> int:
    """Goes on from the last checkpoint to its end; gives the step it went on from."""
    manifest = yaml.safe_load(
        (folder / "results" / RUN_ID / "Scripted" / "manifest.json").read_text()
    )
    step = int(manifest["checkpoints"][-1]["step"])
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    settings["behaviors"]["Scripted"]["max_steps"] = step + RESUMED_STEPS
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    words = ["settings.yaml", "--env", str(simulator), "--num-envs", str(len(GOOD)), "--resume"]
    done = subprocess.run(
        [*ppo_train().command, *words], cwd=folder, capture_output=True, text=True, timeout=600
    )
    if done.returncode or f"Resuming training from step {step}." not in done.stdout + done.stderr:
        raise RuntimeError(f"the last checkpoint does not go on:\n{done.stdout}{done.stderr}")
    return step


def table_rows(samples: Samples) -> list[report.TableRow]:
    """Writes the lines: memory, then what must not pile up."""
    slope = samples.slope_per_hour("resident_mb")
    restarts = samples.values["restarts"][-1]
    work = f"{samples.minutes[-1]:.0f} minutes with {restarts:,.0f} restarts of bad simulators"
    rows = [
        report.TableRow(
            work=f"{work}: growth of memory",
            ours=f"{slope:+.1f} MB per hour, {max(samples.values['resident_mb']):,.0f} MB at most",
            peer="",
            ratio=None,
            must="flat",
            met=slope < FLAT_MB_PER_HOUR,
        )
    ]
    for name in ("open_files", "threads", "children"):
        seen = samples.figures(name)
        rows.append(
            report.TableRow(
                work=f"the same: {name.replace('_', ' ')}",
                ours=f"{seen['start']:.0f} to {seen['end']:.0f}, {seen['max']:.0f} at most",
                peer="",
                ratio=None,
                must="flat",
                met=samples.rise(name) < MOST_RISE,
            )
        )
    return rows


def main() -> None:
    """Soaks and publishes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sample-s", type=float, default=5.0)
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="ppo-train-soak-") as folder:
        samples, ended = soak(Path(folder), options.minutes, options.sample_s)
    names = ("resident_mb", "open_files", "threads", "children")
    figures: dict[str, object] = {name: samples.figures(name) for name in names}
    figures["steps_per_s"] = {
        "start": round(samples.rate("steps", WARM_UP, 0.5), 1),
        "end": round(samples.rate("steps", 0.7, 1.0), 1),
    }
    figures["restarts"] = samples.values["restarts"][-1]
    for name, seen in {**figures, **ended}.items():
        print(name, seen, flush=True)
    stride = max(1, len(samples.minutes) // 60)
    series = {name: values[::stride] for name, values in samples.values.items()}
    raw = {**figures, **ended, "minutes": samples.minutes[::stride], "series": series}
    report.publish("soak", about, table_rows(samples), raw, options.results)


if __name__ == "__main__":
    main()
