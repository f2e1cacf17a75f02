from __future__ import annotations

import pytest
from pytest import approx

from trainer.schedules import BETA_FLOOR, EPSILON_FLOOR, LEARNING_RATE_FLOOR, scheduled


@pytest.mark.parametrize("step", [0, 500, 1000, 5000])
def test_constant_never_moves(step: int) -> None:
    assert scheduled("constant", 3e-4, LEARNING_RATE_FLOOR, step, 1000) == 3e-4


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.2),
        (250, 0.175),  # 0.1 + 0.1 * 3/4
        (500, 0.15),
        (1000, 0.1),
        (99999, 0.1),  # steps over max_steps do not count
    ],
)
def test_linear_falls_straight_to_its_floor(step: int, expected: float) -> None:
    assert scheduled("linear", 0.2, EPSILON_FLOOR, step, 1000) == approx(expected)


def test_learning_rate_ends_at_ml_agents_floor() -> None:
    assert scheduled("linear", 3e-4, LEARNING_RATE_FLOOR, 1000, 1000) == approx(1e-10)


@pytest.mark.parametrize("step", [0, 500, 1000])
@pytest.mark.parametrize(("initial", "floor"), [(0.0, BETA_FLOOR), (0.05, EPSILON_FLOOR)])
def test_linear_below_its_floor_never_rises(initial: float, floor: float, step: int) -> None:
    assert scheduled("linear", initial, floor, step, 1000) == initial
