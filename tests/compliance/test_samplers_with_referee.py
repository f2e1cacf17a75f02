"""mlagents-envs' own EnvironmentParametersChannel writes samplers; ours must be the same bytes."""

from __future__ import annotations

import subprocess

import pytest
from test_gym_agent_with_referee import referee_python

from envs.bridge.side_channels import Sampler, SamplerKind, environment_parameters, unframe

pytestmark = pytest.mark.referee

THEIRS = """
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel

channel = EnvironmentParametersChannel()
channel.set_float_parameter("gravity", 9.81)
channel.set_uniform_sampler_parameters("mass", 0.5, 10, 1337)
channel.set_gaussian_sampler_parameters("wind", 1, 0.25, 1338)
channel.set_multirangeuniform_sampler_parameters("size", [[0, 1], [4, 8]], 7)
print(channel.channel_id, *(bytes(message).hex() for message in channel.message_queue))
"""


def test_parameters_are_the_bytes_of_ml_agents() -> None:
    command = [referee_python(), "-c", THEIRS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    channel, *messages = done.stdout.split()
    ours = environment_parameters(
        {
            "gravity": 9.81,
            "mass": Sampler(1337, SamplerKind.UNIFORM, (0.5, 10.0)),
            "wind": Sampler(1338, SamplerKind.GAUSSIAN, (1.0, 0.25)),
            "size": Sampler(7, SamplerKind.MULTI_RANGE_UNIFORM, (0.0, 1.0, 4.0, 8.0)),
        }
    )
    found = list(unframe(ours))
    assert [payload.hex() for _, payload in found] == messages
    assert {str(identifier) for identifier, _ in found} == {channel}
