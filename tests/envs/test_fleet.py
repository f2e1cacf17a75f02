"""A fleet of real processes: everybody is served, lockstep, new moments, the end."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_of_processes import (
    BEHAVIOR,
    PATIENCE_S,
    SCRIPT,
    Trainer,
    is_alive,
    plan,
    require_ended,
    scripted,
)

from envs.bridge.simulator import Simulator
from envs.errors import (
    SimulatorClosedError,
    SimulatorDidNotStartError,
)
from envs.fleet import Fleet, SimulatorMessage
from envs.lanes import AgentLanes


def test_all_simulators_are_served_and_quit_at_the_end(tmp_path: Path) -> None:
    with Fleet(plan(scripted("--agents", 3), tmp_path, num_simulators=2)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=5)
        pids = [pid for pid in fleet.pids if pid is not None]
        assert len(set(fleet.ports)) == len(pids) == 2
        assert sorted(trainer.lanes[0] + trainer.lanes[1]) == [0, 1, 2, 3, 4, 5]
        started = time.monotonic()
    assert time.monotonic() - started < 5.0  # they quit by themselves, nobody has to be killed
    for pid in pids:
        require_ended(pid)
    assert (tmp_path / "Player-0.log").read_text() == "scripted simulator says hello\n"


def test_message_of_one_simulator_costs_no_look_at_all_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    limit: property = vars(Simulator)["silence_limit"]
    settle = AgentLanes.settle

    def looked(simulator: Simulator) -> float:
        looks.append("limit")
        return float(limit.__get__(simulator))

    def settled(lanes: AgentLanes) -> None:
        looks.append("settle")
        settle(lanes)

    monkeypatch.setattr(Simulator, "silence_limit", property(looked))
    monkeypatch.setattr(AgentLanes, "settle", settled)
    with Fleet(plan(scripted("--agents", 3), tmp_path, num_simulators=4)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=5)
        before = sum(trainer.num_messages.values())
        looks.clear()
        trainer.run_until(num_messages=60)
        num_messages = sum(trainer.num_messages.values()) - before
    assert num_messages > 100
    # All four are looked at once in a while, not at every message.
    assert len(looks) < num_messages / 4


def test_time_for_decoding_and_encoding_is_counted(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=1)
        before, started = fleet.codec_seconds, time.perf_counter()
        trainer.run_until(num_messages=20)
        assert 0.0 < fleet.codec_seconds - before < time.perf_counter() - started
        (message,) = fleet.recv(timeout_s=PATIENCE_S)
        assert isinstance(message, SimulatorMessage)
        decoded = fleet.codec_seconds
        fleet.send(0, Trainer.zeros(message))
        assert fleet.codec_seconds > decoded
        encoded = fleet.codec_seconds
    assert fleet.codec_seconds == encoded


def test_closed_fleet_says_so_and_holds_nothing_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        editor = replace(plan(scripted(), tmp_path), launch=None, base_port=holder.getsockname()[1])
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        fleets = [Fleet(editor) for _ in range(3)]
        for fleet in fleets:
            with pytest.raises(SimulatorDidNotStartError, match="is in use"):
                fleet.start()
        assert len(os.listdir("/proc/self/fd")) == before
    with Fleet(plan(scripted(), tmp_path)) as fleet:
        fleet.recv()
    fleet.close()
    with pytest.raises(SimulatorClosedError, match="it has no simulators"):
        fleet.recv()


def test_lockstep_gives_all_simulators_in_order_with_the_same_lanes(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=3, lockstep=True)) as fleet:
        for _ in range(4):
            messages = fleet.recv(timeout_s=PATIENCE_S)
            assert [message.simulator for message in messages] == [0, 1, 2]
            for message in messages:
                assert isinstance(message, SimulatorMessage)
                first = 2 * message.simulator
                assert message.decisions[BEHAVIOR].lane.tolist() == [first, first + 1]
            for message in reversed(messages):
                assert isinstance(message, SimulatorMessage)
                fleet.send(message.simulator, Trainer.zeros(message))


def test_slow_trainer_leaves_the_others_running(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=2)) as fleet:
        pending: dict[int, SimulatorMessage] = {}
        while len(pending) < 2:
            for item in fleet.recv(timeout_s=PATIENCE_S):
                assert isinstance(item, SimulatorMessage)
                pending[item.simulator] = item
        for _ in range(5):  # simulator 1 waits for its answer; simulator 0 must not
            fleet.send(0, Trainer.zeros(pending[0]))
            (item,) = fleet.recv(timeout_s=PATIENCE_S)
            assert isinstance(item, SimulatorMessage)
            assert item.simulator == 0
            pending[0] = item


def test_relaunch_starts_new_processes_and_voids_all_lanes(tmp_path: Path) -> None:
    with Fleet(plan(scripted(), tmp_path, num_simulators=2)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=2)
        old = [pid for pid in fleet.pids if pid is not None]
        void = fleet.relaunch(seed=100)
        assert {name: lanes.tolist() for name, lanes in void.items()} == {"Walker": [0, 1, 2, 3]}
        for pid in old:
            require_ended(pid)
        trainer.num_messages = {}
        trainer.run_until(num_messages=2)
        assert not trainer.losses
        assert sorted(trainer.lanes[0] + trainer.lanes[1]) == [0, 1, 2, 3]


def test_relaunch_leaves_simulators_given_up_as_they_are(tmp_path: Path) -> None:
    limits = {"max_lifetime_restarts": 0}
    with Fleet(plan(scripted(), tmp_path, num_simulators=2, **limits)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=2)
        given_up, other = fleet.pids
        assert given_up is not None
        assert fleet.num_alive == 2
        os.kill(given_up, signal.SIGKILL)
        while not trainer.losses:
            trainer.round()
        assert fleet.num_alive == 1
        (voided,) = fleet.relaunch(seed=100).values()
        assert sorted([*voided, *trainer.losses[0].lanes["Walker"]]) == [0, 1, 2, 3]
        assert fleet.pids[0] == given_up
        assert fleet.pids[1] != other
        limit = trainer.num_messages[1] + 3
        while trainer.num_messages[1] < limit:
            trainer.round()
        assert fleet.num_alive == len(trainer.losses) == 1


TRAINER = """
import sys
from pathlib import Path
from envs.fleet import Fleet, FleetPlan, LaunchPlan
launch = LaunchPlan(command=(sys.executable, *{command!r}), kind="gym")
fleet = Fleet(FleetPlan(launch=launch, logs_dir=Path({logs!r})))
fleet.start()
received = fleet.recv(timeout_s={timeout_s})
print(fleet.pids[0], len(received), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's life")
def test_simulators_do_not_survive_a_killed_trainer(tmp_path: Path) -> None:
    program = TRAINER.format(
        command=[str(SCRIPT), "--hang-at", "0"], logs=str(tmp_path), timeout_s=1.0
    )
    with subprocess.Popen(
        [sys.executable, "-c", program + "sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as trainer:
        assert trainer.stdout is not None
        pid = int(trainer.stdout.readline().split()[0])
        assert is_alive(pid)
        trainer.kill()
    require_ended(pid)


def test_trainer_that_fails_without_closing_its_fleet_still_ends(tmp_path: Path) -> None:
    program = TRAINER.format(command=[str(SCRIPT)], logs=str(tmp_path), timeout_s=PATIENCE_S)
    done = subprocess.run(
        [sys.executable, "-c", program + "sys.exit(5)"],
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=False,
    )
    pid, num_received = (int(word) for word in done.stdout.split())
    assert num_received == 1  # so the simulator was waiting for an answer
    assert done.returncode == 5
    require_ended(pid)
