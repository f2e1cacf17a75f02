"""Looks at this machine: whether a run can start here, and what to do where it cannot.

Each question is a function that answers with a `Finding`; none of them changes anything, but for a
simulator that is started and ended again. Libraries are imported where they are asked for: one that
is broken must not keep the others from being looked at.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from envs.errors import SimulatorError
from trainer.config.settings import EDITOR_PORT, TorchSettings
from trainer.machine import num_cores

if TYPE_CHECKING:
    from envs.fleet import FleetPlan

OLDEST_PYTHON = (3, 11)
STEPS_WITH_SIMULATOR = 50
START_WAIT_S = 60.0
GIGABYTE = 1e9
LITTLE_DISK_GB = 5.0  # a night of checkpoints and event files
TOO_LITTLE_DISK_GB = 0.5
# What pyproject.toml asks for.
NEEDED = (
    "torch",
    "mlagents-envs",
    "hpack",
    "protobuf",
    "numpy",
    "pyyaml",
    "pydantic",
    "tensorboard",
    "onnx",
    "onnxruntime",
    "pillow",
    "prometheus-client",
    "rich",
)
TINY = (sys.executable, "-m", "envs.testing.tiny")
IN_PROCESS_ENV = "CartPole-v1"  # which Gymnasium itself brings
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Verdict(Enum):
    """How grave a finding is."""

    GOOD = "ok"
    WARNING = "warning"  # some runs will not work
    FAILURE = "failure"  # no run will work


@dataclass(frozen=True)
class Finding:
    """The answer to one question."""

    subject: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(results_dir: Path) -> Iterator[Finding]:
    """Asks all questions, the quick ones first. Slow: imports torch and starts a simulator."""
    yield python(sys.version_info[:3])
    yield from packages()
    yield device()
    yield cores()
    yield disk(results_dir)
    yield display(sys.platform, os.environ)
    yield proxy(os.environ)
    yield editor_port(EDITOR_PORT)
    yield ml_agents()
    yield simulator(TINY)
    if installed("gymnasium") is not None:
        yield in_process()


def python(running: Sequence[int]) -> Finding:
    """Asks for the version of Python."""
    found = f"{'.'.join(map(str, running))} at {sys.executable}, {platform.platform()}"
    if tuple(running[:2]) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        advice = f"Install Python {oldest} or newer and make a new environment with it."
        return Finding("Python", Verdict.FAILURE, found, advice)
    return Finding("Python", Verdict.GOOD, found)


def packages() -> Iterator[Finding]:
    """Asks for the libraries; those of extras may be missing."""
    versions = {name: installed(name) for name in (*NEEDED, "gymnasium", "mujoco")}
    missing = [name for name in NEEDED if versions[name] is None]
    found = ", ".join(f"{name} {versions[name]}" for name in NEEDED if versions[name])
    if missing:
        advice = f"Install what is missing ({', '.join(missing)}): pip install --upgrade ppo-train"
        yield Finding("Libraries", Verdict.FAILURE, found or "none", advice)
    else:
        yield Finding("Libraries", Verdict.GOOD, found)
    if versions["gymnasium"] is None:
        advice = "For --env gym:...: pip install 'ppo-train[mujoco]'. Unity needs none of it."
        yield Finding("Gymnasium", Verdict.WARNING, "not installed", advice)
    else:
        mujoco = f", mujoco {versions['mujoco']}" if versions["mujoco"] else ", without mujoco"
        yield Finding("Gymnasium", Verdict.GOOD, f"{versions['gymnasium']}{mujoco}")


def installed(name: str) -> str | None:
    """Gives a package's version, None when it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device() -> Finding:
    """Asks PyTorch which device a run would learn on."""
    try:
        import torch

        from trainer.device import choose_device

        chosen = choose_device(TorchSettings())
        name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "no GPU is used"
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        advice = "Install torch again: https://pytorch.org/get-started/locally"
        return Finding("PyTorch", Verdict.FAILURE, f"cannot be used: {reason}", advice)
    return Finding("PyTorch", Verdict.GOOD, f"{torch.__version__} learns on {chosen} ({name})")


def cores() -> Finding:
    """Asks how many processor cores this process may use."""
    count = num_cores()
    if count < 2:
        advice = "Trainer and simulators share it: every run is slow here."
        return Finding(
            "Processor", Verdict.WARNING, "1 core" if count == 1 else f"{count:g} cores", advice
        )
    return Finding("Processor", Verdict.GOOD, f"{count:g} cores")


def disk(results_dir: Path) -> Finding:
    """Asks whether runs can be stored."""
    folder = results_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        free_gb = shutil.disk_usage(folder).free / GIGABYTE
    except OSError as error:
        advice = "Choose another folder with --results-dir, or allow writing there."
        found = f"{folder} cannot be written: {error.strerror}"
        return Finding("Disk", Verdict.FAILURE, found, advice)
    found = f"{free_gb:.1f} GB free for {results_dir}"
    if free_gb < TOO_LITTLE_DISK_GB:
        return Finding("Disk", Verdict.FAILURE, found, "Make room: checkpoints would not fit.")
    if free_gb < LITTLE_DISK_GB:
        advice = "Make room before a long run, or lower keep_checkpoints."
        return Finding("Disk", Verdict.WARNING, found, advice)
    return Finding("Disk", Verdict.GOOD, found)


def display(system: str, variables: Mapping[str, str]) -> Finding:
    """Asks whether a Unity build could open a window."""
    if system in ("win32", "darwin"):
        return Finding("Display", Verdict.GOOD, "the desktop's")
    name = next((name for name in ("DISPLAY", "WAYLAND_DISPLAY") if variables.get(name)), None)
    if name is None:
        advice = (
            "Start Unity builds with --no-graphics; builds with cameras need a display, such as "
            "Xvfb's: xvfb-run ppo-train ..."
        )
        return Finding("Display", Verdict.WARNING, "none", advice)
    return Finding("Display", Verdict.GOOD, f"{name}={variables[name]}")


def proxy(variables: Mapping[str, str]) -> Finding:
    """Asks whether a proxy may stand between the Editor and the trainer."""
    names = [name for name in PROXIES if variables.get(name)]
    if names:
        advice = (
            "Builds are started without it. The Unity Editor must not have it either: its gRPC "
            "sends even localhost through a proxy."
        )
        return Finding("Proxy", Verdict.WARNING, f"{', '.join(names)} set", advice)
    return Finding("Proxy", Verdict.GOOD, "none")


def editor_port(port: int) -> Finding:
    """Asks whether the Editor's port is free."""
    try:
        from envs.bridge.event_loop import EventLoop
        from envs.bridge.server import SimulatorServer

        loop: EventLoop[object] = EventLoop()
        SimulatorServer(port, loop, loop.put).close()
        loop.close()
    except ImportError as error:
        return broken("Editor's port", error)
    except SimulatorError as error:
        advice = "End that program, or choose --base-port and the same port in Unity."
        found = str(error).partition(";")[0]
        return Finding("Editor's port", Verdict.WARNING, found, advice)
    return Finding("Editor's port", Verdict.GOOD, f"{port} is free")


def ml_agents() -> Finding:
    """Asks whether ML-Agents' own trainer is in this Python too."""
    found = installed("mlagents")
    if found is None:
        return Finding("ML-Agents", Verdict.GOOD, "mlagents is not installed here, nor needed")
    return Finding(
        "ML-Agents",
        Verdict.WARNING,
        f"mlagents {found} is installed here, and mlagents-learn is its command",
        "It wants old versions of libraries that this program needs newer: give each its own "
        "environment.",
    )


def simulator(command: tuple[str, ...], wait_s: float = START_WAIT_S) -> Finding:
    """Starts a small simulator as a run would, and plays some steps with it over gRPC."""
    with tempfile.TemporaryDirectory(prefix="ppo-train-doctor-") as folder:
        try:
            first_s, step_s = play(command, wait_s, Path(folder))
        except ImportError as error:
            return broken("Simulator", error)
        except (SimulatorError, OSError) as error:
            advice = (
                "Something keeps processes on this machine from talking over 127.0.0.1: look at "
                "firewalls, sandboxes and proxies."
            )
            return Finding("Simulator", Verdict.FAILURE, str(error), advice)
    found = (
        f"a small one was started and reached over gRPC in {first_s:.1f} s, "
        f"{step_s * 1000:.1f} ms for a step"
    )
    return Finding("Simulator", Verdict.GOOD, found)


def in_process() -> Finding:
    """Plays some steps in this process, as `num_envs: 0` does."""
    try:
        from envs.fleet import FleetPlan
        from envs.in_process.copies import InProcessPlan

        plan = FleetPlan(launch=None, in_process=InProcessPlan(env=IN_PROCESS_ENV))
        _, step_s = play_plan(plan)
    except ImportError as error:
        return broken("In process", error)
    except SimulatorError as error:
        advice = "Gymnasium environments still run in simulator processes: --num-envs 1."
        return Finding("In process", Verdict.WARNING, str(error), advice)
    found = f"{IN_PROCESS_ENV} takes {step_s * 1000:.2f} ms for a step with --num-envs 0"
    return Finding("In process", Verdict.GOOD, found)


def broken(subject: str, error: ImportError) -> Finding:
    """Says that a library is there, but cannot be used."""
    advice = "Install the libraries again: pip install --upgrade --force-reinstall ppo-train"
    reason = str(error).partition("\n")[0]
    return Finding(subject, Verdict.FAILURE, f"cannot be looked at: {reason}", advice)


def play(command: tuple[str, ...], wait_s: float, logs_dir: Path) -> tuple[float, float]:
    """Plays some steps with zero actions; gives the seconds to the first one, and of one.

    Raises:
        SimulatorError: the simulator was lost.
    """
    from envs.fleet import FleetPlan, LaunchPlan

    launch = LaunchPlan(command=command, kind="gym")
    return play_plan(FleetPlan(launch=launch, timeout_wait_s=wait_s, logs_dir=logs_dir))


def play_plan(plan: FleetPlan) -> tuple[float, float]:
    """Does what `play` does, with any kind of simulators."""
    from envs.fleet import SimulatorLoss
    from envs.registry import open_simulators

    started = time.perf_counter()
    first = started
    with open_simulators(plan) as fleet:
        for step in range(STEPS_WITH_SIMULATOR):
            for item in fleet.recv():
                if isinstance(item, SimulatorLoss):
                    raise item.error
                fleet.send(item.simulator, {})
            if step == 0:
                first = time.perf_counter()
        played = time.perf_counter() - first
    return first - started, played / (STEPS_WITH_SIMULATOR - 1)
