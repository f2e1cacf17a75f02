"""What both sides say before the first env_step, over a real socket."""

from __future__ import annotations

import pytest
from one_simulator import connect, fleet_and_client, pump, receive_loss
from scripted_client import (
    ScriptedClient,
    greeting,
)

from envs.bridge import side_channels
from envs.bridge.proto.communicator_pb2 import RESET
from envs.bridge.side_channels import EngineConfiguration
from envs.errors import (
    WrongProtocolError,
)


def test_handshake_sends_seed_versions_and_capabilities() -> None:
    with fleet_and_client(seed=7, num_areas=3) as (fleet, client):
        reply = pump(fleet, client.send(greeting()))
        assert reply.header.status == 200
        said = reply.unity_input.rl_initialization_input
        assert (said.seed, said.num_areas) == (7, 3)
        assert (said.communication_version, said.package_version) == ("1.5.0", "1.1.0")
        assert {field.name: value for field, value in said.capabilities.ListFields()} == {
            "baseRLCapabilities": True,
            "concatenatedPngObservations": True,
            "compressedChannelMapping": True,
            "hybridActions": True,
            "variableLengthObservation": True,
            "multiAgentGroups": True,
        }


def test_simulators_have_seeds_of_their_own() -> None:
    with fleet_and_client(seed=7, num_simulators=2) as (fleet, _first):
        client = ScriptedClient(fleet.ports[1])
        said = pump(fleet, client.send(greeting())).unity_input.rl_initialization_input
        assert said.seed == 8
        client.close()


def test_first_input_is_a_reset_with_parameters_then_engine_configuration() -> None:
    engine = EngineConfiguration(width=320, time_scale=5.0)
    with fleet_and_client(engine=engine, environment_parameters={"mass": 2.0}) as (fleet, client):
        said = connect(fleet, client).unity_input.rl_input
        assert said.command == RESET
        assert not said.agent_actions
        expected = side_channels.environment_parameters({"mass": 2.0})
        assert said.side_channel == expected + side_channels.engine_configuration(engine)


@pytest.mark.parametrize("version", ["0.15.0", "2.0.0", "", "eleven"])
def test_wrong_protocol_version_is_refused_with_both_versions(version: str) -> None:
    with fleet_and_client() as (fleet, client):
        client.send(greeting(version))
        loss = receive_loss(fleet)
        assert isinstance(loss.error, WrongProtocolError)
        assert f"speaks protocol {version!r}" in str(loss.error)
        assert "this trainer speaks 1.5.0" in str(loss.error)
        with pytest.raises(WrongProtocolError):
            fleet.recv()


@pytest.mark.parametrize("version", ["1.0.0", "1.9.3"])
def test_other_minor_versions_are_accepted(version: str) -> None:
    with fleet_and_client() as (fleet, client):
        assert pump(fleet, client.send(greeting(version))).header.status == 200
