"""Side channels: small messages that travel beside the agents, in both directions.

The byte stream of a message is a repetition of channel id (16 bytes, in the order of Windows
GUIDs), payload length, payload. All numbers are little-endian.
"""

from __future__ import annotations

import logging
import math
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from envs.bridge.limits import (
    LONGEST_STATISTIC,
    MOST_STATISTICS,
    MOST_UNKNOWN_CHANNELS,
    shown,
)
from envs.errors import BadDataError

ENGINE_CONFIGURATION = uuid.UUID("e951342c-4f7e-11ea-b238-784f4387d1f7")
ENVIRONMENT_PARAMETERS = uuid.UUID("534c891e-810f-11ea-a9d0-822485860400")
STATS = uuid.UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520")

CONSTANT, SAMPLED = 0, 1  # the two types of an environment parameter

_INT32 = struct.Struct("<i")
_FLOAT32 = struct.Struct("<f")
_logger = logging.getLogger(__name__)


class StatsAggregation(IntEnum):
    """How the values of one key between two summaries become one number."""

    AVERAGE = 0
    MOST_RECENT = 1
    SUM = 2
    HISTOGRAM = 3


class StatsMessage(NamedTuple):
    """A number that a simulator wants to see in TensorBoard."""

    key: str
    value: float
    aggregation: StatsAggregation


@dataclass(frozen=True, slots=True)
class EngineConfiguration:
    """How the simulator's engine is to run; the words and defaults of ML-Agents."""

    width: int = 84
    height: int = 84
    quality_level: int = 5
    time_scale: float = 20.0
    target_frame_rate: int = -1
    capture_frame_rate: int = 60


class SamplerKind(IntEnum):
    """Distributions that the simulator itself draws an environment parameter from."""

    UNIFORM = 0
    GAUSSIAN = 1
    MULTI_RANGE_UNIFORM = 2


@dataclass(frozen=True, slots=True)
class Sampler:
    """An environment parameter that the simulator draws anew for every episode."""

    seed: int
    kind: SamplerKind
    numbers: tuple[float, ...]  # (min, max), (mean, deviation), or min, max, min, max, ...


class Writer:
    """Builds a payload piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def int32(self, value: int) -> Writer:
        """Appends a whole number."""
        self._pieces.append(_INT32.pack(value))
        return self

    def float32(self, value: float) -> Writer:
        """Appends a number."""
        self._pieces.append(_FLOAT32.pack(value))
        return self

    def float_list(self, values: Sequence[float]) -> Writer:
        """Appends numbers with their count before them."""
        self._pieces.append(struct.pack(f"<i{len(values)}f", len(values), *values))
        return self

    def string(self, value: str) -> Writer:
        """Appends a text; the protocol knows ASCII only, other characters become `?`."""
        encoded = value.encode("ascii", errors="replace")
        self._pieces.append(_INT32.pack(len(encoded)) + encoded)
        return self

    def payload(self) -> bytes:
        """Gives what has been appended."""
        return b"".join(self._pieces)


class Reader:
    """Takes a payload apart piece by piece; BadDataError when it ends early."""

    def __init__(self, payload: bytes, what: str) -> None:
        self._payload = payload
        self._what = what
        self._position = 0

    def _take(self, num_bytes: int) -> bytes:
        piece = self._payload[self._position : self._position + num_bytes]
        if num_bytes < 0 or len(piece) < num_bytes:
            raise BadDataError(
                f"side channel, {self._what}: {len(piece)} bytes found at position "
                f"{self._position}, {num_bytes} expected. The simulator's side channel code "
                "writes less than it announces."
            )
        self._position += num_bytes
        return piece

    @property
    def is_at_end(self) -> bool:
        """Whether everything has been read."""
        return self._position >= len(self._payload)

    def int32(self) -> int:
        """Reads a whole number."""
        return int(_INT32.unpack(self._take(4))[0])

    def float32(self) -> float:
        """Reads a number."""
        return float(_FLOAT32.unpack(self._take(4))[0])

    def string(self) -> str:
        """Reads a text."""
        return self._take(self.int32()).decode("ascii", errors="replace")

    def float_list(self) -> list[float]:
        """Reads numbers with their count before them."""
        count = self.int32()
        return list(struct.unpack(f"<{max(count, 0)}f", self._take(4 * count)))

    def raw(self, num_bytes: int) -> bytes:
        """Reads bytes as they are."""
        return self._take(num_bytes)


def frame(channel: uuid.UUID, payload: bytes) -> bytes:
    """Gives one side channel message as it travels."""
    return channel.bytes_le + _INT32.pack(len(payload)) + payload


def unframe(stream: bytes) -> Iterator[tuple[uuid.UUID, bytes]]:
    """Yields channel and payload of every message of a stream; BadDataError when it is cut off."""
    reader = Reader(stream, "message frame")
    while not reader.is_at_end:
        channel = uuid.UUID(bytes_le=reader.raw(16))
        yield channel, reader.raw(reader.int32())


def engine_configuration(configuration: EngineConfiguration) -> bytes:
    """Gives the five messages that configure the engine, in the order ML-Agents sends them."""
    c = configuration
    payloads = (
        Writer().int32(0).int32(c.width).int32(c.height),
        Writer().int32(1).int32(c.quality_level),
        Writer().int32(2).float32(c.time_scale),
        Writer().int32(3).int32(c.target_frame_rate),
        Writer().int32(4).int32(c.capture_frame_rate),
    )
    return b"".join(frame(ENGINE_CONFIGURATION, writer.payload()) for writer in payloads)


def environment_parameters(parameters: Mapping[str, float | Sampler]) -> bytes:
    """Gives one message per environment parameter."""
    return b"".join(
        frame(ENVIRONMENT_PARAMETERS, _parameter(key, value)) for key, value in parameters.items()
    )


def _parameter(key: str, value: float | Sampler) -> bytes:
    writer = Writer().string(key)
    if not isinstance(value, Sampler):
        return writer.int32(CONSTANT).float32(value).payload()
    writer.int32(SAMPLED).int32(value.seed).int32(value.kind)
    if value.kind is SamplerKind.MULTI_RANGE_UNIFORM:
        return writer.float_list(value.numbers).payload()
    first, second = value.numbers
    return writer.float32(first).float32(second).payload()


class Inbox:
    """Reads what a simulator sends; warns once of every channel that nobody reads."""

    def __init__(self) -> None:
        self._warned: set[uuid.UUID] = set()
        self._keys: set[str] = set()  # of statistics
        self._not_finite: set[str] = set()  # those that were told of

    def read(self, stream: bytes) -> tuple[StatsMessage, ...]:
        """Gives the statistics of a stream.

        Raises:
            BadDataError: the stream or a message in it is cut off; or there are too many keys.
        """
        if not stream:
            return ()
        stats = []
        for channel, payload in unframe(stream):
            if channel == STATS:
                message = _stats(payload)
                if message.key not in self._keys:
                    self._add_key(message.key)
                if math.isfinite(message.value):
                    stats.append(message)
                else:
                    self._warn_of_number(message)
            elif channel not in self._warned and len(self._warned) < MOST_UNKNOWN_CHANNELS:
                self._warned.add(channel)
                _logger.warning(
                    "A simulator sends on side channel %s, which this trainer does not read; "
                    "its messages are dropped. To keep a number, send it through StatsRecorder.",
                    channel,
                )
        return tuple(stats)

    def _add_key(self, key: str) -> None:
        """Gets to know a statistic: each is a curve, and a file's worth of memory."""
        if len(key) > LONGEST_STATISTIC:
            raise BadDataError(
                f"side channel, statistics: a key has {len(key)} characters, at most "
                f"{LONGEST_STATISTIC} are expected; it begins with {key[:40]!r}."
            )
        if len(self._keys) >= MOST_STATISTICS:
            raise BadDataError(
                f"side channel, statistics: {key[:40]!r} would be key {MOST_STATISTICS + 1}, at "
                f"most {MOST_STATISTICS} are expected. Is a number or an id part of the keys?"
            )
        self._keys.add(key)

    def _warn_of_number(self, message: StatsMessage) -> None:
        """Warns, once for each key, of a statistic that is not shown: no curve can hold it."""
        if message.key not in self._not_finite:
            self._not_finite.add(message.key)
            _logger.warning(
                "A simulator records %s for the statistic %r, a finite number is expected: such "
                "values are left out. Look for a division by zero where it is recorded.",
                message.value,
                message.key,
            )


def _stats(payload: bytes) -> StatsMessage:
    reader = Reader(payload, "statistics")
    key, value = reader.string(), reader.float32()
    aggregation = 0 if reader.is_at_end else reader.int32()
    if aggregation not in set(StatsAggregation):
        raise BadDataError(
            f"side channel, statistics: {shown(key)} has aggregation {aggregation}, expected "
            f"{', '.join(f'{a.value} ({a.name.lower()})' for a in StatsAggregation)}."
        )
    return StatsMessage(key, value, StatsAggregation(aggregation))
