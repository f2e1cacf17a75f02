"""Whole runs with trackers: what arrives, what a kill costs, and what a broken tracker costs."""

from __future__ import annotations

import importlib.util
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainer_process import Trainer, ppo_train, tiny_build, tiny_yaml, write_yaml

from trainer.cli.main import main
from trainer.config.errors import ConfigError
from trainer.config.settings import RunSettings, TrackerSettings
from trainer.reporter import Reporter
from trainer.run_storage import RunStorage
from trainer.trackers.processes import TrackerProcesses, chosen_trackers

WORDS = ("settings.yaml", "--env", "tiny.x86_64", "--run-id", "run")


def tracked(folder: Path, trackers: dict[str, Any], **changes: Any) -> None:
    tiny_build(folder, "--actions", "1,0")
    path = tiny_yaml(folder, **changes)
    write_yaml(path, {**yaml.safe_load(path.read_text()), "trackers": trackers})


def tensorboard_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def mlflow_runs(folder: Path) -> list[dict[str, list[tuple[int, float]]]]:
    """Gives the curves of all tracked runs, in the order in which they were begun."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("ppo-train")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
    return [
        {
            tag: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, tag)]
            for tag in run.data.metrics
        }
        for run in runs
    ]


def test_killed_and_resumed_run_has_the_curves_of_tensorboard_in_one_tracked_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    both = {"mlflow": {}, "wandb": {"mode": "offline"}}
    # Summaries between checkpoints, so that the kill takes some of them back.
    tracked(tmp_path, both, max_steps=3000, summary_freq=100, checkpoint_interval=500)
    with Trainer(*WORDS, cwd=tmp_path) as trainer:
        trainer.wait_for(r"1D\. Step: 1300\. ")
        trainer.signal(signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
    ppo_train(*WORDS, "--resume", cwd=tmp_path)
    shown = tensorboard_curves(tmp_path / "results" / "run" / "1D")
    (curves,) = mlflow_runs(tmp_path)
    assert curves.keys() == shown.keys()
    steps = [step for step, _ in curves["Policy/Learning Rate"]]
    assert steps == list(range(100, 3001, 100))
    for tag, curve in shown.items():
        assert [step for step, _ in curves[tag]] == [step for step, _ in curve], tag
        found = [value for _, value in curves[tag]]
        assert found == pytest.approx([value for _, value in curve], rel=1e-6), tag  # float32
    logs = tmp_path / "results" / "run" / "run_logs"
    from wandb_files import rows

    (id,) = {path.stem.removeprefix("run-") for path in logs.glob("wandb/*/run-*.wandb")}
    history = rows(logs, id)
    assert [row["_step"] for row in history] == steps
    rates = [row["Policy/Learning Rate"] for row in history]
    assert rates == [value for _, value in curves["Policy/Learning Rate"]]


def test_tracker_that_fails_is_told_once_and_costs_nothing_and_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracked(tmp_path, {"mlflow": {}}, max_steps=1500, summary_freq=100, checkpoint_interval=500)
    (tmp_path / "mlruns").write_text("no folder can be made here")
    output = ppo_train(*WORDS, cwd=tmp_path)
    assert output.count("Tracker mlflow has stopped: ") == 1
    assert "run_logs/tracker-mlflow.log" in output
    (tmp_path / "mlruns").unlink()
    changes = {"max_steps": 2000, "summary_freq": 100, "checkpoint_interval": 500}
    tracked(tmp_path, {"mlflow": {}}, **changes)
    assert "has stopped" not in ppo_train(*WORDS, "--resume", cwd=tmp_path)
    (curves,) = mlflow_runs(tmp_path)
    shown = tensorboard_curves(tmp_path / "results" / "run" / "1D")
    steps = [step for step, _ in curves["Policy/Learning Rate"]]
    assert steps == [step for step, _ in shown["Policy/Learning Rate"]]
    assert steps[0] == 100
    assert steps[-1] == 2000


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in packages else find_spec(name, *rest),
    )


def test_missing_package_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "mlflow", "wandb")
    asked: dict[str, Any] = {"mlflow": {}, "wandb": {}}
    with pytest.raises(ConfigError) as failure:
        chosen_trackers(TrackerSettings.model_validate(asked))
    assert str(failure.value).splitlines() == [
        "trackers.mlflow is set, but the package mlflow is not installed: pip install "
        "'ppo-train[mlflow]', or leave trackers.mlflow out.",
        "trackers.wandb is set, but the package wandb is not installed: pip install "
        "'ppo-train[wandb]', or leave trackers.wandb out.",
    ]
    assert chosen_trackers(TrackerSettings()) == []
    settings = RunSettings.model_validate(
        {
            "default_settings": {},
            "checkpoint_settings": {"results_dir": str(tmp_path / "results")},
            "trackers": asked,
        }
    )
    with pytest.raises(ConfigError, match=r"ppo-train\[wandb\]"):
        RunStorage(settings, Reporter(), from_step=None)
    assert not (tmp_path / "results").exists()
    path = write_yaml(tmp_path / "file.yaml", {"default_settings": {}, "trackers": asked})
    assert main(["check", str(path)]) == 2
    assert "ppo-train[mlflow]" in capsys.readouterr().err


def test_tracker_that_hangs_at_the_end_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setattr("trainer.trackers.processes.END_WAIT_S", 0.2)
    (tmp_path / "run_logs").mkdir()
    heard: list[str] = []
    settings = TrackerSettings.model_validate({"wandb": {"mode": "offline"}})
    processes = TrackerProcesses(settings, tmp_path, heard.append)
    monkeypatch.setattr("sys.executable", str(_program(tmp_path, "import time; time.sleep(600)")))
    processes.start()
    processes.look()
    assert heard == []
    processes.end()
    assert len(heard) == 1
    assert "Tracker wandb has stopped: it did not take everything within" in heard[0]


def test_trackers_last_words_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "run_logs").mkdir()
    heard: list[str] = []
    settings = TrackerSettings.model_validate({"wandb": {}})
    processes = TrackerProcesses(settings, tmp_path, heard.append)
    monkeypatch.setattr(
        "sys.executable", str(_program(tmp_path, "print('noise'); raise SystemExit('no key')"))
    )
    processes.start()
    processes.end()
    processes.look()
    processes.end()
    assert len(heard) == 1
    assert heard[0].startswith("Tracker wandb has stopped: no key. The run goes on")


def _program(folder: Path, code: str) -> Path:
    """Writes what stands for a Python whose mirror does something else."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-c', code])}\n")
    path.chmod(0o755)
    return path
