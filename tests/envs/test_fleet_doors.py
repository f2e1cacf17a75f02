"""A fleet of simulators that other machines start: strangers stall nobody, the lost come again."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import numpy as np
from doors import TOKEN, door

from envs.batch import Actions
from envs.bridge.client import TrainerClosedError, TrainerConnection
from envs.bridge.http2_client import TrainerAddress
from envs.errors import SimulatorDidNotStartError
from envs.fleet import Fleet, FleetPlan, SimulatorLoss, SimulatorMessage
from envs.testing.null import NullSimulator, play
from envs.tls import Trust

PATIENCE_S = 30.0
BEHAVIOR = "Null?team=0"


class Guest(threading.Thread):
    """A simulator of another machine, but for the machine."""

    def __init__(self, port: int, fingerprint: str) -> None:
        super().__init__(daemon=True)
        address = TrainerAddress("127.0.0.1", port, Trust(fingerprint=fingerprint), TOKEN)
        self._address = address
        self.connection: TrainerConnection | None = None
        self.start()

    def run(self) -> None:
        try:
            with TrainerConnection(self._address, PATIENCE_S) as self.connection:
                play(self.connection, NullSimulator(BEHAVIOR, 8, 2, (), 3, 50))
        except (TrainerClosedError, SimulatorDidNotStartError):
            return


def heard(fleet: Fleet) -> list[SimulatorLoss | SimulatorMessage]:
    """One recv, every message answered with zeros."""
    items = fleet.recv(timeout_s=0.2)
    for item in items:
        if isinstance(item, SimulatorMessage):
            rows = len(item.decisions[BEHAVIOR])
            zeros = Actions(np.zeros((rows, 2), np.float32), np.zeros((rows, 0), np.int32))
            fleet.send(item.simulator, {BEHAVIOR: zeros})
    return list(items)


def test_strangers_at_one_port_stall_no_simulator_at_another(tmp_path: Path) -> None:
    closed = door(tmp_path, handshake_timeout_s=PATIENCE_S)
    plan = FleetPlan(launch=None, num_simulators=2, door=closed, timeout_wait_s=PATIENCE_S)
    with Fleet(plan) as fleet:
        guest = Guest(fleet.ports[0], closed.fingerprint)
        strangers = [socket.create_connection(("127.0.0.1", fleet.ports[1])) for _ in range(5)]
        for stranger in strangers[1:]:
            stranger.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        num_messages, limit = 0, time.monotonic() + PATIENCE_S
        while num_messages < 300:  # all within the time that a handshake may take
            assert time.monotonic() < limit
            items = heard(fleet)
            assert not any(isinstance(item, SimulatorLoss) for item in items)
            num_messages += len(items)
        for stranger in strangers:
            stranger.setblocking(False)
            try:
                ended = stranger.recv(1)
            except BlockingIOError:
                ended = b"still waiting"
            assert ended, "a stranger was hung up before its time"
            stranger.close()
    guest.join(PATIENCE_S)


def test_lost_simulator_of_another_machine_may_dial_again(tmp_path: Path) -> None:
    closed = door(tmp_path)
    plan = FleetPlan(launch=None, door=closed, timeout_wait_s=PATIENCE_S, restarts_rate_limit_n=3)
    with Fleet(plan) as fleet:
        for life in range(3):
            guest = Guest(fleet.ports[0], closed.fingerprint)
            while not any(isinstance(item, SimulatorMessage) for item in heard(fleet)):
                assert guest.is_alive()
            assert guest.connection is not None
            guest.connection._connection._socket.shutdown(socket.SHUT_RDWR)  # the network fails
            losses: list[SimulatorLoss] = []
            while not losses:
                losses = [item for item in heard(fleet) if isinstance(item, SimulatorLoss)]
            assert losses[0].will_restart
            port = fleet.ports[0]
            words = f"Simulator 0 (another machine's, port {port}) broke the connection."
            assert str(losses[0].error).startswith(words)
            assert f"It may dial again ({life + 1} of 10)." in str(losses[0].error)
            guest.join(PATIENCE_S)
