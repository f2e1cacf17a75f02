"""One update of every algorithm gives the numbers that it gave when they were last looked at.

A difference is a change of the mathematics. If it is meant, golden_updates.py writes them anew.
"""

from __future__ import annotations

import json

import pytest
from golden_updates import CASES, FILE, update
from pytest import approx

from trainer.config.hyperparameters import HYPERPARAMETERS

GOLDEN: dict[str, dict[str, list[float]]] = json.loads(FILE.read_text())


def test_every_algorithm_has_its_golden_updates() -> None:
    assert list(GOLDEN) == list(CASES)
    assert {trainer_type for trainer_type, _, _ in CASES.values()} == set(HYPERPARAMETERS)


@pytest.mark.parametrize("name", CASES)
def test_update_is_the_golden_one(name: str) -> None:
    found = update(name)
    assert list(found) == list(GOLDEN[name])
    for key, numbers in GOLDEN[name].items():
        # Double precision: 1e-6 is far above what another order of sums changes.
        assert found[key] == approx(numbers, rel=1e-6, abs=1e-12), key


@pytest.mark.parametrize("name", CASES)
def test_golden_update_moves_actor_and_critic(name: str) -> None:
    golden = GOLDEN[name]
    has_critic = "mean of whole returns" not in name
    assert (golden["value_head.weight"][1] != 0) == has_critic
    assert abs(golden["mean_head.weight"][1]) > 1e-9
    assert all(number == number for numbers in golden.values() for number in numbers)  # no nan
