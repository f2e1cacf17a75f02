"""kill -9 at random moments of a whole run, start after start with the same command line.

A process of the test's own imports everything once and forks for every start; the simulators are
processes as ever. Half of the kills hit while a file is being written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from trainer_process import PATH, event_steps, tiny_build, tiny_yaml

from trainer.checkpoint import CheckpointStore

STARTER = """
import json, os, sys
import torch
torch.set_num_threads(1)
import trainer.behavior, trainer.run
from trainer.cli.main import main

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        with open("output", "a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        code = main(json.loads(line))
        sys.stdout.flush()
        os._exit(code)
    os.write(1, b"%d\\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(status))
"""
WORDS = ["settings.yaml", "--env", "tiny.x86_64", "--run-id", "run", "--resume-or-start"]
SUMMARY, INTERVAL = 100, 128
PATIENCE_S = 120.0


@dataclass
class Starter:
    """Starts runs in a folder, one at a time."""

    cwd: Path
    say: IO[str]
    hear: IO[str]
    pid: int | None = None  # of the run that goes on

    def start(self) -> int:
        """Gives the pid of a run that goes on, or begins."""
        self.say.write(json.dumps(WORDS) + "\n")
        self.say.flush()
        self.pid = int(self.hear.readline())
        return self.pid

    def wait(self) -> int:
        """Gives the exit code of the run; minus the signal that killed it."""
        code = int(self.hear.readline())
        self.pid = None
        return code


@contextmanager
def starter(cwd: Path) -> Iterator[Starter]:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": PATH, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        runs = Starter(cwd, process.stdin, process.stdout)
        try:
            yield runs
        finally:
            if runs.pid is not None:  # the test has failed
                os.kill(runs.pid, signal.SIGKILL)
            process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def told_checkpoints(run: Path) -> list[int]:
    """Gives the steps of checkpoints that the run has said are there; the last line may be torn."""
    path = run / "run_logs" / "events.jsonl"
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0].splitlines()
    events = [json.loads(line) for line in whole]
    return [event["step"] for event in events if event["event"] == "checkpoint"]


def wait_for_checkpoint(run: Path, more_than: int, chance: random.Random) -> None:
    """Waits until the run has saved something, then for a random moment."""
    deadline = time.monotonic() + PATIENCE_S
    while len(told_checkpoints(run)) <= more_than:
        assert time.monotonic() < deadline, (run.parent.parent / "output").read_text()
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.3))


def wait_for_writer(run: Path) -> None:
    """Waits until a file is half written; some are not seen in time, hence the limit."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        for folder in (run, run / "1D", run / "run_logs"):
            if any(folder.glob(".*.partial")):
                return


@pytest.mark.parametrize(
    "num_kills",
    [8, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_at_any_moment_loses_no_checkpoint_and_no_point_of_a_curve(
    tmp_path: Path, num_kills: int
) -> None:
    chance = random.Random(num_kills)
    tiny_build(tmp_path)
    changes: dict[str, Any] = {"summary_freq": SUMMARY, "checkpoint_interval": INTERVAL}
    changes["keep_checkpoints"] = 2
    tiny_yaml(tmp_path, max_steps=10_000_000, **changes)
    run = tmp_path / "results" / "run"
    store = CheckpointStore(run / "1D", 2)
    reached, while_writing = 0, 0
    with starter(tmp_path) as runs:
        for number in range(num_kills):
            told = len(told_checkpoints(run))
            pid = runs.start()
            if number % 4 == 3:  # also while it is only beginning
                time.sleep(chance.uniform(0, 1.5))
            else:
                wait_for_checkpoint(run, told, chance)
            if number % 2:
                wait_for_writer(run)
            os.kill(pid, signal.SIGKILL)
            assert runs.wait() == -signal.SIGKILL
            while_writing += any(run.rglob(".*.partial"))
            if not store.checkpoints:
                continue
            state, saved = store.load()
            assert state["step"] == saved.step
            # It is the one that was told last, or the one after that.
            assert saved.step >= max(told_checkpoints(run), default=0)
            assert saved.step >= reached, "something was lost that had been there"
            reached = saved.step
        end = reached + 3 * SUMMARY
        tiny_yaml(tmp_path, max_steps=end, **changes)  # a change that is safe
        runs.start()
        assert runs.wait() == 0, (tmp_path / "output").read_text()
    assert reached > 0
    assert while_writing > 0
    assert event_steps(run / "1D") == list(range(SUMMARY, end + 1, SUMMARY))
    assert store.load()[1].step >= end
    assert not list(run.rglob(".*.partial"))
    assert f"behaviors.1D.max_steps: 10000000 -> {end}" in (tmp_path / "output").read_text()
