from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from png_files import numbered

from envs.bridge.proto.communicator_pb2 import NONE, PNG, UnityRLOutputProto
from envs.bridge.records import FIRST_AGENT_ID, LAST_AGENT_ID, AgentRecords
from envs.spec import (
    CHANNELS_LAST,
    VARIABLE_LENGTH,
    VISUAL,
    ObservationSpec,
    ObservationType,
    vector_sensor,
)

SENSORS = [vector_sensor("a", 1), vector_sensor("b/c", 243), vector_sensor("", 3)]


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=False),
            st.booleans(),
            st.booleans(),
            st.integers(FIRST_AGENT_ID, LAST_AGENT_ID),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_protobuf_reads_exactly_what_was_written(
    rows: list[tuple[float, bool, bool, int]],
) -> None:
    records = AgentRecords(SENSORS, len(rows))
    for index, (reward, done, truncated, agent_id) in enumerate(rows):
        records.reward[index] = reward
        records.done[index] = done
        records.truncated[index] = truncated
        records.set_agent_id(index, agent_id)
        for sensor, column in enumerate(records.obs):
            column[index] = np.arange(column.shape[1]) + index * 100 + sensor * 1000
    agents = UnityRLOutputProto.ListAgentInfoProto.FromString(records.rows(len(rows))).value
    assert [(a.reward, a.done, a.max_step_reached, a.id) for a in agents] == rows
    for index, agent in enumerate(agents):
        assert [o.name for o in agent.observations] == [sensor.name for sensor in SENSORS]
        for sensor, observation in enumerate(agent.observations):
            size = SENSORS[sensor].shape[0]
            assert list(observation.shape) == [size]
            expected = np.arange(size) + index * 100 + sensor * 1000
            np.testing.assert_array_equal(observation.float_data.data, expected)


def test_masks_are_what_protobuf_reads_and_move_nothing_else() -> None:
    records = AgentRecords(SENSORS, 2, num_masked=5)
    records.forbidden[1] = [0, 1, 1, 0, 1]
    records.reward[:] = (3.0, 4.0)
    records.obs[0][1] = 7.0
    first, second = UnityRLOutputProto.ListAgentInfoProto.FromString(records.rows(2)).value
    assert list(first.action_mask) == [False] * 5
    assert list(second.action_mask) == [False, True, True, False, True]
    assert (first.reward, second.reward) == (3.0, 4.0)
    assert (first.id, second.id) == (FIRST_AGENT_ID, FIRST_AGENT_ID)
    assert set(second.observations[0].float_data.data) == {7.0}
    assert not any(second.observations[1].float_data.data)


def test_rows_begin_empty_and_keep_their_length_whatever_they_hold() -> None:
    records = AgentRecords(SENSORS, 2)
    empty = records.rows(2)
    agents = UnityRLOutputProto.ListAgentInfoProto.FromString(empty).value
    for agent in agents:
        assert (agent.reward, agent.done, agent.max_step_reached) == (0.0, False, False)
        assert agent.id == FIRST_AGENT_ID
        assert not any(any(o.float_data.data) for o in agent.observations)
    records.reward[:] = -1.5
    records.done[:] = 1
    records.set_agent_id(1, LAST_AGENT_ID)
    assert len(records.rows(2)) == len(empty)
    assert len(records.rows(1)) * 2 == len(empty)


@pytest.mark.parametrize("agent_id", [0, FIRST_AGENT_ID - 1, LAST_AGENT_ID + 1])
def test_ids_of_another_length_are_refused(agent_id: int) -> None:
    with pytest.raises(ValueError, match="not a varint of four bytes"):
        AgentRecords(SENSORS, 1).set_agent_id(0, agent_id)


def test_raw_images_lie_as_their_sensor_says() -> None:
    first = ObservationSpec((2, 3, 4), VISUAL, ObservationType.DEFAULT, "first")
    last = ObservationSpec((3, 4, 2), CHANNELS_LAST, ObservationType.DEFAULT, "last")
    records = AgentRecords([first, last], 2)
    pixels = numbered(3, 4, 2)
    for column in records.obs:
        assert column.shape == (2, 3, 4, 2)
        column[1] = pixels
    _, agent = UnityRLOutputProto.ListAgentInfoProto.FromString(records.rows(2)).value
    sent = [np.reshape(o.float_data.data, o.shape) for o in agent.observations]
    assert sent[0].shape == (2, 3, 4)
    assert sent[0][1, 2, 3] == sent[1][2, 3, 1] == 123
    assert [list(o.dimension_properties) for o in agent.observations] == [[1, 2, 2], [2, 2, 1]]
    np.testing.assert_array_equal(sent[0], pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(sent[1], pixels)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 2, 1), (1, 3, 0, 2), (1, 3)])
def test_compressed_images_stand_where_their_sensor_does(order: tuple[int, ...]) -> None:
    default, goal = ObservationType.DEFAULT, ObservationType.GOAL_SIGNAL
    sensors = [
        vector_sensor("vector", 2),
        ObservationSpec((4, 5, 6), VISUAL, default, "eye", "uint8"),
        ObservationSpec((3, 2), VARIABLE_LENGTH, goal, "buffer"),
        ObservationSpec((5, 6, 3), CHANNELS_LAST, goal, "last", "uint8"),
    ]
    chosen = [sensors[index] for index in order]
    records = AgentRecords(chosen, 3)
    for row in range(3):
        records.reward[row] = row + 0.5
        records.set_agent_id(row, FIRST_AGENT_ID + row)
        for spec, column in zip(chosen, records.obs, strict=True):
            if spec.dtype == "uint8":
                column[row] = numbered(5, 6, 4, first=row)[:, :, : column.shape[3]]
            else:
                column[row] = np.arange(column[row].size).reshape(column[row].shape) + 10 * row
    agents = UnityRLOutputProto.ListAgentInfoProto.FromString(records.rows(2)).value
    assert [(agent.reward, agent.id - FIRST_AGENT_ID) for agent in agents] == [(0.5, 0), (1.5, 1)]
    for row, agent in enumerate(agents):
        assert [o.name for o in agent.observations] == [spec.name for spec in chosen]
        for spec, observation in zip(chosen, agent.observations, strict=True):
            assert tuple(observation.shape) == spec.shape
            assert observation.observation_type == (spec.observation_type == goal)
            if spec.dtype == "uint8":
                assert observation.compression_type == PNG
                with Image.open(BytesIO(observation.compressed_data)) as image:
                    pixels = np.asarray(image)
                np.testing.assert_array_equal(pixels, numbered(5, 6, 3, first=row))
                mapping = [0, 1, 2, 3, -1, -1] if spec.name == "eye" else []
                assert list(observation.compressed_channel_mapping) == mapping
            else:
                assert observation.compression_type == NONE
                numbers = np.arange(len(observation.float_data.data)) + 10 * row
                assert list(observation.float_data.data) == numbers.tolist()


def test_rows_of_images_begin_black() -> None:
    eye = ObservationSpec((3, 2, 2), VISUAL, ObservationType.DEFAULT, "eye", "uint8")
    records = AgentRecords([eye], 1)
    (agent,) = UnityRLOutputProto.ListAgentInfoProto.FromString(records.rows(1)).value
    with Image.open(BytesIO(agent.observations[0].compressed_data)) as image:
        assert image.getextrema() == ((0, 0), (0, 0), (0, 0))
