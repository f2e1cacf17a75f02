"""What a simulator sends for hours leaves nothing behind."""

from __future__ import annotations

import logging
import tracemalloc
import uuid
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from bombs import BEHAVIOR, agent, first_message, unknown_field
from fuzz_targets import Peer, conversations

from envs.batch import Choices
from envs.bridge import side_channels
from envs.bridge.client import PlayedStep, played_message
from envs.bridge.client_channels import write_stats
from envs.bridge.layout import length_delimited
from envs.bridge.proto.communicator_pb2 import UnityMessageProto, UnityRLOutputProto
from envs.bridge.side_channels import StatsAggregation, StatsMessage

WARM_UP, NUM_MESSAGES = 150, 150
GROWTH_BYTES = 100_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def message(listed: bytes = b"", side_channel: bytes = b"") -> bytes:
    entry = length_delimited(1, BEHAVIOR.encode()) + length_delimited(2, listed)
    rl_output = length_delimited(2, entry) if listed else b""
    rl_output += length_delimited(3, side_channel)
    header = UnityMessageProto(header={"status": 200}).SerializeToString()
    return header + length_delimited(2, length_delimited(1, rl_output))


def agents(count: int, first: int = 0) -> bytes:
    listed = UnityRLOutputProto.ListAgentInfoProto(value=[agent(first + i) for i in range(count)])
    return listed.SerializeToString()


def ended(count: int, first: int = 0) -> bytes:
    infos = [agent(first + i, done=True) for i in range(count)]
    return UnityRLOutputProto.ListAgentInfoProto(value=infos).SerializeToString()


def ever_more_numbers_of_agents(number: int) -> bytes:
    return message(agents(1 + number * 37 % 397))


def ever_new_agents(number: int) -> bytes:
    return message(ended(20, number * 20) + agents(20, number * 20 + 20))


def ever_new_layouts(number: int) -> bytes:
    return message(unknown_field(200 + number))


def ever_new_side_channels(number: int) -> bytes:
    return message(side_channel=side_channels.frame(uuid.UUID(int=number), b"?"))


def ever_new_brains_of_the_same_behaviour(number: int) -> bytes:
    return first_message(agent(), num_continuous_actions=1)[1:]


KINDS: list[Callable[[int], bytes]] = [
    ever_more_numbers_of_agents,
    ever_new_agents,
    ever_new_layouts,
    ever_new_side_channels,
    ever_new_brains_of_the_same_behaviour,
]


def settled_bytes(peer: Peer) -> int:
    """Gives the memory in use once the last few messages, which may be remembered, are small."""
    for _ in range(2):
        for count in range(1, 12):
            peer.hear(message(agents(count)))
    return tracemalloc.get_traced_memory()[0]


def test_session_whose_simulator_acts_does_not_grow() -> None:
    peer = Peer()
    peer.hear(conversations()[0].greeting)
    peer.session.reset(b"")
    peer.listen(first_message(agent())[1:])
    number = 0

    def live(num_messages: int) -> int:
        """Lets the only agent end in each of three env_steps, and another one begin."""
        nonlocal number
        for _ in range(num_messages):
            choices = Choices(np.zeros((1, 1), "f4"), np.zeros((1, 0), int), np.zeros((1, 1), "f4"))
            steps = []
            for _ in range(3):
                number += 1
                listed = ended(1, number - 1) + agents(1, number)
                steps.append(PlayedStep(choices, listed, statistic(number)))
            peer.play(played_message(BEHAVIOR, steps), 3)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = live(WARM_UP)
        after = live(NUM_MESSAGES)
    finally:
        tracemalloc.stop()
    assert after - before < GROWTH_BYTES, f"{after - before} bytes more"


def statistic(value: int) -> bytes:
    return write_stats([StatsMessage("Height", float(value), StatsAggregation.AVERAGE)])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_session_does_not_grow(kind: Callable[[int], bytes]) -> None:
    peer = Peer()
    peer.hear(conversations()[0].greeting)
    peer.session.reset(b"")
    peer.hear(first_message(agent())[1:])
    tracemalloc.start()
    try:
        for number in range(WARM_UP):
            peer.hear(kind(number))
        before = settled_bytes(peer)
        for number in range(WARM_UP, WARM_UP + NUM_MESSAGES):
            peer.hear(kind(number))
        after = settled_bytes(peer)
    finally:
        tracemalloc.stop()
    assert after - before < GROWTH_BYTES, f"{after - before} bytes more"
