"""How a fleet starts programs: arguments, ports, logs, and those that cannot be started."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_of_processes import Trainer, fake_build, plan, scripted

from envs.errors import (
    SimulatorDidNotStartError,
)
from envs.fleet import Fleet, LaunchPlan


def test_program_that_cannot_be_executed_is_told_at_once(tmp_path: Path) -> None:
    nothing = LaunchPlan(command=(str(tmp_path / "nothing"),), kind="unity")
    with pytest.raises(SimulatorDidNotStartError, match="No such file"):
        Fleet(plan(nothing, tmp_path)).start()
    (tmp_path / "build.x86_64").write_text("#!/bin/sh\n")
    locked = LaunchPlan(command=(str(tmp_path / "build.x86_64"),), kind="unity")
    with pytest.raises(SimulatorDidNotStartError, match="chmod -R 755"):
        Fleet(plan(locked, tmp_path)).start()


def test_unity_build_gets_mlagents_arguments_and_plays(tmp_path: Path) -> None:
    launch = LaunchPlan(
        command=(str(fake_build(tmp_path)),),
        kind="unity",
        no_graphics=True,
        env_args=("--level", "2"),
    )
    with Fleet(plan(launch, tmp_path / "logs")) as fleet:
        Trainer(fleet).run_until(num_messages=3)
        expected = ["-nographics", "-batchmode", "--mlagents-port", str(fleet.ports[0])]
        log = tmp_path / "logs" / "Player-0.log"
    found = (tmp_path / "arguments").read_text().split()
    assert found == [*expected, "-logFile", str(log), "--level", "2"]
    assert "graphics device" in (tmp_path / "logs" / "Player-0.out").read_text()


def test_unity_build_that_cannot_run_tells_what_it_printed(tmp_path: Path) -> None:
    build = tmp_path / "Walker.x86_64"
    build.write_text("#!/bin/sh\necho libGL.so.1 is missing >&2\nexit 127\n")
    build.chmod(0o755)
    launch = LaunchPlan(command=(str(build),), kind="unity")
    with Fleet(plan(launch, tmp_path / "logs")) as fleet:
        trainer = Trainer(fleet)
        trainer.round()
        text = str(trainer.losses[0].error)
        assert "exit code 127" in text
        assert "libGL.so.1 is missing" in text
        assert "Player-0.out" in text


def test_proxy_of_the_machine_does_not_stand_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # port 9: nobody is there
    with Fleet(plan(scripted(), tmp_path)) as fleet:
        Trainer(fleet).run_until(num_messages=2)


def test_base_port_numbers_the_ports(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path)) as fleet:
        free = fleet.ports[0]
    with Fleet(plan(scripted(), tmp_path, base_port=free)) as fleet:
        assert fleet.ports == [free]
        Trainer(fleet).run_until(num_messages=1)
