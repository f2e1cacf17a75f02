from __future__ import annotations

import struct

import numpy as np
import pytest

from envs.bridge.client_channels import draw, read_environment_parameters, write_stats
from envs.bridge.side_channels import (
    ENVIRONMENT_PARAMETERS,
    EngineConfiguration,
    Inbox,
    Sampler,
    SamplerKind,
    StatsAggregation,
    StatsMessage,
    Writer,
    engine_configuration,
    environment_parameters,
    frame,
)
from envs.errors import BadDataError


def sampled(key: str, sampler: bytes) -> bytes:
    """A parameter to be drawn; `sampler` is seed, kind and numbers, as ML-Agents writes them."""
    return frame(ENVIRONMENT_PARAMETERS, Writer().string(key).int32(1).payload() + sampler)


def test_parameters_are_found_among_other_channels() -> None:
    stream = (
        environment_parameters({"mass": 2.5})
        + engine_configuration(EngineConfiguration())
        + sampled("wind", struct.pack("<iiff", 7, 1, 1.0, 0.5))
        + sampled("size", struct.pack("<iiiffff", 8, 2, 4, 0.0, 1.0, 4.0, 8.0))
    )
    assert read_environment_parameters(stream) == {
        "mass": 2.5,
        "wind": Sampler(7, SamplerKind.GAUSSIAN, (1.0, 0.5)),
        "size": Sampler(8, SamplerKind.MULTI_RANGE_UNIFORM, (0.0, 1.0, 4.0, 8.0)),
    }


def test_samplers_draw_from_their_distribution() -> None:
    generator = np.random.default_rng(0)

    def draws(kind: SamplerKind, *numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        sampler = Sampler(0, kind, numbers)
        return np.array([draw(sampler, generator) for _ in range(4000)])

    uniform = draws(SamplerKind.UNIFORM, 2.0, 6.0)
    assert uniform.min() >= 2.0
    assert uniform.max() <= 6.0
    # Tolerances are about four standard errors: 1.15 / sqrt(4000) = 0.018.
    assert uniform.mean() == pytest.approx(4.0, abs=0.08)
    gaussian = draws(SamplerKind.GAUSSIAN, -1.0, 0.5)
    assert gaussian.mean() == pytest.approx(-1.0, abs=0.04)
    assert gaussian.std() == pytest.approx(0.5, abs=0.03)
    ranges = draws(SamplerKind.MULTI_RANGE_UNIFORM, 0.0, 1.0, 10.0, 13.0)
    assert not ((ranges > 1.0) & (ranges < 10.0)).any()
    assert (ranges >= 10.0).mean() == pytest.approx(0.75, abs=0.03)  # three times as wide
    assert draws(SamplerKind.UNIFORM, 3.0, 3.0).tolist() == [3.0] * 4000


def test_stats_are_read_back_by_the_trainers_inbox() -> None:
    stats = (
        StatsMessage("Height", 1.5, StatsAggregation.AVERAGE),
        StatsMessage("Falls", 2.0, StatsAggregation.SUM),
    )
    assert Inbox().read(write_stats(stats)) == stats


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (Writer().string("mass").int32(5).payload(), "'mass' is of type 5"),
        (Writer().string("mass").int32(1).int32(0).int32(9).payload(), "has the sampler 9"),
        (Writer().string("mass").int32(0).payload(), "environment parameters"),
    ],
)
def test_unreadable_parameters_are_named(payload: bytes, words: str) -> None:
    with pytest.raises(BadDataError, match=words):
        read_environment_parameters(frame(ENVIRONMENT_PARAMETERS, payload))
