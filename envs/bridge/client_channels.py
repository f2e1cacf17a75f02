"""Side channels as a simulator sees them: environment parameters come in, statistics go out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.bridge.side_channels import (
    CONSTANT,
    ENVIRONMENT_PARAMETERS,
    SAMPLED,
    STATS,
    Reader,
    Sampler,
    SamplerKind,
    StatsMessage,
    Writer,
    frame,
    unframe,
)
from envs.errors import BadDataError


def draw(sampler: Sampler, generator: np.random.Generator) -> float:
    """Draws one value of an environment parameter."""
    if sampler.kind is SamplerKind.GAUSSIAN:
        mean, deviation = sampler.numbers
        return float(generator.normal(mean, deviation))
    ranges = np.array(sampler.numbers).reshape(-1, 2)  # (ranges, 2): min, max
    widths = ranges[:, 1] - ranges[:, 0]
    # Each range is as likely as it is wide.
    chosen = generator.choice(len(ranges), p=widths / widths.sum()) if widths.sum() else 0
    return float(generator.uniform(*ranges[chosen]))


def read_environment_parameters(side_channel: bytes) -> dict[str, float | Sampler]:
    """Gives the environment parameters among the messages of all side channels.

    Raises:
        BadDataError: the stream or a message in it is cut off.
    """
    return dict(
        _parameter(payload)
        for channel, payload in unframe(side_channel)
        if channel == ENVIRONMENT_PARAMETERS
    )


def write_stats(stats: Sequence[StatsMessage]) -> bytes:
    """Gives the side channel bytes that report statistics."""
    return b"".join(
        frame(STATS, Writer().string(s.key).float32(s.value).int32(s.aggregation).payload())
        for s in stats
    )


def _parameter(payload: bytes) -> tuple[str, float | Sampler]:
    reader = Reader(payload, "environment parameters")
    key, kind_of_value = reader.string(), reader.int32()
    if kind_of_value == CONSTANT:
        return key, reader.float32()
    if kind_of_value != SAMPLED:
        raise BadDataError(
            f"side channel, environment parameters: {key!r} is of type {kind_of_value}, expected "
            f"{CONSTANT} (constant) or {SAMPLED} (sampled). Trainer and simulator speak different "
            f"versions of the channel."
        )
    seed, kind = reader.int32(), reader.int32()
    if kind not in set(SamplerKind):
        raise BadDataError(
            f"side channel, environment parameters: {key!r} has the sampler {kind}, expected "
            f"{', '.join(f'{k.value} ({k.name.lower()})' for k in SamplerKind)}."
        )
    if kind == SamplerKind.MULTI_RANGE_UNIFORM:
        numbers = tuple(reader.float_list())
    else:
        numbers = (reader.float32(), reader.float32())
    return key, Sampler(seed, SamplerKind(kind), numbers)
