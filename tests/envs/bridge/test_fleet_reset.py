"""What a reset of the whole fleet does to simulators that are lost during it."""

from __future__ import annotations

import sys
from pathlib import Path

from scripted_client import (
    BEHAVIOR,
    PATIENCE_S,
    ScriptedClient,
    agent,
    bare,
    brain,
    greeting,
    step,
)

from envs.errors import BadDataError
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorLoss


def connect(fleet: Fleet, client: ScriptedClient) -> None:
    for message in (greeting(), bare()):
        future = client.send(message)
        while not future.done():
            assert fleet.recv(timeout_s=0.05) == []


def test_lanes_of_a_loss_during_a_reset_are_void_at_once(tmp_path: Path) -> None:
    idle = LaunchPlan(command=(sys.executable, "-c", "import signal; signal.pause()"), kind="gym")
    settings = FleetPlan(launch=idle, logs_dir=tmp_path, num_simulators=2, lockstep=True)
    with Fleet(settings) as fleet:
        clients = [ScriptedClient(port) for port in fleet.ports]  # they talk for the processes
        for client in clients:
            connect(fleet, client)
            client.send(step({BEHAVIOR: [agent(1), agent(2)]}, [brain()]))
        for item in fleet.recv(timeout_s=PATIENCE_S):
            fleet.send(item.simulator, {})
        # One of two is ready in lockstep: its message is taken, but not decoded yet.
        before = fleet.codec_seconds
        clients[0].send(step({BEHAVIOR: [agent(1, (1.0, 2.0, 3.0))]}))
        while fleet.codec_seconds == before:
            assert fleet.recv(timeout_s=0.05) == []
        void = fleet.reset()
        assert void["Walker"].tolist() == [0, 1, 2, 3]
        (loss,) = fleet.recv(timeout_s=PATIENCE_S)
        assert isinstance(loss, SimulatorLoss)
        assert (loss.simulator, loss.lanes) == (0, {})
        assert isinstance(loss.error, BadDataError)
        for client in clients:
            client.close()
