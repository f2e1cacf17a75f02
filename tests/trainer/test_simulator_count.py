"""The search for a number of simulators, on machines that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer import machine
from trainer.config.settings import RunSettings
from trainer.simulator_count import CORES, FILE, LOST, MOST_TRIALS, Search, first_count


def searched(
    start: int, rate_of: Callable[[int], float], obstacle_at: dict[int, str] | None = None
) -> tuple[Search, list[int]]:
    """Follows a search to its end; gives it and the numbers that were tried."""
    search, tried = Search(start), []
    count: int | None = start
    while count is not None:
        tried.append(count)
        count = search.next(count, rate_of(count), (obstacle_at or {}).get(count))
    return search, tried


def test_grows_until_one_more_is_worth_no_twentieth() -> None:
    rates = {2: 100.0, 3: 150.0, 4: 199.0, 5: 205.0}  # 205 is 3 % more
    search, tried = searched(2, rates.__getitem__)
    assert tried == [2, 3, 4, 5]
    assert (search.best, search.reason) == (4, None)
    assert search.words() == (
        "num_envs auto: 4 simulators: collecting made 199 steps/s with 4, "
        "100 with 2, 150 with 3, 205 with 5."
    )


def test_shrinks_as_long_as_it_is_no_slower() -> None:
    rates = {4: 1000.0, 5: 990.0, 3: 1010.0, 2: 980.0, 1: 700.0}
    search, tried = searched(4, rates.__getitem__)
    assert tried == [4, 5, 3, 2, 1]
    assert search.best == 2  # 980 is within a twentieth of 1010
    search, tried = searched(2, {2: 100.0, 3: 99.0, 1: 99.0}.__getitem__)
    assert (tried, search.best) == ([2, 3, 1], 1)


def test_small_losses_do_not_add_up() -> None:
    # Each is 4 % slower than the one before: but only 4 is within 5 % of the fastest.
    search, tried = searched(5, lambda count: 100.0 * 0.96 ** (5 - count), {5: CORES})
    assert tried == [5, 4, 3]
    assert search.best == 4


def test_obstacle_ends_growth_and_is_told() -> None:
    search, tried = searched(2, lambda count: 10.0 * count, {3: "another might not fit"})
    assert tried == [2, 3]
    assert search.best == 3
    assert search.words().endswith("20 with 2; another might not fit.")
    search, tried = searched(1, lambda count: 10.0 * count, {1: CORES})
    assert (tried, search.best) == ([1], 1)
    assert search.words() == (
        "num_envs auto: 1 simulator: collecting made 10 steps/s with 1; the cores are full."
    )


def test_large_machines_are_searched_in_strides() -> None:
    search, tried = searched(64, lambda count: float(min(count, 100)))
    assert tried == [64, 80, 100, 125, 76]
    assert search.best == 100
    _, tried = searched(64, lambda count: 1.0)
    assert tried == [64, 80, 49, 37, 28, 22, 17, 13, 10, 8, 7, 6]
    assert len(tried) == MOST_TRIALS


def test_loss_of_a_newcomer_ends_growth() -> None:
    search = Search(2)
    assert search.next(2, 100.0, None) == 3
    assert search.give_up_growing(LOST) == 1
    assert search.next(1, 60.0, None) is None
    assert (search.best, search.reason) == (2, LOST)
    untried = Search(3)  # it cannot even be measured
    assert untried.give_up_growing(LOST) == 2


def settings(*, resume: bool, **env: Any) -> RunSettings:
    env = {"env_path": "gym:CartPole-v1", "num_envs": "auto", **env}
    return RunSettings.model_validate(
        {"env_settings": env, "checkpoint_settings": {"resume": resume}}
    )


def test_run_that_goes_on_begins_with_what_it_found_out_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.machine.num_cores", lambda: 6.5)
    known: dict[str, object] = {"env_path": "gym:CartPole-v1", "num_areas": 1, "act_at": "auto"}
    noted = {"num_envs": 9, "of": {**known, "machine": machine.identity()}}
    assert first_count(settings(resume=True), tmp_path) == 6
    (tmp_path / FILE).write_text(json.dumps(noted))
    assert first_count(settings(resume=True), tmp_path) == 9
    assert first_count(settings(resume=False), tmp_path) == 6  # --force: another run's
    assert first_count(settings(resume=True, num_areas=2), tmp_path) == 6
    assert first_count(settings(resume=True, env_path="gym:Walker2d-v5"), tmp_path) == 6
    assert first_count(settings(resume=True, act_at="trainer"), tmp_path) == 6
    assert first_count(settings(resume=True, num_envs=3), tmp_path) == 3
    monkeypatch.setattr("trainer.machine.num_cores", lambda: 4.0)  # another machine
    assert first_count(settings(resume=True), tmp_path) == 4
    (tmp_path / FILE).write_text("{")
    assert first_count(settings(resume=True), tmp_path) == 4
    monkeypatch.setattr("trainer.machine.num_cores", lambda: 0.5)
    assert first_count(settings(resume=True), tmp_path) == 1
