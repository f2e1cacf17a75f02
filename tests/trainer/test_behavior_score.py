"""By what the best checkpoint is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

from pytest import approx

from trainer.behavior import Behavior


def score(returns: Sequence[float], min_episodes: int) -> float | None:
    behavior = SimpleNamespace(episodes=SimpleNamespace(recent_returns=returns))
    return Behavior.score(cast("Behavior", behavior), min_episodes)


def test_score_is_the_lower_bound_of_the_mean_return() -> None:
    # mean 5, sample variance (16 + 0 + 16) / 2 = 16, standard error 4 / sqrt(3)
    assert score([1.0, 5.0, 9.0], 3) == approx(5 - 1.645 * 4 / 3**0.5)


def test_few_episodes_say_nothing() -> None:
    assert score([100.0] * 19, 20) is None
    assert score([100.0] * 20, 20) == approx(100.0)


def test_a_few_lucky_episodes_are_not_better_than_steady_ones() -> None:
    steady, lucky = score([9.5, 11.5] * 50, 2), score([10.0] * 18 + [22.0] * 2, 2)
    assert steady is not None
    assert lucky is not None
    assert lucky < steady  # though their means are 11.2 and 10.5
