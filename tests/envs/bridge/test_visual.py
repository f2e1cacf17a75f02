"""Agents with images and entities, from bytes to columns, and through a fleet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from one_simulator import connect, fleet_and_client, pump, receive, receive_loss
from png_files import numbered, png
from scripted_client import BEHAVIOR, ScriptedClient, answer, brain, greeting
from scripted_client import step as step_message

from envs.batch import Actions
from envs.bridge import images
from envs.bridge.codec import AgentDecoder, AgentTable
from envs.bridge.proto.communicator_pb2 import (
    PNG,
    AgentInfoProto,
    BrainParametersProto,
    ObservationProto,
    UnityRLOutputProto,
)
from envs.bridge.wire_spec import build_spec
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.fleet import Fleet, FleetPlan, LaunchPlan

HEIGHT, WIDTH = 5, 4
Pixels = NDArray[np.uint8]


def image_of(agent: int, step: int = 0, channels: int = 3) -> Pixels:
    """(H, W, channels) pixels that differ between agents and steps."""
    return numbered(HEIGHT, WIDTH, channels, first=7 * agent + 31 * step)


def camera(pixels: Pixels, *, is_last: bool = False) -> ObservationProto:
    """A visual sensor of three channels per PNG, with a mapping where there are more."""
    channels = pixels.shape[2]
    shape = [HEIGHT, WIDTH, channels] if is_last else [channels, HEIGHT, WIDTH]
    files = [png(pixels[:, :, first : first + 3]) for first in range(0, channels, 3)]
    return ObservationProto(
        shape=shape,
        dimension_properties=[2, 2, 1] if is_last else [1, 2, 2],
        compression_type=PNG,
        compressed_data=b"".join(files),
        name="Camera",
    )


def numbers(array: NDArray[Any], properties: Sequence[int], name: str) -> ObservationProto:
    observation = ObservationProto(shape=array.shape, dimension_properties=properties, name=name)
    observation.float_data.data.extend(array.ravel().tolist())
    return observation


def agent(agent_id: int, *observations: ObservationProto, **fields: Any) -> AgentInfoProto:
    return AgentInfoProto(id=agent_id, reward=agent_id + 0.5, observations=observations, **fields)


def decoder_of(first: AgentInfoProto) -> AgentDecoder:
    listed = UnityRLOutputProto.ListAgentInfoProto(value=[first]).SerializeToString()
    found = build_spec(BrainParametersProto(brain_name="B"), listed)
    assert found is not None
    return AgentDecoder("B", *found)


def decode(decoder: AgentDecoder, *agents: AgentInfoProto) -> AgentTable:
    data = UnityRLOutputProto.ListAgentInfoProto(value=agents).SerializeToString()
    table = decoder.decode(data)
    assert table is not None
    return table


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("channels", [3, 6])
def test_images_of_all_agents_become_one_column_of_bytes(channels: int, is_last: bool) -> None:
    agents = [
        agent(row, camera(image_of(row, channels=channels), is_last=is_last)) for row in range(20)
    ]
    decoder = decoder_of(agents[0])
    for listed in (agents, agents[:1], agents[::-1]):
        (column,) = decode(decoder, *listed).obs
        assert column.dtype == np.uint8
        assert column.shape == (len(listed), channels, HEIGHT, WIDTH)
        for row, info in enumerate(listed):
            expected = image_of(info.id, channels=channels)
            np.testing.assert_array_equal(column[row], np.moveaxis(expected, 2, 0))


def test_vector_image_entities_and_goal_keep_their_columns_apart() -> None:
    def info(row: int) -> AgentInfoProto:
        vector = np.array([row, row + 0.25], np.float32)
        entities = np.arange(6.0).reshape(3, 2) + 10 * row
        raw = np.arange(8.0).reshape(2, 2, 2) + 100 * row
        return agent(
            row,
            numbers(entities, [4, 1], "Buffer"),
            camera(image_of(row)),
            numbers(raw, [1, 2, 2], "Map"),
            numbers(vector, [1], "Vector"),
            done=row == 1,
            group_id=row % 2,
        )

    table = decode(decoder_of(info(0)), *[info(row) for row in range(4)])
    entities, eye, raw, vector = table.obs
    assert [column.dtype for column in table.obs] == [np.float32, np.uint8, np.float32, np.float32]
    assert entities[2].tolist() == [[20, 21], [22, 23], [24, 25]]
    assert eye[3, 1, 2, 1] == 7 * 3 + 100 + 20 + 1
    assert raw[1].tolist() == [[[100, 101], [102, 103]], [[104, 105], [106, 107]]]
    assert vector[3].tolist() == [3, 3.25]
    assert table.reward.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert table.done is not None
    assert table.done.tolist() == [False, True, False, False]
    assert table.agent_id.tolist() == [0, 1, 2, 3]
    assert table.group_id.tolist() == [0, 1, 0, 1]


def test_raw_images_with_channels_last_are_turned_on_the_fast_path() -> None:
    def info(row: int) -> AgentInfoProto:
        pixels = image_of(row, channels=2).astype(np.float32) / 8
        entities = np.full((3, 2), row)
        return agent(row, numbers(pixels, [2, 2, 1], "Eye"), numbers(entities, [4, 1], "Buffer"))

    decoder = decoder_of(info(0))
    assert not decoder.has_images  # nothing compressed: columns without parsing
    for count in (4, 4, 2):
        eye, entities = decode(decoder, *[info(row) for row in range(count)]).obs
        assert eye.shape == (count, 2, HEIGHT, WIDTH)
        assert eye[1, 1, 3, 2] == (7 + 100 + 30 + 2) / 8
        assert entities[1].tolist() == [[1, 1]] * 3


def test_not_finite_number_beside_an_image_names_its_sensor() -> None:
    bad = agent(4, camera(image_of(4)), numbers(np.array([1.0, np.nan]), [1], "Vector"))
    good = agent(3, camera(image_of(3)), numbers(np.array([1.0, 2.0]), [1], "Vector"))
    decoder = decoder_of(good)
    table = decode(decoder, good, bad)
    assert table.bad is not None
    assert table.bad.tolist() == [False, True]
    assert "agent 4: sensor 'Vector' holds nan at index 1" in decoder.words_for_bad(table, 1)


def with_data(observation: ObservationProto, data: bytes) -> ObservationProto:
    observation.compressed_data = data
    return observation


def with_mapping(observation: ObservationProto, *mapping: int) -> ObservationProto:
    observation.compressed_channel_mapping.extend(mapping)
    return observation


def as_numbers(observation: ObservationProto) -> ObservationProto:
    observation.compression_type = 0  # type: ignore[assignment]  # NONE
    observation.float_data.data.extend([0.0] * (3 * HEIGHT * WIDTH))
    return observation


def of_shape(observation: ObservationProto, *shape: int) -> ObservationProto:
    observation.shape[:] = shape
    return observation


GOOD = image_of(0)
MISTAKES = {
    "truncated": (with_data(camera(GOOD), png(GOOD)[:-20]), "a truncated PNG found"),
    "empty": (with_data(camera(GOOD), b""), "nothing found where a PNG is expected"),
    "no png": (with_data(camera(GOOD), b"\xff\xd8\xff\xe0JPEG"), "ff d8 ff e0 .* where a PNG"),
    "other size": (
        with_data(camera(GOOD), png(numbered(4, 5, 3))),
        r"a PNG of 4 x 5 pixels .* 5 x 4 expected",
    ),
    "mapping": (with_mapping(camera(GOOD), 0, 0, 2), r"channel mapping \[0, 0, 2\] found"),
    "turns raw": (as_numbers(camera(GOOD)), "plain numbers found, PNG images expected"),
    "other shape": (of_shape(camera(GOOD), 1, HEIGHT, WIDTH), r"\(1, 5, 4\) found, \(3, 5, 4\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_image_names_behaviour_agent_and_sensor(mistake: str) -> None:
    observation, words = MISTAKES[mistake]
    decoder = decoder_of(agent(0, camera(GOOD)))
    listed = [agent(row, camera(image_of(row))) for row in range(12)]
    listed[9] = agent(41, observation)
    with pytest.raises(BadDataError, match=words) as caught:
        decode(decoder, *listed)
    assert str(caught.value).startswith("behaviour 'B', agent 41, sensor 'Camera'")


def test_raw_sensor_that_turns_to_png_is_refused() -> None:
    raw = agent(1, as_numbers(camera(GOOD)))
    with pytest.raises(BadDataError, match="agent 2, sensor 'Camera': PNG images found, plain nu"):
        decode(decoder_of(raw), raw, agent(2, camera(GOOD)))


# ---- through a fleet ----------------------------------------------------------------------------


def send_images(
    fleet: Fleet, client: ScriptedClient, step: int, *, is_first: bool = False
) -> NDArray[Any]:
    """Sends two agents' images, gives the column that arrives, and answers."""
    infos = [agent(row, camera(image_of(row, step))) for row in (1, 2)]
    future = client.send(step_message({BEHAVIOR: infos}, [brain()] if is_first else []))
    message = receive(fleet)
    decisions = message.decisions[BEHAVIOR]
    assert decisions.agent_id.tolist() == [1, 2]
    fleet.send(0, {BEHAVIOR: Actions(np.zeros((2, 2), np.float32), np.zeros((2, 0), np.int32))})
    assert answer(future).header.status == 200
    return decisions.obs[0]


def test_images_are_decoded_by_other_threads_as_they_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []
    decode_here = images.decode

    def watched(image: images.CompressedImage) -> None:
        threads.append(threading.current_thread().name)
        decode_here(image)

    monkeypatch.setattr(images, "decode", watched)
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        for step in range(4):
            column = send_images(fleet, client, step, is_first=step == 0)
            for row, number in enumerate((1, 2)):
                expected = np.moveaxis(image_of(number, step), 2, 0)
                np.testing.assert_array_equal(column[row], expected)
    # The first message is decoded where its behaviour becomes known.
    assert threads[:2] == [threading.current_thread().name] * 2
    assert len(threads) == 8
    assert all(name.startswith("images") for name in threads[2:])


def test_bad_image_ends_the_simulator_when_its_message_is_received() -> None:
    with fleet_and_client(max_lifetime_restarts=0) as (fleet, client):
        connect(fleet, client)
        send_images(fleet, client, 0, is_first=True)
        bad = agent(1, with_data(camera(GOOD), png(GOOD)[:30]))
        client.send(step_message({BEHAVIOR: [bad]}))
        loss = receive_loss(fleet)
        assert isinstance(loss.error, BadDataError)
        assert "agent 1, sensor 'Camera'" in str(loss.error)
        assert loss.lanes["Walker"].tolist() == [0, 1]


def test_reset_drops_images_that_wait_and_play_goes_on() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        send_images(fleet, client, 0, is_first=True)
        future = client.send(step_message({BEHAVIOR: [agent(1, camera(image_of(1)))]}))
        fleet.reset()
        assert pump(fleet, future).unity_input.rl_input.command == 1
        column = send_images(fleet, client, 3)
        np.testing.assert_array_equal(column[0], np.moveaxis(image_of(1, 3), 2, 0))


SLEEPS = LaunchPlan(command=(sys.executable, "-c", "import time; time.sleep(60)"), kind="gym")


@pytest.mark.parametrize("launch", [None, SLEEPS], ids=["editor", "process that lives on"])
def test_message_of_a_broken_connection_is_dropped_when_its_images_are_decoded(
    launch: LaunchPlan | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    is_over = threading.Event()
    decode_here = images.decode

    def slow(image: images.CompressedImage) -> None:
        if threading.current_thread().name.startswith("images"):
            is_over.wait(timeout=30)
        decode_here(image)

    monkeypatch.setattr(images, "decode", slow)
    plan = FleetPlan(launch=launch, max_lifetime_restarts=0, logs_dir=tmp_path)
    with Fleet(plan) as fleet:
        client = ScriptedClient(fleet.ports[0])
        connect(fleet, client)
        send_images(fleet, client, 0, is_first=True)
        client.send(step_message({BEHAVIOR: [agent(1, camera(GOOD))]}))
        while not images.pool()._work_queue.empty():  # until a thread has it
            assert fleet.recv(timeout_s=0.05) == []
        client.close()
        if launch is not None:
            while not fleet._simulators[0].has_hung_up:
                assert fleet.recv(timeout_s=0.05) == []
            is_over.set()  # while the fleet waits for the process to end
        loss = receive_loss(fleet)
        is_over.set()
        assert "broke the connection" in str(loss.error)


def test_sensor_that_nobody_knows_is_not_tried_again() -> None:
    matrix = ObservationProto(shape=[2, 2], name="Matrix")
    matrix.float_data.data.extend([0.0] * 4)
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        client.send(step_message({BEHAVIOR: [agent(1, matrix)]}, [brain()]))
        loss = receive_loss(fleet)
        assert isinstance(loss.error, UnsupportedSpaceError)
        assert "a restart would not change what its agents observe" in str(loss.error)
        assert "sensor 'Matrix'" in str(loss.error)
        assert "variable-length observations" in str(loss.error)


def test_images_of_a_package_before_dimension_properties_have_channels_last() -> None:
    raw = np.arange(HEIGHT * WIDTH * 2.0).reshape(HEIGHT, WIDTH, 2)
    with fleet_and_client() as (fleet, client):
        pump(fleet, client.send(greeting("1.4.0")))
        pump(fleet, client.send(step_message({})))
        client.send(step_message({BEHAVIOR: [agent(1, numbers(raw, [], "Eye"))]}, [brain()]))
        message = receive(fleet)
        (sensor,) = message.new_behaviors[BEHAVIOR].observation_specs
        assert sensor.shape == (2, HEIGHT, WIDTH)
        np.testing.assert_array_equal(message.decisions[BEHAVIOR].obs[0][0], np.moveaxis(raw, 2, 0))
