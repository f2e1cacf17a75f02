"""Runs in the referee's venv: plays a Unity full of cameras with mlagents-envs' own messages.

What it sends of each sensor, as mlagents-envs' own `process_pixels` reads it, (H, W, C) of 0 to 1,
is written to a file when the trainer closes: `step_agent_sensor`.
"""

# The old client's types are unknown to the tools of the main venv.
# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
import argparse
import io

import grpc
import numpy as np
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.observation_pb2 import PNG
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_to_external_pb2_grpc import UnityToExternalProtoStub
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.rpc_utils import process_pixels
from PIL import Image

BEHAVIOR = "Cameras?team=0"
HEIGHT, WIDTH = 9, 7
# Name: channels, PNGs, channel mapping, dimension properties.
SENSORS = {
    "colour": (3, 1, [], [2, 2, 1]),
    "grey": (1, 1, [], [2, 2, 1]),
    "grey mapped": (1, 1, [0, 0, 0], [2, 2, 1]),
    "grey stack": (3, 3, [0, 0, 0, 1, 1, 1, 2, 2, 2], []),
    "mixed": (4, 2, [3, -1, 0, 1, 2, 0], [2, 2, 1]),
    "seven": (7, 3, [], []),
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
    said = exchange(hello, wait_for_ready=True).unity_input.rl_initialization_input.capabilities
    assert said.concatenatedPngObservations and said.compressedChannelMapping
    empty = UnityMessageProto()
    empty.header.status = 200
    answer = exchange(empty)
    generator = np.random.default_rng(0)
    read = {}
    step = 0
    while answer.header.status == 200:
        message = UnityMessageProto()
        message.header.status = 200
        if step == 0:
            brain = BrainParametersProto(brain_name=BEHAVIOR, is_training=True)
            brain.action_spec.num_continuous_actions = 1
            message.unity_output.rl_initialization_output.brain_parameters.append(brain)
        agents = message.unity_output.rl_output.agentInfos[BEHAVIOR].value
        for agent in range(4):
            agents.append(agent_info(agent, step, generator, read))
        try:
            answer = exchange(message)
        except grpc.RpcError:
            break
        step += 1
    np.savez(options.output, **read)


def agent_info(agent, step, generator, read):
    info = AgentInfoProto(id=agent, reward=step)
    for index, (name, (channels, num_files, mapping, properties)) in enumerate(SENSORS.items()):
        data = b""
        for _ in range(num_files):
            file = io.BytesIO()
            pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(file, "PNG")
            data += file.getvalue()
        observation = info.observations.add()
        observation.shape.extend([HEIGHT, WIDTH, channels])
        observation.dimension_properties.extend(properties)
        observation.compressed_channel_mapping.extend(mapping)
        observation.compression_type = PNG
        observation.compressed_data = data
        observation.name = name
        read[f"{step}_{agent}_{index}"] = process_pixels(data, channels, mapping)
    entities = info.observations.add()
    entities.shape.extend([3, 2])
    entities.dimension_properties.extend([4, 1])
    entities.name = "things"
    entities.float_data.data.extend([agent + 0.5] * 4 + [0, 0])
    return info


if __name__ == "__main__":
    main()
