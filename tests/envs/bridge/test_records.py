from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.bridge.proto.communicator_pb2 import UnityRLOutputProto
from envs.bridge.records import FIRST_AGENT_ID, LAST_AGENT_ID, AgentRecords
from envs.spec import vector_sensor

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
