"""The tables of benchmarks.learning: what they would train, and what they say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.learning.report import draw, markdown
from benchmarks.learning.runs import Score, run_id
from benchmarks.learning.tables import READY, TABLES, Comparison, behavior_name
from trainer.config.document import parse_document
from trainer.config.load import load_run, resolve


@pytest.mark.parametrize("name", TABLES)
def test_every_run_of_a_table_has_settings_that_load(name: str) -> None:
    table = TABLES[name]
    for task in table.tasks:
        for algorithm in table.algorithms:
            text = yaml.safe_dump(table.settings(task, algorithm))
            settings = resolve(parse_document(Path("run.yaml"), text))
            (behavior,) = settings.behaviors.values()
            assert settings.env_settings.env_path == f"gym:{task}"
            assert behavior.max_steps == table.max_steps(task)
            assert list(settings.behaviors) == [behavior_name(task)]
            if isinstance(table, Comparison):
                assert behavior.trainer_type == algorithm.trainer_type
            for key, value in algorithm.hyperparameters.items():
                assert getattr(behavior.hyperparameters, key) == value, (algorithm.name, key)


@pytest.mark.parametrize("name", ["small-budget", "discrete"])
def test_ready_file_is_trained_as_it_stands(name: str) -> None:
    table = TABLES[name]
    for task in table.tasks:
        file = load_run(READY / f"{task}.yaml")
        text = yaml.safe_dump(table.settings(task, table.algorithms[0]))
        trained = resolve(parse_document(Path("run.yaml"), text))
        own, other = (run.behaviors[behavior_name(task)] for run in (file, trained))
        assert other.model_copy(update={"summary_freq": own.summary_freq}) == own
        assert trained.env_settings == file.env_settings


def test_small_budget_is_kept() -> None:
    table = TABLES["small-budget"]
    assert all(table.max_steps(task) <= 100_000 for task in table.tasks)


def test_runs_of_a_table_have_folders_of_their_own() -> None:
    for table in TABLES.values():
        names = [
            run_id(task, algorithm, seed)
            for task in table.tasks
            for algorithm in table.algorithms
            for seed in range(table.num_seeds)
        ]
        assert len(set(names)) == len(names)


def test_table_says_what_was_run_and_what_was_not(tmp_path: Path) -> None:
    table = TABLES["smoke"]
    scores = [
        Score("CartPole-v1", "ppo", 1, 20.0, 30.0, [10, 20], [10.0, 20.0]),
        Score("CartPole-v1", "ppo", 2, 40.0, 60.0, [10, 20], [20.0, 40.0]),
    ]
    assert markdown(table, scores).splitlines() == [
        "| | CartPole-v1 |",
        "|---|---|",
        "| ppo | 30.0 (20.0 to 40.0) / 45.0 (30.0 to 60.0); 2 seeds |",
        "| trpo | not run |",
    ]
    draw(table, scores, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_table_says_whether_the_median_seed_reached_what_was_wanted() -> None:
    def score(task: str, seed: int, evaluation: float) -> Score:
        return Score(task, "configs/gym", seed, None, evaluation, [], [])

    scores = [
        *(score("Reacher-v5", seed, value) for seed, value in enumerate((-5.0, -99.0, -8.6))),
        *(score("Pendulum-v1", seed, value) for seed, value in enumerate((-100.0, -251.0, -300.0))),
    ]
    assert markdown(TABLES["small-budget"], scores).splitlines()[-1] == (
        "| wanted of the median seed's evaluation | 1000 | -8.6: met, median -8.6 | "
        "-250: **not met**, median -251.0 |"
    )
