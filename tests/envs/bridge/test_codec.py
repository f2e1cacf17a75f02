"""The column decoder against ordinary protobuf parsing, and the action encoder against it, too."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.batch import Actions
from envs.bridge.codec import (
    ActionEncoder,
    AgentDecoder,
    AgentTable,
    encode_answer,
    parse_message,
)
from envs.bridge.plan import MAX_LAYOUTS
from envs.bridge.proto.communicator_pb2 import (
    RESET,
    STEP,
    AgentInfoProto,
    ObservationProto,
    UnityMessageProto,
    UnityRLInputProto,
    UnityRLOutputProto,
)
from envs.errors import BadDataError
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

SHAPES = ((3,), (2, 2))
BRANCHES = (3, 2)
AgentList = UnityRLOutputProto.ListAgentInfoProto

SPEC = BehaviorSpec(
    [
        ObservationSpec(
            shape, (DimensionProperty.NONE,) * len(shape), ObservationType.DEFAULT, name
        )
        for shape, name in zip(SHAPES, ("first", "second"), strict=True)
    ],
    ActionSpec(2, BRANCHES),
)

floats = st.one_of(st.just(0.0), st.floats(width=32, allow_nan=False, allow_infinity=False))
int32s = st.one_of(
    st.integers(0, 300), st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 127, 128, -1])
)
masks: st.SearchStrategy[list[bool]] = st.one_of(
    st.just([]),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.sampled_from([[True] * 3, [True] * 7]),
)


def delimited(number: int, payload: bytes) -> bytes:
    """A length-delimited field; payloads of the tests are short."""
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


def floats_field(values: list[float], is_packed: bool) -> bytes:
    raw = [struct.pack("<f", value) for value in values]
    if is_packed:
        return delimited(1, b"".join(raw))
    return b"".join(b"\x0d" + value for value in raw)  # field 1 as 32-bit numbers, one by one


# Things that protobuf allows; the last four are left to the ordinary parser.
HARMLESS = ("none", "none", "unknown fields", "written zeros", "shuffled")
IRREGULAR = ("twice", "mask not packed", "floats not packed", "floats in pieces")


@st.composite
def observations(draw: st.DrawFn, index: int, oddity: str) -> bytes:
    size = int(np.prod(SHAPES[index]))
    values = draw(st.lists(floats, min_size=size, max_size=size))
    if oddity == "floats in pieces":
        data = floats_field(values[:1], True) + floats_field(values[1:], True)
    else:
        data = floats_field(values, is_packed=oddity != "floats not packed")
    head = ObservationProto(shape=SHAPES[index], dimension_properties=[1] * len(SHAPES[index]))
    parts = [head.SerializeToString(), delimited(4, data)]
    if draw(st.booleans()):
        parts.append(ObservationProto(name="s").SerializeToString())
    if oddity == "shuffled":
        parts = draw(st.permutations(parts))
    return delimited(13, b"".join(parts))


@st.composite
def agents(draw: st.DrawFn, oddities: Sequence[str]) -> bytes:
    """One agent's record; zeros are left out, as proto3 does."""
    oddity = draw(st.sampled_from(oddities))
    reward, done = draw(floats), draw(st.sampled_from([False, False, True]))
    infos = [
        AgentInfoProto(reward=reward),
        AgentInfoProto(done=done),
        AgentInfoProto(max_step_reached=draw(st.booleans())),
        AgentInfoProto(id=draw(int32s)),
        AgentInfoProto(group_id=draw(st.sampled_from([0, 0, 5, 200]))),
        AgentInfoProto(group_reward=draw(st.sampled_from([0.0, 1.5]))),
        AgentInfoProto(action_mask=draw(masks)),
    ]
    parts = [info.SerializeToString() for info in infos]
    if oddity == "unknown fields":
        parts.append(b"\x98\x06\x2a")  # field 99, varint 42
        parts.append(delimited(12, b"?!"))
    elif oddity == "written zeros":
        parts += [b"\x3d" + bytes(4)] if not reward else []
        parts += [b"\x40\x00"] if not done else []
    elif oddity == "twice":
        parts.append(AgentInfoProto(reward=3.0, id=77).SerializeToString())
    elif oddity == "mask not packed":
        parts.append(b"\x58\x01")  # one more element of action_mask
    if oddity == "shuffled":
        parts = draw(st.permutations(parts))
    return b"".join(parts) + draw(observations(0, oddity)) + draw(observations(1, oddity))


def messages(max_size: int) -> st.SearchStrategy[list[bytes]]:
    """Records of one message: mostly ordinary ones, sometimes with irregular ones among them."""
    ordinary = agents(HARMLESS)
    return st.one_of(
        st.lists(ordinary, min_size=1, max_size=max_size),
        st.lists(ordinary, min_size=1, max_size=max_size),
        st.lists(st.one_of(ordinary, agents(IRREGULAR)), min_size=1, max_size=max_size),
    )


def as_list(records: list[bytes]) -> bytes:
    pieces = []
    for record in records:
        length = len(record)
        prefix = [length] if length < 128 else [length & 127 | 128, length >> 7]
        pieces.append(bytes([0x0A, *prefix]) + record)
    return b"".join(pieces)


def require_equal(table: AgentTable, expected: AgentList) -> None:
    """Compares a table with what field access says, agent by agent."""
    assert len(table.reward) == len(expected.value)
    for row, agent in enumerate(expected.value):
        assert table.reward[row] == np.float32(agent.reward)
        assert table.group_reward[row] == np.float32(agent.group_reward)
        assert (False if table.done is None else table.done[row]) == agent.done
        truncated = False if table.max_step_reached is None else table.max_step_reached[row]
        assert truncated == agent.max_step_reached
        assert table.agent_id[row] == agent.id
        assert table.group_id[row] == agent.group_id
        assert table.action_mask is not None
        allowed = [not forbidden for forbidden in agent.action_mask]
        assert table.action_mask[row].tolist() == (allowed if len(allowed) == 5 else [True] * 5)
        for column, observation, shape in zip(table.obs, agent.observations, SHAPES, strict=True):
            assert column[row].shape == shape
            assert column.dtype == np.float32
            assert column[row].ravel().tolist() == list(observation.float_data.data)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(messages(6), min_size=1, max_size=4))
def test_decoding_equals_ordinary_parsing(sequence: list[list[bytes]]) -> None:
    decoder = AgentDecoder("B", SPEC)
    for records in sequence:  # one decoder, so that it meets both new and remembered layouts
        data = as_list(records)
        table = decoder.decode(data)
        assert table is not None
        require_equal(table, AgentList.FromString(data))
        again = decoder.decode(data)
        assert again is not None
        require_equal(again, AgentList.FromString(data))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(messages(3), st.data())
def test_damaged_bytes_give_the_ordinary_result_or_bad_data(
    records: list[bytes], data: st.DataObject
) -> None:
    decoder = AgentDecoder("B", SPEC)
    whole = as_list(records)
    decoder.decode(whole)
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(whole) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    damaged_bytes = bytes(damaged[: data.draw(st.integers(1, len(whole)))])
    try:
        table = decoder.decode(damaged_bytes)
    except BadDataError:
        return
    expected = AgentList.FromString(damaged_bytes)  # must be readable for protobuf, too
    if table is None:
        assert not expected.value
    else:
        require_equal(table, expected)


def walker_agents(num_agents: int, first_id: int = 1000) -> AgentList:
    """Agents whose numbers reveal mix-ups: agent * 100 + element."""
    found = AgentList()
    for row in range(num_agents):
        agent = found.value.add(id=first_id + row, reward=row + 0.5)
        for shape in SHAPES:
            observation = agent.observations.add(shape=shape, dimension_properties=[1] * len(shape))
            values = np.arange(np.prod(shape)) + 100 * row
            observation.float_data.data.extend(values.tolist())
    return found


def test_one_agent_that_ends_among_many_keeps_the_order() -> None:
    decoder = AgentDecoder("B", SPEC)
    for ending in (3, 0, 9):
        message = walker_agents(10, first_id=120)  # ids of one and of two bytes
        message.value[ending].done = True
        message.value[5].reward = 0.0
        table = decoder.decode(message.SerializeToString())
        assert table is not None
        require_equal(table, message)
        assert table.done is not None
        assert np.flatnonzero(table.done).tolist() == [ending]


def test_records_of_equal_length_with_other_fields_are_told_apart() -> None:
    decoder = AgentDecoder("B", SPEC)
    rest = b"".join(
        delimited(13, observation.SerializeToString())
        for observation in walker_agents(1).value[0].observations
    )
    # An id of three bytes, or one of a single byte and a done of two behind it.
    long_id = AgentInfoProto(id=20_000).SerializeToString()
    short_id = AgentInfoProto(id=5).SerializeToString() + b"\x40\x01"
    assert len(long_id) == len(short_id)
    for bodies in ([long_id], [short_id], [long_id, short_id, long_id]):
        data = as_list([body + rest for body in bodies])
        table = decoder.decode(data)
        assert table is not None
        require_equal(table, AgentList.FromString(data))


def test_sparse_rewards_ends_and_growing_ids_in_ever_new_orders() -> None:
    generator = np.random.default_rng(0)
    decoder = AgentDecoder("B", SPEC)
    for number in range(300):
        # Ids of one to three bytes: an id of three is as long as one of a byte and a done.
        first_id = (100, 120, 16_380, 2**21 - 4)[number // 75]
        message = walker_agents(int(generator.integers(1, 9)), first_id)
        for record in message.value:
            record.reward *= generator.random() < 0.3
            record.done = generator.random() < 0.2
            record.group_reward = 2.5 if generator.random() < 0.2 else 0.0
            record.action_mask.extend([True, False, False, True, False] * int(number % 3 == 0))
        data = message.SerializeToString()
        for _ in range(int(generator.integers(1, 4))):  # sometimes the same structure again
            table = decoder.decode(data)
            assert table is not None
            require_equal(table, message)


def test_more_layouts_than_are_remembered_are_read_all_the_same() -> None:
    decoder = AgentDecoder("B", SPEC)
    for length in [*range(MAX_LAYOUTS + 5), 3]:
        message = walker_agents(2)
        message.value[1].observations[0].name = "s" * length
        table = decoder.decode(message.SerializeToString())
        assert table is not None
        require_equal(table, message)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [((300, 7), 7), ((7, 300), 300)],
)
def test_last_of_two_ids_counts_whatever_their_lengths(ids: tuple[int, int], expected: int) -> None:
    body = b"".join(AgentInfoProto(id=agent_id).SerializeToString() for agent_id in ids)
    for observation in walker_agents(1).value[0].observations:
        body += delimited(13, observation.SerializeToString())
    table = AgentDecoder("B", SPEC).decode(as_list([body]))
    assert table is not None
    assert table.agent_id.tolist() == [expected]


def test_unchanged_ids_come_back_as_the_same_array() -> None:
    decoder = AgentDecoder("B", SPEC)
    first = decoder.decode(walker_agents(4).SerializeToString())
    second = decoder.decode(walker_agents(4).SerializeToString())
    assert first is not None
    assert second is not None
    assert first.agent_id is second.agent_id
    assert first.obs[0] is not second.obs[0]


def test_empty_list_has_no_agents() -> None:
    assert AgentDecoder("B", SPEC).decode(b"") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_number_that_is_not_finite_marks_its_agent(value: float) -> None:
    message = walker_agents(4)
    message.value[2].observations[1].float_data.data[3] = value
    decoder = AgentDecoder("B", SPEC)
    table = decoder.decode(message.SerializeToString())
    assert table is not None
    assert table.bad is not None
    assert table.bad.tolist() == [False, False, True, False]
    words = decoder.words_for_bad(table, 2)
    assert f"behaviour 'B', agent 1002: sensor 'second' holds {value} at index 3" in words


def test_reward_that_is_not_finite_marks_its_agent() -> None:
    message = walker_agents(2)
    message.value[1].reward = float("nan")
    decoder = AgentDecoder("B", SPEC)
    table = decoder.decode(message.SerializeToString())
    assert table is not None
    assert table.bad is not None
    assert table.bad.tolist() == [False, True]
    assert "agent 1001: the reward holds nan" in decoder.words_for_bad(table, 1)


def test_large_finite_numbers_are_accepted_though_their_sum_overflows() -> None:
    message = walker_agents(2)
    message.value[0].observations[0].float_data.data[:] = [3e38, 3e38, 3e38]
    table = AgentDecoder("B", SPEC).decode(message.SerializeToString())
    assert table is not None
    require_equal(table, message)


def test_changed_shape_names_sensor_agent_and_both_shapes() -> None:
    message = walker_agents(3)
    message.value[1].observations[0].shape[0] = 4
    message.value[1].observations[0].float_data.data.append(1.0)
    with pytest.raises(BadDataError, match=r"agent 1001, sensor 'first': shape \(4,\) .* \(3,\)"):
        AgentDecoder("B", SPEC).decode(message.SerializeToString())


def test_missing_observation_is_refused() -> None:
    message = walker_agents(2)
    del message.value[1].observations[1]
    with pytest.raises(BadDataError, match="agent 1001: 1 observations found, 2 expected"):
        AgentDecoder("B", SPEC).decode(message.SerializeToString())


def test_garbage_is_bad_data() -> None:
    with pytest.raises(BadDataError, match="bytes"):
        AgentDecoder("B", SPEC).decode(b"GET / HTTP/1.1")
    with pytest.raises(BadDataError, match="14 bytes received"):
        parse_message(b"GET / HTTP/1.1")


@pytest.mark.parametrize(
    ("num_continuous", "branches"),
    [(3, ()), (0, (3, 2)), (2, (4,)), (39, ()), (0, (128, 129, 20_000)), (0, ())],
)
def test_encoded_actions_equal_what_field_access_reads(
    num_continuous: int, branches: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(0)
    encoder = ActionEncoder(ActionSpec(num_continuous, branches))
    for num_rows in (5, 5, 2):
        floats = generator.uniform(-1, 1, (num_rows, num_continuous)).astype(np.float32)
        indices = np.array(
            [[size - 1 - row % size for size in branches] for row in range(num_rows)], np.int32
        ).reshape(num_rows, len(branches))
        encoded = encoder.encode(Actions(floats, indices))

        actions = UnityRLInputProto.ListAgentActionProto.FromString(encoded).value
        assert len(actions) == num_rows
        for row, action in enumerate(actions):
            assert list(action.continuous_actions) == floats[row].tolist()
            assert list(action.discrete_actions) == indices[row].tolist()
            both = [*floats[row].tolist(), *indices[row].astype(float).tolist()]
            assert list(action.vector_actions_deprecated) == both


def test_zero_actions_after_real_ones_are_zero() -> None:
    encoder = ActionEncoder(ActionSpec(2, (3,)))
    encoder.encode(Actions(np.ones((2, 2), np.float32), np.full((2, 1), 2, np.int32)))
    actions = UnityRLInputProto.ListAgentActionProto.FromString(encoder.zeros(2)).value
    assert [list(a.continuous_actions) for a in actions] == [[0.0, 0.0]] * 2
    assert [list(a.discrete_actions) for a in actions] == [[0]] * 2


def test_large_message_is_read_like_a_small_one() -> None:
    message = UnityMessageProto()
    message.header.status = 200
    listed = message.unity_output.rl_output.agentInfos["B"]
    listed.CopyFrom(walker_agents(300))
    parsed = parse_message(message.SerializeToString())
    table = AgentDecoder("B", SPEC).decode(parsed.unity_output.rl_output.agent_infos["B"])
    assert table is not None
    require_equal(table, listed)


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("side_channel", [b"", b"x" * 300])
@pytest.mark.parametrize("ids", [[], ["B?team=0"], ["B?team=0", "Ä" * 100]])
def test_answer_equals_what_protobuf_reads(
    ids: list[str], side_channel: bytes, is_reset: bool
) -> None:
    encoded = {behavior_id: ActionEncoder(ActionSpec(2, ())).zeros(30) for behavior_id in ids}
    expected = UnityMessageProto()
    expected.header.status = 200
    expected.unity_input.rl_input.SetInParent()
    for behavior_id in ids:
        actions = expected.unity_input.rl_input.agent_actions[behavior_id]
        for _ in range(30):
            actions.value.add(continuous_actions=[0, 0], vector_actions_deprecated=[0, 0])
    expected.unity_input.rl_input.side_channel = side_channel
    expected.unity_input.rl_input.command = RESET if is_reset else STEP
    answer = encode_answer(encoded, side_channel, is_reset=is_reset)
    assert UnityMessageProto.FromString(answer) == expected
