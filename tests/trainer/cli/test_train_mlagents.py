"""A run that the real mlagents-learn 1.1.0 has made goes on here, or lends its weights."""

from __future__ import annotations

import json
import lzma
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
from test_train_rules import contents
from trainer_process import Trainer, checkpoint, ppo_train, run_events, write_yaml

RUNS = Path(__file__).parents[1] / "mlagents_runs"
NETWORKS = Path(__file__).parents[1] / "mlagents_networks"
WORDS = ("settings.yaml", "--env", "gym:two_sensors:TwoSensors", "--run-id")


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """A folder with ML-Agents' run `old`, and settings that are over soon after it."""
    shutil.copytree(RUNS / "continuous", tmp_path / "results" / "old")
    shutil.copy(RUNS / "two_sensors.py", tmp_path)
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 16, "buffer_size": 64},
        "network_settings": {"normalize": True, "hidden_units": 8, "num_layers": 2},
        "max_steps": 400,
        "summary_freq": 100,
    }
    write_yaml(tmp_path / "settings.yaml", {"behaviors": {"Crab": behavior}})
    return tmp_path


def test_resume_goes_on_with_step_weights_and_optimizer(cwd: Path) -> None:
    run = cwd / "results" / "old"
    theirs = (run / "Crab" / "checkpoint.pt").read_bytes()
    said = ppo_train(*WORDS, "old", "--resume", cwd=cwd)
    for line in (
        r"\[INFO\] Resuming from results/old/Crab/checkpoint\.pt\.",
        r"\[INFO\] Taken from ML-Agents' results/old/Crab/checkpoint\.pt: weights of actor and "
        r"critic \(\d+ parameters\), normaliser \(\d+ rows\), optimiser \(Adam after 48 steps\), "
        r"step\.",
        r"\[INFO\] Resuming training from step 310\.",
        r"\[INFO\] Crab\. Step: 400\. Time Elapsed: .*",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE), said
    assert "Crab. Step: 300." not in said
    state = checkpoint(run, "Crab")
    assert 400 <= state["step"] < 412
    # An update of 3 epochs with 64 decisions in minibatches of 16, on top of ML-Agents' 48 steps.
    assert state["algorithm"]["optimizer"]["state"][0]["step"] == 48 + 3 * 4
    assert (run / "Crab" / "checkpoint.mlagents.pt").read_bytes() == theirs
    assert run_events(run)[0]["step"] == 310
    again = ppo_train(*WORDS, "old", "--resume", cwd=cwd)
    assert f"Resuming training from step {state['step']}." in again
    assert "ML-Agents" not in again


def test_new_run_begins_with_its_weights_and_leaves_it_alone(cwd: Path) -> None:
    before = contents(cwd / "results" / "old")
    said = ppo_train(*WORDS, "new", "--initialize-from", "old", cwd=cwd)
    assert "Initializing from results/old/Crab/checkpoint.pt." in said
    assert "Taken from ML-Agents' " in said
    assert "Starting training from step 0 and saving to results/new/Crab." in said
    state = checkpoint(cwd / "results" / "new", "Crab")
    assert state["algorithm"]["optimizer"]["state"][0]["step"] == 48 + 6 * 3 * 4
    assert contents(cwd / "results" / "old") == before


def test_inference_acts_as_it_has_learnt_and_leaves_it_alone(cwd: Path) -> None:
    before = contents(cwd / "results" / "old")
    with Trainer(*WORDS, "old", "--resume", "--inference", cwd=cwd) as trainer:
        trainer.wait_for(r"Acting without learning, as of step 310\.")
        trainer.wait_for(r"Crab\. Step: 600\. .*Not Training\.")
        trainer.signal(signal.SIGINT)
        assert trainer.wait() == 130
    assert contents(cwd / "results" / "old") == before


def test_other_network_is_one_message_and_exit_code_2(cwd: Path) -> None:
    shutil.rmtree(cwd / "results" / "old")
    shutil.copytree(RUNS / "memory", cwd / "results" / "old")
    before = contents(cwd / "results" / "old")
    said = ppo_train(*WORDS, "old", "--resume", cwd=cwd, exit_code=2)
    assert "does not fit the network" in said
    assert "memory (LSTM): checkpoint 8 tensors more" in said
    assert "Traceback" not in said
    after = contents(cwd / "results" / "old")
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"configuration.yaml"}


def test_cameras_crowds_goals_and_memory_go_on_too(tmp_path: Path) -> None:
    made = NETWORKS / "everything"
    behavior = json.loads((made / "run.json").read_text())["behavior"]
    write_yaml(tmp_path / "settings.yaml", {"behaviors": {"Crab": behavior | {"max_steps": 290}}})
    theirs = tmp_path / "results" / "old" / "Crab" / "checkpoint.pt"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(lzma.decompress((made / "checkpoint.pt.xz").read_bytes()))
    build = tmp_path / "build.x86_64"
    simulator = [sys.executable, str(NETWORKS / "noisy_simulator.py"), str(made / "run.json")]
    build.write_text(f'#!/bin/sh\nexec {shlex.join(simulator)} "$@"\n')
    build.chmod(0o755)
    words = ("settings.yaml", "--env", "build.x86_64", "--run-id", "old", "--resume")
    said = ppo_train(*words, cwd=tmp_path)
    taken = (
        r"Taken from ML-Agents' .*, normaliser \(209 rows\), optimiser \(Adam after 30 steps\), st"
    )
    assert re.search(taken, said), said
    assert "Resuming training from step 208." in said
    assert "Not taken" not in said
    state = checkpoint(tmp_path / "results" / "old", "Crab")
    # An update of 3 epochs with 64 decisions in minibatches of 16.
    assert state["algorithm"]["optimizer"]["state"][0]["step"] == 30 + 3 * 4
    assert (tmp_path / "results" / "old" / "Crab.onnx").is_file()
