"""Side channels as a simulator sees them: environment parameters come in, statistics go out."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from envs.errors import BadDataError

# A channel's id is written in the byte order of C#'s Guid.ToByteArray.
ENVIRONMENT_PARAMETERS = UUID("534c891e-810f-11ea-a9d0-822485860400").bytes_le
STATS = UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520").bytes_le
ID_BYTES = 16

FLOAT_VALUE, SAMPLER_VALUE = 0, 1
UNIFORM, GAUSSIAN, MULTI_RANGE = 0, 1, 2
AVERAGE = 0


@dataclass(frozen=True, slots=True)
class Sampler:
    """A parameter that is drawn anew for every episode."""

    seed: int
    kind: int
    numbers: tuple[float, ...]  # (min, max), (mean, deviation), or min, max, min, max, ...

    def draw(self, generator: np.random.Generator) -> float:
        """Draws one value."""
        if self.kind == GAUSSIAN:
            mean, deviation = self.numbers
            return float(generator.normal(mean, deviation))
        ranges = np.array(self.numbers).reshape(-1, 2)  # (ranges, 2): min, max
        widths = ranges[:, 1] - ranges[:, 0]
        # Each range is as likely as it is wide.
        chosen = generator.choice(len(ranges), p=widths / widths.sum()) if widths.sum() else 0
        return float(generator.uniform(*ranges[chosen]))


def read_environment_parameters(side_channel: bytes) -> dict[str, float | Sampler]:
    """Gives the environment parameters among the payloads of all side channels.

    Raises:
        BadDataError: the bytes are no series of side channel payloads.
    """
    parameters: dict[str, float | Sampler] = {}
    try:
        for channel, payload in _payloads(side_channel):
            if channel == ENVIRONMENT_PARAMETERS:
                key, value = _parameter(payload)
                parameters[key] = value
    except (struct.error, UnicodeDecodeError) as error:
        raise BadDataError(
            f"The trainer's side channel data of {len(side_channel)} bytes cannot be read: "
            f"{error}. Expected payloads of ML-Agents' side channels, each with id and length; "
            f"is the trainer ppo-train or mlagents-learn?"
        ) from error
    return parameters


def write_stats(stats: Sequence[tuple[str, float]]) -> bytes:
    """Gives the side channel bytes that report each (name, value); the trainer averages them."""
    return b"".join(_stat(key, value) for key, value in stats)


def write_environment_parameters(parameters: Mapping[str, float]) -> bytes:
    """Gives the side channel bytes that set constant environment parameters."""
    return b"".join(
        _enveloped(ENVIRONMENT_PARAMETERS, _text(key) + struct.pack("<if", FLOAT_VALUE, value))
        for key, value in parameters.items()
    )


def _stat(key: str, value: float) -> bytes:
    return _enveloped(STATS, _text(key) + struct.pack("<fi", value, AVERAGE))


def _text(text: str) -> bytes:
    encoded = text.encode("ascii", errors="replace")  # both ends read ASCII
    return struct.pack("<i", len(encoded)) + encoded


def _enveloped(channel: bytes, payload: bytes) -> bytes:
    return channel + struct.pack("<i", len(payload)) + payload


def _payloads(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 0
    while offset < len(data):
        channel = data[offset : offset + ID_BYTES]
        (size,) = struct.unpack_from("<i", data, offset + ID_BYTES)
        offset += ID_BYTES + 4
        if not 0 <= size <= len(data) - offset:
            raise struct.error(f"a payload of {size} bytes at {offset}, {len(data) - offset} left")
        yield channel, data[offset : offset + size]
        offset += size


def _parameter(payload: bytes) -> tuple[str, float | Sampler]:
    (length,) = struct.unpack_from("<i", payload)
    key = payload[4 : 4 + length].decode("ascii")
    offset = 4 + length
    (kind_of_value,) = struct.unpack_from("<i", payload, offset)
    if kind_of_value == FLOAT_VALUE:
        (value,) = struct.unpack_from("<f", payload, offset + 4)
        return key, float(value)
    if kind_of_value != SAMPLER_VALUE:
        raise struct.error(f"parameter {key!r} is of the unknown kind {kind_of_value}")
    seed, kind = struct.unpack_from("<ii", payload, offset + 4)
    offset += 12
    count = 2
    if kind == MULTI_RANGE:
        (count,) = struct.unpack_from("<i", payload, offset)
        offset += 4
    elif kind not in (UNIFORM, GAUSSIAN):
        raise struct.error(f"parameter {key!r} has the unknown sampler {kind}")
    return key, Sampler(seed, kind, struct.unpack_from(f"<{count}f", payload, offset))
