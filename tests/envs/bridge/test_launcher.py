"""Command lines, logs and exit codes of simulator processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from queue import SimpleQueue

import pytest

from envs.bridge.launcher import (
    LaunchPlan,
    SimulatorProcess,
    arguments,
    environment,
    exit_words,
    log_path,
    log_tail,
)


def unity(*env_args: str, no_graphics: bool = False, monitor: bool = False) -> LaunchPlan:
    return LaunchPlan(
        command=("/builds/walker",),
        kind="unity",
        no_graphics=no_graphics,
        no_graphics_monitor=monitor,
        env_args=env_args,
    )


def test_unity_arguments_have_the_order_of_mlagents() -> None:
    found = arguments(
        unity("--level", "3", no_graphics=True), simulator=2, port=5007, log=Path("/r/Player-2.log")
    )
    assert found == [
        *["/builds/walker", "-nographics", "-batchmode", "--mlagents-port", "5007"],
        *["-logFile", "/r/Player-2.log", "--level", "3"],
    ]


def test_own_log_file_of_the_user_is_kept() -> None:
    launch = unity("-LogFile", "mine.txt")
    found = arguments(launch, simulator=0, port=1, log=Path("/r/Player-0.log"))
    assert found == ["/builds/walker", "--mlagents-port", "1", "-LogFile", "mine.txt"]
    assert log_path(launch, Path("/r"), 0) == Path("mine.txt")
    assert log_path(unity(), Path("/r"), 4) == Path("/r/Player-4.log")


@pytest.mark.parametrize(("simulator", "is_headless"), [(0, False), (1, True)])
def test_monitor_shows_the_window_of_the_first_simulator_only(
    simulator: int, is_headless: bool
) -> None:
    found = arguments(unity(monitor=True), simulator=simulator, port=1, log=Path("/l"))
    assert ("-nographics" in found) == is_headless


def test_gym_arguments_end_with_the_port() -> None:
    launch = LaunchPlan(command=("python", "-m", "envs.gym"), kind="gym")
    found = arguments(launch, simulator=0, port=9, log=Path("/l"))
    assert found == ["python", "-m", "envs.gym", "--mlagents-port", "9"]


@pytest.mark.parametrize(
    ("ours", "no_proxy"),
    [
        ({}, "localhost,127.0.0.1"),
        ({"NO_PROXY": "a.example"}, "a.example,localhost,127.0.0.1"),
        ({"no_proxy": "b.example", "no_grpc_proxy": ""}, "b.example,localhost,127.0.0.1"),
    ],
)
def test_no_proxy_is_extended(ours: dict[str, str], no_proxy: str) -> None:
    assert environment(ours) == {"no_proxy": no_proxy, "NO_PROXY": no_proxy}


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-11, "exit code -11, SIGSEGV"), (-9, "SIGKILL")],
)
def test_exit_code_names_its_signal(exit_code: int, words: str) -> None:
    assert words in exit_words(exit_code)


def test_log_tail_is_the_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {i}" for i in range(5000)) + "\n\n")
    assert log_tail(log).splitlines() == [f"line {i}" for i in range(4985, 5000)]
    assert log_tail(tmp_path / "none") == ""


def test_process_tells_its_exit_code_and_prints_into_the_log(tmp_path: Path) -> None:
    ended: SimpleQueue[int] = SimpleQueue()
    log = tmp_path / "log"
    code = "import os, sys; print(os.getpid(), os.getsid(0)); sys.exit(7)"
    process = SimulatorProcess([sys.executable, "-c", code], log, ended.put)
    assert ended.get(timeout=20) == 7
    assert not process.is_running
    # Its own session, so that Ctrl-C does not reach it, and the pid that we were told.
    assert log.read_text().split() == [str(process.pid)] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_kill_reaches_the_children_of_the_process(tmp_path: Path) -> None:
    ended: SimpleQueue[int] = SimpleQueue()
    log = tmp_path / "log"
    process = SimulatorProcess(
        ["/bin/sh", "-c", "sleep 1000 & echo child $!; wait"], log, ended.put
    )
    limit = time.monotonic() + 20
    while not (log_tail(log).startswith("child ") and log.read_text().endswith("\n")):
        assert time.monotonic() < limit
        time.sleep(0.01)  # a file of another process: nothing to wait on
    child = Path(f"/proc/{log.read_text().split()[1]}/stat")
    assert child.exists()
    process.kill()
    assert ended.get(timeout=20) == -9
    while child.exists() and child.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.kill()  # once more is no harm


def test_simulators_do_not_inherit_the_tokens() -> None:
    ours = {"PPO_TRAIN_TOKEN": "secret", "PPO_TRAIN_CONTROL_TOKEN": "secret", "HOME": "/home/me"}
    assert environment(ours).keys() == {"HOME", "no_proxy", "NO_PROXY"}
