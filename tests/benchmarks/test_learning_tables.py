"""The tables of benchmarks.learning: what they would train, and what they say of it."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from benchmarks.learning import runs
from benchmarks.learning.__main__ import scores_so_far
from benchmarks.learning.report import draw, markdown
from benchmarks.learning.runs import Commands, Score, run_id, scored_run
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


def test_scores_of_earlier_starts_stay_in_the_table(tmp_path: Path) -> None:
    table = TABLES["surrogates"]
    for algorithm in table.algorithms[:3]:
        score = Score("Hopper-v5", algorithm.name, 2, 1.0, 2.0, [1], [1.0], "abc")
        name = run_id(score.task, algorithm, 2)
        text = yaml.safe_dump(table.settings("Hopper-v5", algorithm), sort_keys=False)
        (tmp_path / f"{name}.yaml").write_text(text)
        (tmp_path / f"{name}.json").write_text(json.dumps(asdict(score)))
    names = [algorithm.name for algorithm in table.algorithms[:3]]
    assert list(scores_so_far(tmp_path, table)) == [("Hopper-v5", name, 2) for name in names]

    other = tmp_path / f"{run_id('Hopper-v5', table.algorithms[1], 2)}.yaml"
    other.write_text(other.read_text().replace("gamma: 0.99", "gamma: 0.9"))
    assert scored_run(tmp_path, table, "Hopper-v5", table.algorithms[1], 2) is None
    assert len(scores_so_far(tmp_path, table)) == 2


def test_failing_run_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "TRAINER", [sys.executable, "-c", "print('no'); raise SystemExit(7)"])
    log = tmp_path / "run.log"
    with pytest.raises(RuntimeError, match=f"exit code 7; its output is in {log}"):
        Commands().run(log, [])
    assert log.read_text() == "no\n"


def test_stopped_benchmark_ends_its_runs_and_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal; print('runs', flush=True); signal.pause()"
    monkeypatch.setattr(runs, "TRAINER", [sys.executable, "-c", code])
    commands, log, told = Commands(), tmp_path / "run.log", list[str]()

    def run() -> None:
        try:
            commands.run(log, [])
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while not (log.is_file() and log.read_text()):
        thread.join(0.01)
    commands.end()
    thread.join(60)
    assert told == [f"ended with exit code -15; its output is in {log}"]
    with pytest.raises(RuntimeError, match="the benchmark was stopped"):
        commands.run(log, [])
