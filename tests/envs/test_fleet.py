"""A fleet of real processes: launch, crash, silence, restart, lockstep, the end."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.batch import Actions
from envs.errors import (
    BadDataError,
    SimulatorClosedError,
    SimulatorCrashedError,
    SimulatorDidNotStartError,
    SimulatorError,
    SimulatorTimedOutError,
    WrongProtocolError,
)
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorLoss, SimulatorMessage

SCRIPT = Path(__file__).parent / "bridge" / "scripted_client.py"
BEHAVIOR = "Walker?team=0"
PATIENCE_S = 30.0


def scripted(*arguments: object) -> LaunchPlan:
    """A simulator whose arguments choose how it misbehaves."""
    words = [str(argument) for argument in arguments]
    return LaunchPlan(command=(sys.executable, str(SCRIPT), *words), kind="gym")


def plan(launch: LaunchPlan, logs_dir: Path, **settings: object) -> FleetPlan:
    words: dict[str, object] = {"restarts_rate_limit_n": -1, "timeout_wait_s": PATIENCE_S}
    return FleetPlan(launch=launch, logs_dir=logs_dir, **(words | settings))  # type: ignore[arg-type]  # tests' words


class Trainer:
    """Answers everything, and keeps a diary."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.losses: list[SimulatorLoss] = []
        self.num_messages: dict[int, int] = {}
        self.lanes: dict[int, list[int]] = {}

    def round(self) -> None:
        """One recv, all answers."""
        for item in self.fleet.recv(timeout_s=PATIENCE_S):
            number = item.simulator
            if isinstance(item, SimulatorLoss):
                self.losses.append(item)
                continue
            self.num_messages[number] = self.num_messages.get(number, 0) + 1
            self.lanes[number] = item.decisions[BEHAVIOR].lane.tolist()
            self.fleet.send(number, self.zeros(item))

    @staticmethod
    def zeros(message: SimulatorMessage) -> Mapping[str, Actions]:
        rows = len(message.decisions[BEHAVIOR])
        actions = Actions(np.zeros((rows, 2), np.float32), np.zeros((rows, 0), np.int32))
        return {BEHAVIOR: actions}

    def run_until(self, num_messages: int, num_losses: int = 0) -> None:
        """Runs until every simulator that has said something has said so much."""
        limit = time.monotonic() + PATIENCE_S
        while len(self.losses) < num_losses or any(
            self.num_messages.get(number, 0) < num_messages
            for number in range(len(self.fleet.ports))
        ):
            assert time.monotonic() < limit, (self.num_messages, self.losses)
            self.round()


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie that its parent has not read does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def require_ended(pid: int) -> None:
    limit = time.monotonic() + PATIENCE_S
    while is_alive(pid):
        assert time.monotonic() < limit, f"process {pid} still runs"
        time.sleep(0.01)  # somebody else's child: nothing to wait on but the process table


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


def test_crash_costs_only_its_own_lanes_and_is_restarted(tmp_path: Path) -> None:
    once = tmp_path / "crashed"
    launch = scripted("--crash-at", 3, "--only-once", once)
    with Fleet(plan(launch, tmp_path, num_simulators=2)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=8, num_losses=1)
        (loss,) = trainer.losses
        assert loss.will_restart
        assert isinstance(loss.error, SimulatorCrashedError)
        text = str(loss.error)
        assert text.startswith(f"Simulator {loss.simulator} (gym, pid ")
        assert "exit code -11, SIGSEGV" in text
        assert "Shader error" in text
        assert f"Player-{loss.simulator}.life-1.log" in text
        assert "Restarting (1 of 10)." in text
        (lanes,) = [void.tolist() for void in loss.lanes.values()]
        assert len(lanes) == 2
        # The other kept its lanes, and the restarted one plays with the free ones again.
        assert sorted(trainer.lanes[0] + trainer.lanes[1]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("misbehaviour", "kind", "words"),
    [
        ("--hang-at", SimulatorTimedOutError, "did not answer within 6 s"),
        ("--goodbye-at", SimulatorClosedError, "said goodbye"),
        ("--nan-at", BadDataError, "sensor 'Vector' holds nan"),
    ],
)
def test_every_misbehaviour_has_its_own_words_and_is_restarted(
    tmp_path: Path, misbehaviour: str, kind: type[SimulatorError], words: str
) -> None:
    launch = scripted(misbehaviour, 2, "--only-once", tmp_path / "done")
    with Fleet(plan(launch, tmp_path, timeout_wait_s=6.0)) as fleet:
        old_pid = fleet.pids[0]
        assert old_pid is not None
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=5, num_losses=1)
        assert isinstance(trainer.losses[0].error, kind)
        assert words in str(trainer.losses[0].error)
        assert fleet.pids[0] != old_pid
        require_ended(old_pid)


def test_simulator_that_crashes_too_often_is_given_up_and_then_nobody_is_left(
    tmp_path: Path,
) -> None:
    limits = {"max_lifetime_restarts": 2}
    with Fleet(plan(scripted("--crash-at", 1), tmp_path, **limits)) as fleet:
        trainer = Trainer(fleet)
        with pytest.raises(SimulatorCrashedError, match="max_lifetime_restarts"):
            while True:
                trainer.round()
        assert [loss.will_restart for loss in trainer.losses] == [True, True, False]


def test_rate_limit_gives_up_one_simulator_and_the_other_goes_on(tmp_path: Path) -> None:
    limits = {"restarts_rate_limit_n": 1, "restarts_rate_limit_period_s": 1000.0}
    with Fleet(plan(scripted(), tmp_path, num_simulators=2, **limits)) as fleet:
        trainer = Trainer(fleet)
        for num_losses in (1, 2):
            trainer.num_messages.clear()
            trainer.run_until(num_messages=3)
            pid = fleet.pids[0]
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            while len(trainer.losses) < num_losses:
                trainer.round()
        first, second = trainer.losses
        assert (first.simulator, first.will_restart) == (0, True)
        assert (second.simulator, second.will_restart) == (0, False)
        assert "restarts_rate_limit_n" in str(second.error)
        assert "Simulators that go on: 1" in str(second.error)
        limit = trainer.num_messages[1] + 5
        while trainer.num_messages[1] < limit:
            trainer.round()


def test_restarts_wait_longer_every_time_but_the_first(tmp_path: Path) -> None:
    limits = {"max_lifetime_restarts": 4, "restart_delay_s": 0.05}
    with Fleet(plan(scripted("--crash-at", 1), tmp_path, **limits)) as fleet:
        trainer = Trainer(fleet)
        with pytest.raises(SimulatorCrashedError):
            while True:
                trainer.round()
    told = [str(loss.error).splitlines()[-1] for loss in trainer.losses]
    assert [words.partition(".  ")[0] for words in told[:4]] == [
        "  Restarting (1 of 4).",
        "  Restarting in 0.05 s (2 of 4).",
        "  Restarting in 0.1 s (3 of 4).",
        "  Restarting in 0.2 s (4 of 4).",
    ]


def test_others_go_on_while_one_waits_for_its_restart(tmp_path: Path) -> None:
    once = tmp_path / "crashed"
    launch = scripted("--crash-at", 3, "--only-once", once)
    limits = {"restart_delay_s": 1000.0}
    with Fleet(plan(launch, tmp_path, num_simulators=2, **limits)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=5, num_losses=1)
        (loss,) = trainer.losses
        pid = fleet.pids[loss.simulator]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while len(trainer.losses) < 2:
            trainer.round()
        assert "Restarting in 1000 s (2 of 10)." in str(trainer.losses[1].error)
        assert fleet.num_alive == 2  # it will come back
        other = 1 - loss.simulator
        silent, limit = trainer.num_messages[loss.simulator], trainer.num_messages[other] + 20
        while trainer.num_messages[other] < limit:
            trainer.round()
        assert trainer.num_messages[loss.simulator] == silent
        fleet.relaunch(seed=5)  # a new moment of a reproducible run waits for nobody
        trainer.num_messages.clear()
        trainer.run_until(num_messages=2)


def test_program_that_ends_at_start_is_not_tried_again(tmp_path: Path) -> None:
    with Fleet(plan(scripted("--exit-at-start", 3), tmp_path)) as fleet:
        trainer = Trainer(fleet)
        trainer.round()
        (loss,) = trainer.losses
        assert not loss.will_restart
        assert "ended before it dialled the trainer (exit code 3)" in str(loss.error)
        assert "scripted simulator says hello" in str(loss.error)
        with pytest.raises(SimulatorDidNotStartError, match="no simulator has ever connected"):
            fleet.recv()


def test_mistake_of_the_user_is_not_repeated_by_restarting(tmp_path: Path) -> None:
    launch = scripted("--exit-at", 3, "--exit-code", 2)
    with Fleet(plan(launch, tmp_path)) as fleet:
        trainer = Trainer(fleet)
        while not trainer.losses:
            trainer.round()
        (loss,) = trainer.losses
        assert not loss.will_restart
        assert "ended in the middle of the run (exit code 2).\n" in str(loss.error)
        assert str(loss.error).endswith("which a restart would not change.")
        assert fleet.num_alive == 0


def test_other_exit_codes_are_restarted(tmp_path: Path) -> None:
    launch = scripted("--exit-at", 3, "--exit-code", 1, "--only-once", tmp_path / "done")
    with Fleet(plan(launch, tmp_path)) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=6, num_losses=1)
        assert trainer.losses[0].will_restart
        assert "(exit code 1)" in str(trainer.losses[0].error)


def test_simulator_of_another_protocol_is_not_restarted(tmp_path: Path) -> None:
    once = tmp_path / "done"
    launch = scripted("--goodbye-at", 2, "--only-once", once, "--version-afterwards", "2.0.0")
    with Fleet(plan(launch, tmp_path)) as fleet:  # which has connected once, so restarts it may
        trainer = Trainer(fleet)
        while len(trainer.losses) < 2:
            trainer.round()
        first, second = trainer.losses
        assert first.will_restart
        assert isinstance(second.error, WrongProtocolError)
        assert not second.will_restart
        assert "Given up: a restart would not change the protocol" in str(second.error)
        assert ".." not in str(second.error)


def test_simulator_that_vanished_from_the_disk_is_given_up(tmp_path: Path) -> None:
    build = fake_build(tmp_path)
    launch = LaunchPlan(command=(str(build),), kind="unity", no_graphics=True)
    with Fleet(plan(launch, tmp_path / "logs")) as fleet:
        trainer = Trainer(fleet)
        trainer.run_until(num_messages=2)
        build.unlink()
        pid = fleet.pids[0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while not trainer.losses:
            trainer.round()
        text = str(trainer.losses[0].error)
        assert f"it cannot be started again: {build} cannot be started: No such file" in text
        assert text.endswith("Check the path after --env.")


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


def test_program_that_cannot_be_executed_is_told_at_once(tmp_path: Path) -> None:
    nothing = LaunchPlan(command=(str(tmp_path / "nothing"),), kind="unity")
    with pytest.raises(SimulatorDidNotStartError, match="No such file"):
        Fleet(plan(nothing, tmp_path)).start()
    (tmp_path / "build.x86_64").write_text("#!/bin/sh\n")
    locked = LaunchPlan(command=(str(tmp_path / "build.x86_64"),), kind="unity")
    with pytest.raises(SimulatorDidNotStartError, match="chmod -R 755"):
        Fleet(plan(locked, tmp_path)).start()


def fake_build(folder: Path) -> Path:
    """An executable that notes its arguments and plays, as a Unity build would."""
    build = folder / "Walker.x86_64"
    build.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/arguments\necho graphics device\n'
        f'exec {sys.executable} {SCRIPT} --mlagents-port "$4"\n'
    )
    build.chmod(0o755)
    return build


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
