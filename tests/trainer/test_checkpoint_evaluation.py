"""The best checkpoint by episodes of its own, in whole runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trainer_process import (
    Trainer,
    checkpoint,
    ppo_train,
    run_events,
    tiny_build,
    tiny_yaml,
    write_yaml,
)

from trainer.checkpoint import CheckpointStore, load_file
from trainer.config.errors import ConfigError
from trainer.config.load import load_run

WORDS = ("settings.yaml", "--env", "tiny.x86_64", "--run-id", "run")
BEST_RETURN = 1.02  # of the tiny game: 1.06 for the goal, less 0.01 for four steps before the last


def evaluated(folder: Path, episodes: int, **changes: Any) -> None:
    path = tiny_yaml(folder, **changes)
    own = {"checkpoint_settings": {"evaluation_episodes": episodes, "checkpoint_interval_s": None}}
    write_yaml(path, {**yaml.safe_load(path.read_text()), **own})


def manifest(run: Path) -> dict[str, Any]:
    document = json.loads((run / "1D" / "manifest.json").read_text())
    assert isinstance(document, dict)
    return document


def test_best_checkpoint_is_the_one_that_earned_most_by_itself(tmp_path: Path) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    evaluated(tmp_path, 5, max_steps=2000, checkpoint_interval=500, keep_checkpoints=1)
    output = ppo_train(*WORDS, cwd=tmp_path)
    run = tmp_path / "results" / "run"
    events = run_events(run)
    played = {e["step"]: e["mean_return"] for e in events if e["event"] == "evaluation"}
    # The run waits for its last checkpoint; those before may have come too fast.
    assert max(played) == max(e["step"] for e in events if e["event"] == "checkpoint")
    scores = {c["step"]: c["score"] for c in manifest(run)["checkpoints"]}
    best = manifest(run)["best"]
    assert {step: score for step, score in scores.items() if score is not None}.items() <= (
        played.items()
    )
    assert played[best] == max(played.values())
    assert checkpoint(run, "1D", best)["step"] == load_file(run / "1D" / "best.pt")["step"] == best
    # The likeliest action of what has been learnt is the best one: a known answer.
    assert played[best] == pytest.approx(BEST_RETURN)
    assert f"1D-{best} earned 1.020 in 5 episodes of its own, the most so far." in output
    assert next(e["is_best"] for e in events if e["event"] == "evaluation")


def test_simulator_that_fails_in_evaluation_costs_nothing_but_the_answer(tmp_path: Path) -> None:
    build = tiny_build(tmp_path, "--actions", "1,0")
    lines = build.read_text().splitlines()
    guard = 'case "$*" in *evaluation*) echo "no licence" >&2; exit 3;; esac'
    build.write_text("\n".join([lines[0], guard, *lines[1:]]) + "\n")
    evaluated(tmp_path, 5, max_steps=1000, checkpoint_interval=500)
    output = ppo_train(*WORDS, cwd=tmp_path)
    assert "could not be played, so it cannot become the best one: SimulatorError" in output
    run = tmp_path / "results" / "run"
    assert manifest(run)["best"] is None
    assert not [e for e in run_events(run) if e["event"] == "evaluation"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_end_in_the_middle_of_an_evaluation_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    evaluated(tmp_path, 1_000_000, max_steps=1_000_000, checkpoint_interval=300)
    with Trainer(*WORDS, cwd=tmp_path) as trainer:
        trainer.wait_for(r"Exported .*1D-\d+\.onnx")
        said = tmp_path / "results" / "run" / "run_logs" / "evaluation"
        while not list(said.glob("Player-*.log")):
            trainer.wait_for(r".")
        trainer.signal(number)
        trainer.wait()  # which looks for what is left


def test_rated_and_held_checkpoints_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "Crab", 1)
    for step in (1, 2, 3):
        store.save({"w": torch.zeros(1)}, step, None, held={1, 2})
    assert [saved.step for saved in store.checkpoints] == [1, 2, 3]
    assert store.rate(2, 0.5, 20, held={1})
    assert [saved.step for saved in store.checkpoints] == [1, 2, 3]
    assert not store.rate(1, 0.25, 20)
    assert [saved.step for saved in store.checkpoints] == [2, 3]
    assert load_file(tmp_path / "Crab" / "best.pt") is not None
    assert store.best is not None
    assert store.best.score == 0.5
    assert not store.rate(1, 9.0, 20)  # it is no more
    assert not (tmp_path / "Crab" / "Crab-1.pt").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "evaluation_episodes is 5, but env_path is not set"),
        (
            {"env_settings": {"env_path": "x"}, "checkpoint_settings": {"best_min_episodes": 30}},
            "best_min_episodes is 30, but with evaluation_episodes 5",
        ),
    ],
)
def test_settings_that_contradict_evaluation_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    chosen = {"evaluation_episodes": 5, **changes.pop("checkpoint_settings", {})}
    settings = {"behaviors": {"A": {}}, "checkpoint_settings": chosen, **changes}
    with pytest.raises(ConfigError, match=said):
        load_run(write_yaml(tmp_path / "x.yaml", settings))
