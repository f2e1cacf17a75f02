"""Simulator processes: how they are started, watched and ended.

Each process lives in a session of its own, so that Ctrl-C reaches the trainer alone, and is tied to
the trainer's life where the operating system can do that (Linux).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, ENOENT
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Literal

from envs.errors import SimulatorDidNotStartError
from envs.tls import CONTROL_TOKEN_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECRETS = (TOKEN_VARIABLE, CONTROL_TOKEN_VARIABLE)
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 4000

# Asks Linux to kill this process when its parent dies, then becomes the simulator (same pid).
# Started as `python -c _TIE parent-pid program arguments...`.
_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the trainer ended while its simulator started")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """How simulators are started."""

    command: tuple[str, ...]  # program and arguments, without port and log
    kind: Literal["unity", "gym"]
    no_graphics: bool = False
    no_graphics_monitor: bool = False  # simulator 0 alone shows its window
    env_args: tuple[str, ...] = ()


def arguments(plan: LaunchPlan, *, simulator: int, port: int, log: Path) -> list[str]:
    """Gives the command line of one simulator, in the order of ML-Agents' own."""
    port_arguments = ["--mlagents-port", str(port)]
    if plan.kind == "gym":
        return [*plan.command, *plan.env_args, *port_arguments]
    is_headless = plan.no_graphics or (plan.no_graphics_monitor and simulator > 0)
    graphics = ["-nographics", "-batchmode"] if is_headless else []
    has_log = any(argument.lower() == "-logfile" for argument in plan.env_args)
    log_arguments = [] if has_log else ["-logFile", str(log.absolute())]
    return [*plan.command, *graphics, *port_arguments, *log_arguments, *plan.env_args]


def log_path(plan: LaunchPlan, logs_dir: Path, simulator: int) -> Path:
    """Gives the file that a simulator's log goes to."""
    names = [argument.lower() for argument in plan.env_args[:-1]]
    if plan.kind == "unity" and "-logfile" in names:
        return Path(plan.env_args[names.index("-logfile") + 1])
    return logs_dir / f"Player-{simulator}.log"


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Gives a simulator's environment: ours, but no proxy stands between it and the trainer.

    gRPC sends even what is for localhost through HTTP_PROXY, which no proxy passes on.
    """
    found = dict(ours)
    known = ours.get("no_proxy") or ours.get("NO_PROXY")
    found["no_proxy"] = ",".join([*([known] if known else []), "localhost", "127.0.0.1"])
    found["NO_PROXY"] = found["no_proxy"]
    found.pop("no_grpc_proxy", None)  # it would count instead of no_proxy
    for variable in SECRETS:  # simulators of this machine need none
        found.pop(variable, None)
    return found


class SimulatorProcess:
    """One running simulator.

    Args:
        command: program and arguments.
        log: what the process prints goes here; None drops it.
        ended: called with the exit code when the process is over, in a thread of its own.

    Raises:
        SimulatorDidNotStartError: the program cannot be executed.
    """

    def __init__(self, command: list[str], log: Path | None, ended: Callable[[int], None]) -> None:
        self._command = command
        self._log = log
        self._ended = ended
        self._is_over = Event()
        started: SimpleQueue[subprocess.Popen[bytes] | OSError] = SimpleQueue()
        # The tie to the parent's life is one to the parent's *thread*: the thread that starts the
        # process must not end before it, so the one that waits for its end also starts it.
        Thread(target=self._live, args=(started,), name="simulator", daemon=True).start()
        process = started.get()
        if isinstance(process, OSError):
            raise SimulatorDidNotStartError(_not_executable(command[0], process)) from process
        self._process = process
        self.pid = process.pid

    def _live(self, started: SimpleQueue[subprocess.Popen[bytes] | OSError]) -> None:
        command = self._command
        try:
            if shutil.which(command[0]) is None:
                is_there = Path(command[0]).exists()
                raise (
                    PermissionError(EACCES, os.strerror(EACCES))
                    if is_there
                    else (FileNotFoundError(ENOENT, os.strerror(ENOENT)))
                )
            if sys.platform == "linux":
                tie = [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid())]
                command = [*tie, *command]
            output = open(self._log, "ab") if self._log else None  # noqa: SIM115  # see finally
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output or subprocess.DEVNULL,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment(os.environ),
                )
            finally:
                if output:
                    output.close()
        except OSError as error:
            started.put(error)
            return
        started.put(process)
        exit_code = process.wait()
        self._is_over.set()
        self._ended(exit_code)

    @property
    def is_running(self) -> bool:
        """Whether the process still lives."""
        return not self._is_over.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Waits up to `timeout_s` for the end of the process; tells whether it has ended."""
        return self._is_over.wait(timeout_s)

    def kill(self) -> None:
        """Ends the process and its children at once; no harm when it has ended."""
        if not self.is_running:
            return
        with suppress(ProcessLookupError):  # it may end between the line above and this one
            if os.name == "posix":
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self._process.kill()


def _not_executable(program: str, error: OSError) -> str:
    advice = "Check the path after --env."
    if isinstance(error, PermissionError):
        advice = f"Make it executable: chmod -R 755 {program}"
    return f"{program} cannot be started: {error.strerror or error}. {advice}"


def exit_words(exit_code: int) -> str:
    """Says an exit code in words, with the name of the signal that ended the process."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"exit code {exit_code}, {name}"


def log_tail(log: Path) -> str:
    """Gives the last lines of a log, "" when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-LOG_TAIL_LINES:])
