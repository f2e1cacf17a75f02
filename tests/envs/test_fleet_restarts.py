"""What happens to a simulator that is lost: its words, its lanes, its restarts, its limits."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from fleet_of_processes import PATIENCE_S, Trainer, fake_build, plan, require_ended, scripted

from envs.errors import (
    BadDataError,
    SimulatorClosedError,
    SimulatorCrashedError,
    SimulatorDidNotStartError,
    SimulatorError,
    SimulatorTimedOutError,
    WrongProtocolError,
)
from envs.fleet import Fleet, LaunchPlan, SimulatorMessage


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


def test_restarted_simulator_plays_other_episodes(tmp_path: Path) -> None:
    launch = LaunchPlan(
        command=(sys.executable, "-m", "envs.gym", "--env", "CartPole-v1"), kind="gym"
    )

    def first_obs(fleet: Fleet) -> list[float]:
        while True:
            for item in fleet.recv(timeout_s=PATIENCE_S):
                if isinstance(item, SimulatorMessage):
                    (decisions,) = item.decisions.values()
                    return [*map(float, decisions.obs[0][0])]

    with Fleet(plan(launch, tmp_path, num_simulators=1, seed=7)) as fleet:
        before = first_obs(fleet)
        (pid,) = fleet.pids
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        after = first_obs(fleet)
        assert fleet.num_restarts == 1
        fleet.relaunch(seed=7)
        assert first_obs(fleet) == before
        assert after != before


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
