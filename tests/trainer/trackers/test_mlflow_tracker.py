"""MLflow's local file store, read back by MLflow's own client."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from trainer.config.tracker_settings import MlflowSettings
from trainer.trackers.journal import Point

pytest.importorskip("mlflow")
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from trainer.trackers.mlflow_tracker import MlflowTracker, metric_name

REWARD, LOSS = "Environment/Cumulative Reward", "Losses/Policy Loss"


def tracker_of(folder: Path) -> MlflowTracker:
    settings = MlflowSettings(tracking_uri=str(folder), experiment="walkers")
    return MlflowTracker(settings, "run7")


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=folder.as_uri())


def curve(folder: Path, id: str, tag: str) -> list[tuple[int, float, int]]:
    history = client_of(folder).get_metric_history(id, tag)
    return [(metric.step, metric.value, metric.timestamp) for metric in history]


def test_points_come_back_with_their_tags_steps_and_times(tmp_path: Path) -> None:
    parameters = {f"key.{i}": "x" * 600 for i in range(230)}  # more, and longer, than it takes
    run = tracker_of(tmp_path).begin("Crab", parameters)
    run.log(Point("Crab", 1000, 5.25, {REWARD: 1.5, LOSS: math.nan}))
    run.log(Point("Crab", 2000, 6.0, {LOSS: 0.5}))
    assert curve(tmp_path, run.id, REWARD) == [(1000, 1.5, 5250)]
    (first, second) = curve(tmp_path, run.id, LOSS)
    assert math.isnan(first[1])
    assert second == (2000, 0.5, 6000)
    found = client_of(tmp_path).get_run(run.id)
    assert found.info.run_name == "run7/Crab"
    assert len(found.data.params) == 230
    assert client_of(tmp_path).get_experiment(found.info.experiment_id).name == "walkers"


@pytest.mark.parametrize(
    ("exit_code", "status"), [(0, "FINISHED"), (4, "FAILED"), (143, "KILLED"), (None, "KILLED")]
)
def test_end_of_the_run_is_its_status(tmp_path: Path, exit_code: int | None, status: str) -> None:
    run = tracker_of(tmp_path).begin("Crab", {})
    run.finish(exit_code)
    assert client_of(tmp_path).get_run(run.id).info.status == status


def test_half_a_point_is_completed_and_nothing_comes_twice(tmp_path: Path) -> None:
    begun = tracker_of(tmp_path).begin("Crab", {})
    begun.log(Point("Crab", 1000, 1.0, {REWARD: 1.0, LOSS: 1.0}))
    # A kill between two files of the store:
    client_of(tmp_path).log_batch(begun.id, metrics=[Metric(LOSS, 2.0, 2000, 2000)])
    run = tracker_of(tmp_path).go_on(begun.id, "Crab", 1000)
    assert run is not None
    assert client_of(tmp_path).get_run(run.id).info.status == "RUNNING"
    assert run.newest_step == 1000, "who sends only what is newer would leave the gap"
    run.log(Point("Crab", 2000, 2.0, {REWARD: 2.0, LOSS: 2.0}))
    assert [step for step, _, _ in curve(tmp_path, run.id, REWARD)] == [1000, 2000]
    assert [step for step, _, _ in curve(tmp_path, run.id, LOSS)] == [1000, 2000]


def test_run_that_was_deleted_is_not_gone_on_with(tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path)
    run = tracker.begin("Crab", {})
    assert tracker.go_on("0" * 32, "Crab", None) is None
    client_of(tmp_path).delete_run(run.id)
    assert tracker.go_on(run.id, "Crab", None) is None


def test_names_that_mlflow_refuses_are_changed_and_those_of_ml_agents_are_not(
    tmp_path: Path,
) -> None:
    assert metric_name(REWARD) == REWARD
    names = {"Speed (m/s)": 1.0, "../../up": 2.0, "a//b/": 3.0, "ü%": 4.0, "..": 5.0}
    run = tracker_of(tmp_path).begin("Crab", {})
    run.log(Point("Crab", 1, 1.0, names))
    found = client_of(tmp_path).get_run(run.id).data.metrics
    assert sorted(found.values()) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert {path.name for path in tmp_path.iterdir()} <= {".trash", "0", found_experiment(tmp_path)}


def found_experiment(folder: Path) -> str:
    experiment = client_of(folder).get_experiment_by_name("walkers")
    assert experiment is not None
    return str(experiment.experiment_id)
