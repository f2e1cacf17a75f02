"""Framing and encodings of side channels, byte by byte."""

from __future__ import annotations

import logging
import struct
import uuid

import pytest

from envs.bridge import side_channels
from envs.bridge.side_channels import (
    EngineConfiguration,
    Inbox,
    Reader,
    Sampler,
    SamplerKind,
    StatsAggregation,
    StatsMessage,
    Writer,
)
from envs.errors import BadDataError


def test_channel_id_travels_in_the_order_of_windows_guids() -> None:
    framed = side_channels.frame(side_channels.ENGINE_CONFIGURATION, b"abc")
    # e951342c-4f7e-11ea-...: the first three groups are turned around, the rest is not.
    assert framed.hex() == "2c3451e97e4fea11b238784f4387d1f7" + "03000000" + b"abc".hex()


def test_engine_configuration_is_five_messages_in_order() -> None:
    configuration = EngineConfiguration(
        width=640,
        height=480,
        quality_level=3,
        time_scale=20.0,
        target_frame_rate=-1,
        capture_frame_rate=60,
    )
    stream = side_channels.engine_configuration(configuration)
    messages = list(side_channels.unframe(stream))
    assert [channel for channel, _ in messages] == [side_channels.ENGINE_CONFIGURATION] * 5
    assert [payload for _, payload in messages] == [
        struct.pack("<iii", 0, 640, 480),
        struct.pack("<ii", 1, 3),
        struct.pack("<if", 2, 20.0),
        struct.pack("<ii", 3, -1),
        struct.pack("<ii", 4, 60),
    ]


def test_environment_parameters_are_one_message_each() -> None:
    stream = side_channels.environment_parameters({"mass": 0.5, "wind": -2.0})
    assert [payload for _, payload in side_channels.unframe(stream)] == [
        b"\x04\x00\x00\x00mass" + struct.pack("<if", 0, 0.5),
        b"\x04\x00\x00\x00wind" + struct.pack("<if", 0, -2.0),
    ]


def test_samplers_are_sent_as_type_1_with_seed_kind_and_numbers() -> None:
    stream = side_channels.environment_parameters(
        {
            "mass": Sampler(1337, SamplerKind.UNIFORM, (0.5, 10.0)),
            "wind": Sampler(1338, SamplerKind.GAUSSIAN, (1.0, 0.25)),
            "size": Sampler(7, SamplerKind.MULTI_RANGE_UNIFORM, (0.0, 1.0, 4.0, 8.0)),
        }
    )
    # Written by hand from the protocol's table, section 8: type, seed, kind, numbers.
    assert [payload for _, payload in side_channels.unframe(stream)] == [
        b"\x04\x00\x00\x00mass" + struct.pack("<iiiff", 1, 1337, 0, 0.5, 10.0),
        b"\x04\x00\x00\x00wind" + struct.pack("<iiiff", 1, 1338, 1, 1.0, 0.25),
        b"\x04\x00\x00\x00size" + struct.pack("<iiiiffff", 1, 7, 2, 4, 0.0, 1.0, 4.0, 8.0),
    ]


def test_reader_reads_what_writer_writes() -> None:
    payload = Writer().string("key").int32(-5).float32(0.25).payload()
    reader = Reader(payload, "test")
    assert reader.string() == "key"
    assert reader.int32() == -5
    assert reader.float32() == 0.25
    assert reader.is_at_end


def stats(key: str, value: float, aggregation: int) -> bytes:
    payload = Writer().string(key).float32(value).int32(aggregation).payload()
    return side_channels.frame(side_channels.STATS, payload)


def test_statistics_are_read_in_order() -> None:
    stream = stats("Player/Goals", 2.0, 2) + stats("Speed", 0.5, 0)
    assert Inbox().read(stream) == (
        StatsMessage("Player/Goals", 2.0, StatsAggregation.SUM),
        StatsMessage("Speed", 0.5, StatsAggregation.AVERAGE),
    )


def test_unknown_channel_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    channel = uuid.UUID("11111111-2222-3333-4444-555555555555")
    stream = side_channels.frame(channel, b"?") + stats("a", 1.0, 0)
    inbox = Inbox()
    with caplog.at_level(logging.WARNING):
        assert len(inbox.read(stream)) == 1
        assert len(inbox.read(stream)) == 1
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        f"A simulator sends on side channel {channel}"
    ]


@pytest.mark.parametrize("num_bytes", [1, 15, 16, 19, 20, 22, 30, 33])
def test_stream_that_is_cut_off_is_bad_data(num_bytes: int) -> None:
    whole = stats("abcd", 1.0, 0)
    assert num_bytes < len(whole)
    with pytest.raises(BadDataError, match="side channel"):
        Inbox().read(whole[:num_bytes])


def test_negative_length_is_bad_data() -> None:
    with pytest.raises(BadDataError, match="-4 expected"):
        Inbox().read(side_channels.STATS.bytes_le + struct.pack("<i", -4))


def test_unknown_aggregation_is_bad_data() -> None:
    with pytest.raises(BadDataError, match="aggregation 9, expected 0 \\(average\\)"):
        Inbox().read(stats("a", 1.0, 9))


def test_statistic_that_is_no_number_is_left_out_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def stat(value: float) -> bytes:
        payload = Writer().string("Speed").float32(value).int32(0).payload()
        return side_channels.frame(side_channels.STATS, payload)

    inbox = Inbox()
    (kept,) = inbox.read(stat(float("nan")) + stat(1.5) + stat(float("inf")))
    assert kept.value == 1.5
    assert caplog.text.count("the statistic 'Speed', a finite number is expected") == 1
