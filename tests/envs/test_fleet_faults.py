"""Simulators that misbehave beside one that does not: it goes on at full speed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from envs.batch import Actions
from envs.errors import SimulatorDidNotStartError
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorLoss

PATIENCE_S = 60.0
SIMULATOR = f"{sys.executable} -m envs.testing.scripted"


def one_of_two(folder: Path, script: str, *words: str) -> LaunchPlan:
    """A program of which the first life follows a script, and all others are healthy."""
    program = folder / "one_of_two"
    first = " ".join((script, *words))
    program.write_text(
        f'#!/bin/sh\nif mkdir {folder}/first 2>/dev/null; then script="{first}"; '
        f'else script=healthy; fi\nexec {SIMULATOR} --script $script "$@"\n'
    )
    program.chmod(0o755)
    return LaunchPlan(command=(str(program),), kind="gym")


class Trainer:
    """Answers everything, and counts."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.losses: list[SimulatorLoss] = []
        self.num_messages = [0, 0]

    def round(self) -> None:
        for item in self.fleet.recv(timeout_s=PATIENCE_S):
            if isinstance(item, SimulatorLoss):
                self.losses.append(item)
                continue
            self.num_messages[item.simulator] += 1
            actions = {
                name: Actions(np.zeros((len(asked), 1), "f4"), np.zeros((len(asked), 1), "i4"))
                for name, asked in item.decisions.items()
            }
            self.fleet.send(item.simulator, actions)


def test_slow_simulator_costs_the_others_nothing(tmp_path: Path) -> None:
    plan = FleetPlan(launch=one_of_two(tmp_path, "slow"), num_simulators=2, logs_dir=tmp_path)
    with Fleet(plan) as fleet:
        trainer = Trainer(fleet)
        while min(trainer.num_messages) < 4:
            trainer.round()
        slow, fast = sorted(trainer.num_messages)
        assert fast > 5 * slow
        assert trainer.losses == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("crash-mid-episode", "ended in the middle of the run (exit code 3)"),
        ("lost-display", "It has no display, or has lost it"),
        ("flood", "ended in the middle of the run (exit code 3)"),
        ("garbage", "sent bad data: 40 bytes received"),
        ("nan", "sensor 'number' holds nan"),
        ("infinite-reward", "the reward holds inf"),
        ("other-shape", "shape (3,) with 3 numbers found, (2,) expected"),
        ("silent", "did not answer within 6 s"),
    ],
)
def test_lost_simulator_is_named_and_restarted_while_the_other_goes_on(
    tmp_path: Path, script: str, words: str
) -> None:
    launch = one_of_two(tmp_path, script)
    wait_s = 6.0 if script == "silent" else PATIENCE_S
    plan = FleetPlan(launch=launch, num_simulators=2, logs_dir=tmp_path, timeout_wait_s=wait_s)
    with Fleet(plan) as fleet:
        trainer = Trainer(fleet)
        while not trainer.losses:
            trainer.round()
        (loss,) = trainer.losses
        text = str(loss.error)
        assert words in text
        assert text.startswith(f"Simulator {loss.simulator} (gym, pid ")
        assert f"Log: {tmp_path}/Player-{loss.simulator}" in text
        assert "Restarting (1 of 10)." in text
        assert loss.will_restart
        before = list(trainer.num_messages)
        while min(now - then for now, then in zip(trainer.num_messages, before, strict=True)) < 10:
            trainer.round()  # the other one, and the one that was started again
        assert len(trainer.losses) == 1


def test_simulator_that_never_connects_is_named_while_the_other_goes_on(tmp_path: Path) -> None:
    launch = one_of_two(tmp_path, "slow-start", "--delay-s", "600")
    plan = FleetPlan(launch=launch, num_simulators=2, logs_dir=tmp_path, timeout_wait_s=8.0)
    with Fleet(plan) as fleet:
        trainer = Trainer(fleet)
        while not trainer.losses:
            trainer.round()
        (loss,) = trainer.losses
        assert isinstance(loss.error, SimulatorDidNotStartError)
        assert "did not dial the trainer within 8 s" in str(loss.error)
        assert "To wait longer: env_settings.timeout_wait." in str(loss.error)
        assert trainer.num_messages[1 - loss.simulator] > 20
