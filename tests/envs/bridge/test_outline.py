"""Long messages of too many fields are refused before they are parsed."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_client import BEHAVIOR, brain
from sensor_specs import vector

from envs.bridge import layout, outline
from envs.bridge.codec import AgentDecoder, parse_message
from envs.bridge.layout import IrregularError, RecordLayout, length_delimited, record_starts
from envs.bridge.outline import AGENT_LIST, ENVELOPE, require_few_fields
from envs.bridge.proto import columns_pb2
from envs.bridge.wire_spec import build_spec
from envs.errors import BadDataError
from envs.spec import ActionSpec, BehaviorSpec

EMPTY_OBSERVATION = b"\x6a\0"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "SHORT_BYTES", 10)
    monkeypatch.setattr(outline, "MOST_FIELDS", 12)


def message(num_played: int, **words: object) -> bytes:
    output = columns_pb2.Output(played=[columns_pb2.Played()] * num_played)
    return columns_pb2.Message(unity_output=output).SerializeToString()


@pytest.mark.usefixtures("few")
def test_fields_of_a_message_are_counted_where_they_would_become_objects() -> None:
    require_few_fields(message(11), ENVELOPE)  # and the output itself
    with pytest.raises(BadDataError, match="of 38 bytes with more than 12 fields found, at most"):
        parse_message(message(12))
    played = columns_pb2.Played()
    for number in range(11):
        played.rl_output.agent_infos[f"B{number}"] = b""
    deep = columns_pb2.Message(unity_output=columns_pb2.Output(played=[played]))
    with pytest.raises(BadDataError, match="more than 12 fields"):
        parse_message(deep.SerializeToString())


@pytest.mark.usefixtures("few")
def test_what_lies_in_bytes_and_in_short_messages_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = columns_pb2.Output()
    output.rl_output.agent_infos[BEHAVIOR] = length_delimited(1, EMPTY_OBSERVATION * 100)
    parse_message(columns_pb2.Message(unity_output=output).SerializeToString())
    monkeypatch.setattr(outline, "SHORT_BYTES", 38)
    parse_message(message(12))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("hiding", [b"\x0b\x0c", b"\x00", b"\x12\x7f"], ids=["group", "0", "cut"])
def test_nothing_hides_behind_fields_that_cannot_be_counted(hiding: bytes) -> None:
    with pytest.raises(BadDataError, match="no message of ML-Agents' protocol"):
        parse_message(hiding + message(12))


@pytest.mark.usefixtures("few")
def test_observations_are_counted_before_a_list_is_parsed() -> None:
    listed = length_delimited(1, EMPTY_OBSERVATION * 12)
    with pytest.raises(BadDataError, match="more than 12 fields"):
        require_few_fields(listed, AGENT_LIST)
    decoder = AgentDecoder(BEHAVIOR, BehaviorSpec([vector(2, "a")], ActionSpec(1, ())))
    with pytest.raises(BadDataError, match="more than 12 fields"):
        decoder._decode_ordinarily(listed)


def test_number_of_records_of_a_list_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_RECORDS", 5)
    np.testing.assert_array_equal(record_starts(b"\x0a\0" * 5), np.arange(0, 11, 2))
    with pytest.raises(BadDataError, match="a list of more than 5 agents found"):
        record_starts(b"\x0a\0" * 7)


def test_record_of_many_fields_is_left_to_the_ordinary_parser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "MAX_FIELDS", 5)
    RecordLayout.of(length_delimited(1, EMPTY_OBSERVATION * 5), 0)
    with pytest.raises(IrregularError, match="too many fields"):
        RecordLayout.of(length_delimited(1, EMPTY_OBSERVATION * 6), 0)


def test_lists_within_an_observation_are_limited() -> None:
    words = "an observation of 17 dimensions found, at most 16 expected"
    decoder = AgentDecoder(BEHAVIOR, BehaviorSpec([vector(2, "a")], ActionSpec(1, ())))
    observation = length_delimited(13, length_delimited(1, b"\1" * 17))
    with pytest.raises(BadDataError, match=words):
        decoder.decode(length_delimited(1, observation))
    with pytest.raises(BadDataError, match=words):
        build_spec(brain(BEHAVIOR, 1), length_delimited(1, observation))


@pytest.mark.parametrize(
    "field",
    [
        length_delimited(11, b"\1" * 20_000),
        length_delimited(13, length_delimited(1, b"\1" * 20_000)),
    ],
    ids=["mask", "shape"],
)
def test_long_lists_are_not_taken_apart_byte_by_byte(field: bytes) -> None:
    with pytest.raises(IrregularError, match="too much that is no number"):
        RecordLayout.of(length_delimited(1, field), 20_000)
