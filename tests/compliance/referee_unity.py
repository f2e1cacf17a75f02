"""Runs in the referee's venv: plays Unity with mlagents-envs' own messages and gRPC stubs.

It dials the trainer and tells, at env_step t of agent i, sensor k: i * 100 + t + k * 10000.
What it was told in return is written to a file as JSON when the trainer closes.
"""

# The old client's types are unknown to the tools of the main venv.
# ruff: noqa: ANN001, ANN003, ANN201
# mypy: ignore-errors
import argparse
import json
import uuid

import grpc
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_to_external_pb2_grpc import UnityToExternalProtoStub
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel

HYBRID, LATE = "Hybrid?team=0", "Late?team=1"
SHAPES = {HYBRID: [(3,), (2,)], LATE: [(1,)]}
BRANCHES = {HYBRID: [3, 2], LATE: []}
NUM_CONTINUOUS = {HYBRID: 2, LATE: 1}


def agent_info(behavior, agent, step, **fields):
    info = AgentInfoProto(id=agent, reward=agent * 100 + step, **fields)
    for sensor, shape in enumerate(SHAPES[behavior]):
        observation = info.observations.add()
        observation.shape.extend(shape)
        observation.name = f"sensor{sensor}"
        observation.dimension_properties.append(1)
        value = agent * 100 + step + sensor * 10000
        observation.float_data.data.extend([value] * shape[0])
    return info


def agents_at(step):
    """What is told at an env_step, by behaviour; the lists are in the order of the message."""
    hybrid = [agent_info(HYBRID, 1, step, action_mask=[False, True, False, False, True])]
    if step % 2 == 0:  # agent 2 asks at every other env_step only
        hybrid.insert(0, agent_info(HYBRID, 2, step, group_id=7, group_reward=0.5))
    # Agent 10, 11, 12, ... : a new episode at every third env_step, odd ones are cut short.
    episode, age = divmod(step, 3)
    if age == 0 and episode > 0:
        ended = 10 + episode - 1
        hybrid.append(agent_info(HYBRID, ended, step, done=True, max_step_reached=ended % 2 == 1))
    hybrid.append(agent_info(HYBRID, 10 + episode, step))
    if step < 4:
        return {HYBRID: hybrid}
    return {HYBRID: hybrid, LATE: [agent_info(LATE, 3, step)] if step % 5 else []}


def brain(behavior):
    parameters = BrainParametersProto(brain_name=behavior, is_training=True)
    parameters.action_spec.num_continuous_actions = NUM_CONTINUOUS[behavior]
    parameters.action_spec.num_discrete_actions = len(BRANCHES[behavior])
    parameters.action_spec.discrete_branch_sizes.extend(BRANCHES[behavior])
    return parameters


def messages_on(data):
    """Takes the side channel bytes apart: channel and payload, as the old client does it."""
    offset = 0
    while offset < len(data):
        channel = uuid.UUID(bytes_le=data[offset : offset + 16])
        size = int.from_bytes(data[offset + 16 : offset + 20], "little")
        yield str(channel), IncomingMessage(data[offset + 20 : offset + 20 + size])
        offset += 20 + size


def told(answer):
    rl_input = answer.unity_input.rl_input
    parameters = {}
    channels = []
    for channel, message in messages_on(rl_input.side_channel):
        channels.append(channel)
        if channel == "534c891e-810f-11ea-a9d0-822485860400":
            key = message.read_string()
            assert message.read_int32() == 0
            parameters[key] = message.read_float32()
    return {
        "command": rl_input.command,
        "parameters": parameters,
        "channels": channels,
        "actions": {
            name: [
                {
                    "continuous": list(action.continuous_actions),
                    "discrete": list(action.discrete_actions),
                    "deprecated": list(action.vector_actions_deprecated),
                }
                for action in actions.value
            ]
            for name, actions in rl_input.agent_actions.items()
        },
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlagents-port", required=True)
    parser.add_argument("--output", required=True)
    options, _ = parser.parse_known_args()
    exchange = UnityToExternalProtoStub(
        grpc.insecure_channel(f"localhost:{options.mlagents_port}")
    ).Exchange
    hello = UnityMessageProto()
    hello.header.status = 200
    introduction = hello.unity_output.rl_initialization_output
    introduction.name = "AcademySingleton"
    introduction.communication_version = UnityEnvironment.API_VERSION
    introduction.package_version = "2.2.1-exp.1"
    introduction.capabilities.CopyFrom(UnityEnvironment._get_capabilities_proto())
    welcome = exchange(hello, wait_for_ready=True).unity_input.rl_initialization_input
    empty = UnityMessageProto()
    empty.header.status = 200
    answer = exchange(empty)
    record = {
        "seed": welcome.seed,
        "num_areas": welcome.num_areas,
        "communication_version": welcome.communication_version,
        "package_version": welcome.package_version,
        "base": welcome.capabilities.baseRLCapabilities,
        "answers": [],
    }
    known = set()
    step = 0
    while answer.header.status == 200:
        record["answers"].append(told(answer))
        message = UnityMessageProto()
        message.header.status = 200
        agents = agents_at(step)
        for name, infos in agents.items():
            message.unity_output.rl_output.agentInfos[name].value.extend(infos)
            if infos and name not in known:
                known.add(name)
                message.unity_output.rl_initialization_output.brain_parameters.append(brain(name))
        if step == 2:
            stat = OutgoingMessage()
            stat.write_string("Referee/Height")
            stat.write_float32(1.25)
            stat.write_int32(1)
            channel = StatsSideChannel()
            channel.queue_message_to_send(stat)
            message.unity_output.rl_output.side_channel = (
                channel.channel_id.bytes_le
                + len(stat.buffer).to_bytes(4, "little")
                + bytes(stat.buffer)
            )
        try:
            answer = exchange(message)
        except grpc.RpcError:
            break
        step += 1
    with open(options.output, "w") as file:
        json.dump(record, file)


if __name__ == "__main__":
    main()
