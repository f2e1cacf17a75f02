"""Simulators that come and go while the others play."""

from __future__ import annotations

import os
import signal
import sys
from itertools import chain
from pathlib import Path

import pytest
from fleet_of_processes import BEHAVIOR, SCRIPT, Trainer, plan, require_ended, scripted

from envs.errors import SimulatorDidNotStartError, SimulatorError
from envs.fleet import Fleet, LaunchPlan, SimulatorMessage


def test_simulator_that_is_added_plays_with_port_seed_log_and_lanes_of_its_own(
    tmp_path: Path,
) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=2, seed=5)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=3)
        assert fleet.add() == 2
        trainer.run_until(num_messages=3)
        assert fleet.alive == [0, 1, 2]
        assert fleet.num_alive == 3
        assert len(set(fleet.ports)) == 3
        assert len(set(fleet.pids)) == 3
        assert [one.seed for one in fleet._simulators] == [5, 6, 7]
        assert (tmp_path / "Player-2.log").exists()
        assert sorted(chain(*trainer.lanes.values())) == [0, 1, 2, 3, 4, 5]


def test_dismissed_simulator_is_told_goodbye_and_its_lanes_are_used_again(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=3)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=3)
        pid = fleet.pids[2]
        assert pid is not None
        heard = None
        while heard is None:  # its message is delivered, and not answered
            for item in fleet.recv(timeout_s=30.0):
                assert isinstance(item, SimulatorMessage)
                if item.simulator == 2:
                    heard = item
                else:
                    fleet.send(item.simulator, trainer.zeros(item))
        void = fleet.dismiss(2)
        assert {name: lanes.tolist() for name, lanes in void.items()} == {
            BEHAVIOR.partition("?")[0]: sorted(heard.decisions[BEHAVIOR].lane.tolist())
        }
        assert fleet.alive == [0, 1]
        fleet.send(2, trainer.zeros(heard))  # an answer that comes too late does no harm
        before = dict(trainer.num_messages)
        while trainer.num_messages[0] < before[0] + 5 or trainer.num_messages[1] < before[1] + 5:
            trainer.round()
        assert trainer.num_messages[2] == before[2]
        assert not trainer.losses  # it is no crash
        require_ended(pid)
        assert fleet.add() == 3  # its number is nobody's again
        while trainer.num_messages.get(3, 0) < 3:
            trainer.round()
        assert sorted(trainer.lanes[3]) == sorted(heard.decisions[BEHAVIOR].lane.tolist())


def test_dismissed_simulator_that_does_not_go_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.fleet.CLOSE_WAIT_S", 0.2)
    stubborn = tmp_path / "stubborn.sh"  # the simulator goes, what it was started by stays
    stubborn.write_text(f'#!/bin/sh\n{sys.executable} {SCRIPT} "$@"\nexec sleep 600\n')
    stubborn.chmod(0o755)
    launch = LaunchPlan(command=(str(stubborn),), kind="gym")
    with Fleet(plan(launch, tmp_path, num_simulators=2)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=2)
        pid = fleet.pids[1]
        assert pid is not None
        while not any(item.simulator == 1 for item in answered_but(fleet, trainer, 1)):
            pass
        fleet.dismiss(1)
        while fleet._simulators[1].has_process:
            trainer.round()
        require_ended(pid)


def answered_but(fleet: Fleet, trainer: Trainer, silent: int) -> list[SimulatorMessage]:
    """Receives once, and answers everybody but one."""
    heard = []
    for item in fleet.recv(timeout_s=30.0):
        assert isinstance(item, SimulatorMessage)
        heard.append(item)
        if item.simulator != silent:
            fleet.send(item.simulator, trainer.zeros(item))
    return heard


def test_simulator_that_still_starts_is_ended_at_once(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=1)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=2)
        number = fleet.add()
        pid = fleet.pids[number]
        assert pid is not None
        assert fleet.dismiss(number) == {}
        require_ended(pid)
        before = trainer.num_messages[0]
        while trainer.num_messages[0] < before + 5:
            trainer.round()
        assert not trainer.losses


def test_last_simulator_that_is_lost_ends_the_fleet_also_after_a_dismissal(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=2, max_lifetime_restarts=0)) as fleet:
        trainer = Trainer(fleet)
        while trainer.num_messages.get(1, 0) < 2:
            trainer.round()
        while not any(item.simulator == 1 for item in answered_but(fleet, trainer, 1)):
            pass
        fleet.dismiss(1)
        pid = fleet.pids[0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SimulatorError, match="Simulator 0"):
            while True:
                trainer.round()


def test_addition_that_cannot_start_leaves_the_others_alone(tmp_path: Path) -> None:
    build = tmp_path / "build.sh"
    build.write_text(f'#!/bin/sh\nexec {sys.executable} {SCRIPT} "$@"\n')
    build.chmod(0o755)
    launch = LaunchPlan(command=(str(build),), kind="gym")
    with Fleet(plan(launch, tmp_path, num_simulators=1)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=2)
        build.rename(tmp_path / "away")
        with pytest.raises(SimulatorDidNotStartError):
            fleet.add()
        assert fleet.alive == [0]
        before = trainer.num_messages[0]
        while trainer.num_messages[0] < before + 5:
            trainer.round()
