"""ML-Agents' own generated protos read what a simulator that acts says, and skip our fields."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_gym_agent_with_referee import referee_python

from envs.batch import Choices
from envs.bridge.assignments import Assignment, encode_assignment
from envs.bridge.client import PlayedStep, played_message
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import AgentInfoProto, UnityRLOutputProto
from envs.bridge.protocol import COMMUNICATION_VERSION
from envs.graph_policy import PolicyGraph

pytestmark = pytest.mark.referee

READER = """
import json, sys
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto

def read(path):
    with open(path, "rb") as file:
        return UnityMessageProto.FromString(file.read())

hello, played, order = map(read, sys.argv[1:])
print(json.dumps({
    "version": hello.unity_output.rl_initialization_output.communication_version,
    "agents": [info.id for info in played.unity_output.rl_output.agentInfos["Walker"].value],
    "side_channel": played.unity_output.rl_output.side_channel.decode(),
    "is_step": order.unity_input.rl_input.command == 0,
    "actions": len(order.unity_input.rl_input.agent_actions),
    "news": order.unity_input.rl_input.side_channel.decode(),
    "status": [message.header.status for message in (hello, played, order)],
}))
"""


def agents(*ids: int) -> bytes:
    infos = [AgentInfoProto(id=number) for number in ids]
    return UnityRLOutputProto.ListAgentInfoProto(value=infos).SerializeToString()


def test_mlagents_reads_its_own_part_of_our_messages(tmp_path: Path) -> None:
    hello = columns_pb2.Message(header={"status": 200})
    hello.unity_output.rl_initialization_output.communication_version = COMMUNICATION_VERSION
    hello.unity_output.can_act = True
    numbers = np.ones((2, 1), np.float32)
    choices = Choices(numbers, np.zeros((2, 0), np.int64), numbers)
    steps = [PlayedStep(choices, agents(1, 2), b"one"), PlayedStep(choices, agents(2, 3), b"two")]
    order = Assignment(7, {"Walker": PolicyGraph(b"model", np.zeros(1, np.float32))})
    messages = {
        "hello": hello.SerializeToString(),
        "played": played_message("Walker", steps),
        "order": encode_assignment(order, b"news"),
    }
    for name, data in messages.items():
        (tmp_path / name).write_bytes(data)
    words = [referee_python(), "-c", READER, *(str(tmp_path / name) for name in messages)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "version": COMMUNICATION_VERSION,
        "agents": [2, 3],  # of the last env_step, which is where things stand
        "side_channel": "two",
        "is_step": True,
        "actions": 0,
        "news": "news",
        "status": [200, 200, 200],
    }
