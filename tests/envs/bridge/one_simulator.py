"""A fleet of one simulator, which the test plays itself, message by message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scripted_client import (
    BEHAVIOR,
    PATIENCE_S,
    Future,
    ScriptedClient,
    answer,
    bare,
    brain,
    greeting,
    step,
)

from envs.batch import Actions, Decisions
from envs.bridge.proto.communicator_pb2 import AgentInfoProto, UnityMessageProto
from envs.fleet import Fleet, FleetPlan, SimulatorLoss, SimulatorMessage


@contextmanager
def fleet_and_client(**plan: object) -> Iterator[tuple[Fleet, ScriptedClient]]:
    """A fleet that waits for a simulator that is not its own, and the client that will be it."""
    with Fleet(FleetPlan(launch=None, **plan)) as fleet:  # type: ignore[arg-type]  # tests' words
        client = ScriptedClient(fleet.ports[0])
        try:
            yield fleet, client
        finally:
            client.close()


def pump(fleet: Fleet, future: Future) -> UnityMessageProto:
    """Lets the fleet work until it has answered a call that is no news for the trainer."""
    while not future.done():
        assert fleet.recv(timeout_s=0.05) == []
    return answer(future)


def connect(fleet: Fleet, client: ScriptedClient) -> UnityMessageProto:
    """Does the handshake and gives the first real input."""
    pump(fleet, client.send(greeting()))
    return pump(fleet, client.send(bare()))


def receive(fleet: Fleet) -> SimulatorMessage:
    (message,) = fleet.recv(timeout_s=PATIENCE_S)
    assert isinstance(message, SimulatorMessage)
    return message


def receive_loss(fleet: Fleet) -> SimulatorLoss:
    (loss,) = fleet.recv(timeout_s=PATIENCE_S)
    assert isinstance(loss, SimulatorLoss)
    return loss


def numbered_actions(decisions: Decisions) -> Actions:
    """Actions that reveal mix-ups: agent id * 100 + dimension."""
    continuous = decisions.agent_id[:, None] * 100 + np.arange(2)
    return Actions(continuous.astype(np.float32), np.empty((len(decisions), 0), np.int32))


def exchange(
    fleet: Fleet,
    client: ScriptedClient,
    agents: list[AgentInfoProto],
    *,
    is_first: bool = False,
) -> SimulatorMessage:
    """Sends agents, gives the message, and answers it."""
    future = client.send(step({BEHAVIOR: agents}, [brain()] if is_first else []))
    message = receive(fleet)
    fleet.send(0, {name: numbered_actions(d) for name, d in message.decisions.items()})
    reply = answer(future)
    assert reply.header.status == 200
    actions = reply.unity_input.rl_input.agent_actions[BEHAVIOR].value
    waiting = [a.id for a in agents if not a.done]
    assert [list(a.continuous_actions) for a in actions] == [
        [i * 100, i * 100 + 1] for i in waiting
    ]
    return message
