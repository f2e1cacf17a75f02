"""The trainer's side of trackers: a process for each, which may fail without costing the run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from trainer.config.errors import ConfigError
from trainer.config.settings import TrackerSettings

END_WAIT_S = 30.0  # for what is left to send when the run is over
KILL_WAIT_S = 5.0


def chosen_trackers(settings: TrackerSettings) -> list[str]:
    """Gives the names of the trackers that are on, which are those of their packages.

    Raises:
        ConfigError: a package is not installed.
    """
    names = [name for name in TrackerSettings.model_fields if getattr(settings, name) is not None]
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            *(
                f"trackers.{name} is set, but the package {name} is not installed: pip install "
                f"'ppo-train[{name}]', or leave trackers.{name} out."
                for name in missing
            )
        )
    return names


class TrackerProcesses:
    """Starts, watches and ends the mirrors of a run; what fails is told once."""

    def __init__(self, settings: TrackerSettings, run: Path, warn: Callable[[str], None]) -> None:
        """Starts nothing yet.

        Args:
            settings: which trackers.
            run: the run's folder.
            warn: hears of a tracker that has failed.

        Raises:
            ConfigError: a package is not installed.
        """
        self._names = chosen_trackers(settings)
        self._run = run
        self._warn = warn
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts a process per tracker, as soon as the run's `events.jsonl` and settings exist."""
        for name in self._names:
            # -P: a folder named `trainer` where the run is started is none of ours.
            command = [sys.executable, "-P", "-m", "trainer.trackers.mirror", name, str(self._run)]
            try:
                with self._log(name).open("wb") as log:
                    self._running[name] = subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,  # its end tells that the trainer has ended
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C is for the trainer
                    )
            except OSError as error:
                self._tell(name, str(error))

    def look(self) -> None:
        """Tells of trackers that have failed since the last look."""
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                self._lose(name)

    def end(self) -> None:
        """Lets every tracker send what is left; waits for all of them together."""
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + END_WAIT_S
        for name, process in list(self._running.items()):
            try:
                exit_code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill(process)
                self._tell(name, f"it did not take everything within {END_WAIT_S:.0f} s")
                continue
            if exit_code:
                self._lose(name)
        self._running.clear()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _lose(self, name: str) -> None:
        process = self._running.pop(name)
        if process.stdin is not None:
            process.stdin.close()
        try:
            lines = self._log(name).read_text(errors="replace").split("\n")
        except OSError as error:
            lines = [str(error)]
        said = [line for line in lines if line.strip()]
        self._tell(name, said[-1] if said else f"its process ended with {process.returncode}")

    def _tell(self, name: str, why: str) -> None:
        self._warn(
            f"Tracker {name} has stopped: {why.strip()[:500]}. The run goes on, with all its "
            f"curves in TensorBoard and events.jsonl; {name} gets what it lacks after the next "
            f"--resume. Log: {self._log(name)}."
        )

    def _log(self, name: str) -> Path:
        return self._run / "run_logs" / f"tracker-{name}.log"
