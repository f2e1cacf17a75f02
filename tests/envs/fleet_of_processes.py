"""Fleets of real processes that misbehave as their arguments say, and a trainer for them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from envs.batch import Actions
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


def fake_build(folder: Path) -> Path:
    """An executable that notes its arguments and plays, as a Unity build would."""
    build = folder / "Walker.x86_64"
    build.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/arguments\necho graphics device\n'
        f'exec {sys.executable} {SCRIPT} --mlagents-port "$4"\n'
    )
    build.chmod(0o755)
    return build
