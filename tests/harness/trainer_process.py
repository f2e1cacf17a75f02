"""Runs `ppo-train` as a user does: its own process, real simulators, a folder for the results."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[2]
PPO_TRAIN = str(Path(sys.executable).parent / "ppo-train")
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the venv is active
PATIENCE_S = 200.0  # for anything that a trainer on a busy machine may take
MARK = "PPO_TRAIN_TEST"  # environment variable that a trainer and all its children have

# Section 1.6 of the reference on ML-Agents' tests.
TINY_BEHAVIOR: Mapping[str, Any] = {
    "trainer_type": "ppo",
    "hyperparameters": {
        "batch_size": 16,
        "buffer_size": 64,
        "learning_rate": 5.0e-3,
        "learning_rate_schedule": "constant",
        "beta_schedule": "linear",
        "epsilon_schedule": "linear",
    },
    "network_settings": {"num_layers": 1, "hidden_units": 32},
    "max_steps": 3000,
    "summary_freq": 500,
    "time_horizon": 64,
}


def tiny_build(folder: Path, *arguments: str, program: str = "envs.testing.tiny") -> Path:
    """Writes an executable that runs a small simulator, as a Unity build would lie on disk."""
    path = folder / f"{program.rpartition('.')[2]}.x86_64"
    command = shlex.join([sys.executable, "-m", program, *arguments])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return path


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Gives settings with other values; keys of inner mappings are joined with dots."""
    result = copy.deepcopy(dict(settings))
    for path, value in changes.items():
        *outer, key = path.split(".")
        place = result
        for name in outer:
            place = place.setdefault(name, {})
        place[key] = value
    return result


def write_yaml(path: Path, settings: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def tiny_yaml(folder: Path, name: str = "1D", **changes: Any) -> Path:
    """Writes the settings of the tiny game; double underscores stand for dots."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    behaviors = {name: changed(TINY_BEHAVIOR, dotted)}
    return write_yaml(folder / "settings.yaml", {"behaviors": behaviors})


class Trainer:
    """A `ppo-train` that runs; its output is read as it comes. A context manager."""

    def __init__(self, *words: object, cwd: Path) -> None:
        self.mark = uuid.uuid4().hex
        self._lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [PPO_TRAIN, *map(str, words)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": PATH, "PYTHONUNBUFFERED": "1", MARK: self.mark},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._lines.append("")
            self._news.notify_all()

    @property
    def output(self) -> str:
        """Everything that was printed so far."""
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Waits until the output has this pattern in it."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                text = "".join(self._lines)
                found = re.search(pattern, text, re.MULTILINE)
                if found:
                    return found
                is_over = bool(self._lines) and self._lines[-1] == ""
                left = deadline - time.monotonic()
                assert not is_over and left > 0, f"{pattern!r} is not in\n{text}"
                self._news.wait(left)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Waits for the end and gives the exit code; proves that no process is left behind."""
        code = self.process.wait(patience_s)
        self._reader.join(PATIENCE_S)
        # A simulator whose trainer was killed gets its own end from the kernel, moments later.
        deadline = time.monotonic() + 10
        while (left := self.relatives()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"processes {left} are left behind\n{self.output}"
        return code

    def relatives(self) -> list[int]:
        """Gives all living processes that this trainer has started, directly or not."""
        needle = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                is_one = needle in (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or is another user's
                continue
            if is_one:
                found.append(int(entry.name))
        return sorted(found)

    def simulators(self) -> list[int]:
        """Gives the pids of the processes that talk to the trainer."""
        found = []
        for pid in self.relatives():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"--mlagents-port" in words and b"-S" not in words:  # -S: still the launcher's shim
                found.append(pid)
        return found

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()


def ppo_train(*words: object, cwd: Path, exit_code: int = 0, patience_s: float = PATIENCE_S) -> str:
    """Runs a command to its end and gives its output."""
    with Trainer(*words, cwd=cwd) as trainer:
        found = trainer.wait(patience_s)
    assert found == exit_code, f"exit code {found}, expected {exit_code}\n{trainer.output}"
    return trainer.output


def weights(run: Path, behavior: str, step: int | None = None) -> dict[str, torch.Tensor]:
    """Gives the policy's tensors of a checkpoint, the newest if no step is given."""
    state = checkpoint(run, behavior, step)
    policy = state["policy"]
    assert isinstance(policy, dict)
    return policy


def checkpoint(run: Path, behavior: str, step: int | None = None) -> dict[str, Any]:
    """Gives the state in a checkpoint's file."""
    name = "checkpoint.pt" if step is None else f"{behavior}-{step}.pt"
    document = torch.load(run / behavior / name, weights_only=True)
    state = document["state"]
    assert isinstance(state, dict)
    return state


def event_steps(folder: Path, tag: str = "Policy/Learning Rate") -> list[int]:
    """Gives the steps at which TensorBoard shows a point, in the order it shows them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [point.step for point in events.Scalars(tag)]


def run_events(run: Path) -> list[dict[str, Any]]:
    """Gives the lines of a run's log of events; every line has to be complete."""
    text = (run / "run_logs" / "events.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def tree(run: Path) -> set[str]:
    """Gives the files of a run, without what makes TensorBoard's names unique."""
    return {
        re.sub(r"tfevents\..*", "tfevents", path.relative_to(run).as_posix())
        for path in run.rglob("*")
        if path.is_file() and "eval" not in path.parts  # that is of tests of another verb
    }


def tree_of(
    behavior: str, steps: Iterable[int], num_simulators: int, *, has_best: bool = True
) -> set[str]:
    """Gives the files that a run of one behaviour has to leave, as `tree` names them.

    `has_best`: whether enough episodes had ended for one checkpoint to be the best.
    """
    suffixes = (".pt", ".onnx", ".onnx.json")
    checkpoints = {f"{behavior}-{step}{suffix}" for step in steps for suffix in suffixes}
    names = {"manifest.json", "checkpoint.pt", "events.out.tfevents"}
    own = checkpoints | names | ({"best.pt", "best.onnx"} if has_best else set())
    files = ("events.jsonl", "timers.json", "training_status.json")
    logs = {f"Player-{i}.{suffix}" for i in range(num_simulators) for suffix in ("log", "out")}
    return {
        f"{behavior}.onnx",
        "configuration.yaml",
        *(f"{behavior}/{name}" for name in own),
        *(f"run_logs/{name}" for name in {*files, *logs}),
    }
