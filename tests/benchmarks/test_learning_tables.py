"""The tables of benchmarks.learning: what they would train, and what they say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.learning.report import draw, markdown
from benchmarks.learning.runs import Score, run_id
from benchmarks.learning.tables import TABLES
from trainer.config.document import parse_document
from trainer.config.load import resolve


@pytest.mark.parametrize("name", TABLES)
def test_every_run_of_a_table_has_settings_that_load(name: str) -> None:
    table = TABLES[name]
    for algorithm in table.algorithms:
        text = yaml.safe_dump(table.settings(table.tasks[0], algorithm))
        settings = resolve(parse_document(Path("run.yaml"), text))
        (behavior,) = settings.behaviors.values()
        assert behavior.trainer_type == algorithm.trainer_type
        assert behavior.max_steps == table.max_steps
        for key, value in algorithm.hyperparameters.items():
            assert getattr(behavior.hyperparameters, key) == value, (algorithm.name, key)


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
