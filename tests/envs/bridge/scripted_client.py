"""The far side of the wire, written with ordinary protobuf: says exactly what a test tells it to.

Run as a program it is a simulator of its own process, whose misbehaviour its arguments choose:
`python scripted_client.py [--agents N] [--crash-at K | --hang-at K | ...] --mlagents-port P`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TypeAlias

import grpc

from envs.bridge.proto.communicator_pb2 import (
    AgentInfoProto,
    BrainParametersProto,
    UnityMessageProto,
    UnityRLCapabilitiesProto,
)
from envs.bridge.protocol import EXCHANGE

BEHAVIOR = "Walker?team=0"
# A step message with cameras is larger than gRPC's own limit of 4 MiB; -1 lifts the limit.
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
PATIENCE_S = 20.0

Future: TypeAlias = "grpc.Future[bytes]"


def agent(
    agent_id: int,
    obs: Sequence[float] = (1.0, 2.0),
    *,
    reward: float = 0.0,
    done: bool = False,
    max_step_reached: bool = False,
    mask: Sequence[bool] = (),
    group_id: int = 0,
    group_reward: float = 0.0,
) -> AgentInfoProto:
    """One agent with one vector sensor."""
    info = AgentInfoProto(
        id=agent_id,
        reward=reward,
        done=done,
        max_step_reached=max_step_reached,
        action_mask=mask,
        group_id=group_id,
        group_reward=group_reward,
    )
    observation = info.observations.add(shape=[len(obs)], dimension_properties=[1], name="Vector")
    observation.float_data.data.extend(obs)
    return info


def brain(
    behavior_id: str = BEHAVIOR, num_continuous: int = 2, branches: Sequence[int] = ()
) -> BrainParametersProto:
    """The action side of a behaviour."""
    found = BrainParametersProto(brain_name=behavior_id, is_training=True)
    found.action_spec.num_continuous_actions = num_continuous
    found.action_spec.num_discrete_actions = len(branches)
    found.action_spec.discrete_branch_sizes.extend(branches)
    return found


def greeting(version: str = "1.5.0") -> UnityMessageProto:
    """A simulator's first message."""
    message = UnityMessageProto()
    message.header.status = 200
    output = message.unity_output.rl_initialization_output
    output.name = "AcademySingleton"
    output.communication_version = version
    output.package_version = "3.0.0"
    output.capabilities.CopyFrom(UnityRLCapabilitiesProto(baseRLCapabilities=True))
    return message


def bare(status: int = 200) -> UnityMessageProto:
    """A message with a header only: the second one, and the last one."""
    message = UnityMessageProto()
    message.header.status = status
    return message


def step(
    agents: dict[str, Sequence[AgentInfoProto]],
    brains: Sequence[BrainParametersProto] = (),
    side_channel: bytes = b"",
) -> UnityMessageProto:
    """A message with agents by behaviour id."""
    message = bare()
    output = message.unity_output
    for behavior_id, infos in agents.items():
        output.rl_output.agentInfos[behavior_id].value.extend(infos)
    output.rl_output.side_channel = side_channel
    if brains:
        output.rl_initialization_output.brain_parameters.extend(brains)
    return message


class ScriptedClient:
    """Dials a port as a Unity build does."""

    def __init__(self, port: int) -> None:
        # Two clients of one process would otherwise share a connection.
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._exchange: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            EXCHANGE
        )
        self._futures: list[Future] = []  # gRPC cancels a call whose future nobody holds

    def send_bytes(self, data: bytes) -> Future:
        """Starts an Exchange; the future's result is the answer's bytes."""
        future = self._exchange.future(data, wait_for_ready=True, timeout=PATIENCE_S)
        self._futures = [*self._futures[-3:], future]
        return future

    def send(self, message: UnityMessageProto) -> Future:
        """Starts an Exchange."""
        return self.send_bytes(message.SerializeToString())

    def close(self) -> None:
        """Hangs up; calls that still wait are cancelled."""
        self._channel.close()


def answer(future: Future) -> UnityMessageProto:
    """Waits for the answer to an Exchange."""
    return UnityMessageProto.FromString(future.result(timeout=PATIENCE_S))


def main() -> None:
    """Lives as a simulator with two-step episodes until the trainer says goodbye."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlagents-port", type=int, required=True)
    parser.add_argument("--agents", type=int, default=2)
    parser.add_argument("--crash-at", type=int, help="message at which the process kills itself")
    parser.add_argument("--hang-at", type=int, help="message at which it falls silent")
    parser.add_argument("--goodbye-at", type=int, help="message at which it says goodbye")
    parser.add_argument("--exit-at", type=int, help="message at which it ends with --exit-code")
    parser.add_argument("--exit-code", type=int)
    parser.add_argument("--version-afterwards", default="1.5.0", help="when it does not misbehave")
    parser.add_argument("--nan-at", type=int, help="message with a NaN")
    parser.add_argument("--only-once", help="misbehave unless this file exists, then make it")
    parser.add_argument("--exit-at-start", type=int, help="exit code, before anything is said")
    arguments = parser.parse_args()
    print("scripted simulator says hello", flush=True)
    if arguments.exit_at_start is not None:
        sys.exit(arguments.exit_at_start)
    misbehaves = True
    if arguments.only_once is not None:
        misbehaves = not os.path.exists(arguments.only_once)
        with open(arguments.only_once, "a"):
            pass
    client = ScriptedClient(arguments.mlagents_port)
    answer(client.send(greeting("1.5.0" if misbehaves else arguments.version_afterwards)))
    answer(client.send(bare()))
    number = 0
    while True:
        if misbehaves and number == arguments.crash_at:
            print("Shader error", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if misbehaves and number == arguments.exit_at:
            sys.exit(arguments.exit_code)
        if misbehaves and number == arguments.hang_at:
            threading.Event().wait()
        if misbehaves and number == arguments.goodbye_at:
            client.send(bare(400)).exception(timeout=PATIENCE_S)
            return
        nan = float("nan") if misbehaves and number == arguments.nan_at else 0.0
        message = step(
            {BEHAVIOR: [agent(row, (row, number + nan)) for row in range(arguments.agents)]},
            [brain()] if number == 0 else [],
        )
        if answer(client.send(message)).header.status != 200:
            return
        number += 1


if __name__ == "__main__":
    main()
