"""Verbs that talk to a running run, stop conditions, and what a resumed run keeps of them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from trainer_process import (
    Trainer,
    checkpoint,
    run_events,
    tiny_build,
    tiny_yaml,
    write_yaml,
)

from trainer.control_client import COMMAND_WAIT_S, read_address

WORDS = (
    "settings.yaml",
    "--env",
    "tiny.x86_64",
    "--num-envs",
    2,
    "--run-id",
    "run",
    "--timeout-wait",
    6,
    "--control",
)
RUN = ("--run-id", "run")


def step_of(run: Path) -> int:
    address = read_address(run / "run_logs" / "control.json")
    assert address is not None
    code, body = address.request("GET", "/metrics", timeout_s=COMMAND_WAIT_S)
    assert code == 200
    line = next(line for line in body.splitlines() if line.startswith("ppo_train_steps_total"))
    return int(float(line.rpartition(" ")[2]))


def test_running_run_is_asked_paused_changed_saved_and_stopped(
    tmp_path: Path, answered: Callable[..., str], refused: Callable[..., str]
) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=200)
    run = tmp_path / "results" / "run"
    with Trainer(*WORDS, cwd=tmp_path) as trainer:
        trainer.wait_for(r"1D\. Step: 200\. ")
        assert "1D: step " in answered("status", *RUN, cwd=tmp_path)
        assert "'run' is not paused" in refused("continue", *RUN, cwd=tmp_path)

        assert "is paused" in answered("pause", *RUN, cwd=tmp_path)
        assert "is paused already" in refused("pause", *RUN, cwd=tmp_path)
        # Longer than --timeout-wait in all; half of it for what was under way to arrive.
        time.sleep(3.5)
        stood = step_of(run)
        time.sleep(3.5)
        assert step_of(run) == stood
        assert "paused   elapsed" in answered("status", *RUN, cwd=tmp_path)
        assert "goes on" in answered("continue", *RUN, cwd=tmp_path)
        trainer.wait_for(rf"1D\. Step: {(stood // 200 + 3) * 200}\. ")

        said = answered("set", "learning_rate=1e-3", "epsilon=0.25", *RUN, cwd=tmp_path)
        assert "1D: learning_rate 0.005 -> 0.001; 1D: epsilon 0.2 -> 0.25 (where its lin" in said
        for words, words_said in (
            (("learnin_rate=1",), "Did you mean 'learning_rate'?"),
            (("learning_rate=-1",), "learning_rate is '-1'; expected a number above 0."),
            (("learning_rate",), "'learning_rate' is no KEY=VALUE"),
            (("beta=0", "--behavior", "2D"), "no behaviour '2D'; expected '1D'"),
        ):
            assert words_said in refused("set", *words, *RUN, cwd=tmp_path)

        assert "Run 'run' is saved: 1D at step " in answered("checkpoint", *RUN, cwd=tmp_path)
        assert "results/run/1D.onnx (step " in answered("export", *RUN, cwd=tmp_path)
        assert (run / "1D.onnx").is_file()
        assert "Run 'run' ends" in answered("stop", *RUN, cwd=tmp_path)
        assert trainer.wait() == 0
        last = trainer.output.splitlines()[-1]
        assert last == "[INFO] Run 'run' ended: stopped by `ppo-train stop`."

    assert not (run / "run_logs" / "control.json").exists()
    assert "it is not running" in refused("status", *RUN, cwd=tmp_path)
    assert "There are: run." in refused("status", "--run-id", "rnu", cwd=tmp_path)
    events = run_events(run)
    assert "simulator_lost" not in {event["event"] for event in events}
    told = [event["event"] for event in events]
    assert [word for word in told if word in ("pause", "continue", "stop")] == [
        "pause",
        "continue",
        "stop",
    ]
    changes = [(e["key"], e["before"], e["now"]) for e in events if e["event"] == "set"]
    assert changes == [("learning_rate", 0.005, 0.001), ("epsilon", 0.2, 0.25)]
    assert events[-1]["exit_code"] == 0

    # What was set holds on; a stop condition that is met at once ends the resumed run, saved.
    tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=200, stop__threshold=-1000)
    with Trainer(*WORDS, "--resume", cwd=tmp_path) as trainer:
        trainer.wait_for(r"Kept from `ppo-train set`: learning_rate 0\.001 \(the file: 0\.005\), ")
        assert trainer.wait() == 0
        last = trainer.output.splitlines()[-1]
        assert "ended: 1D: mean reward " in last
        assert "has reached stop.threshold -1000 at step " in last
    summaries = [event for event in run_events(run) if event["event"] == "summary"]
    assert summaries[-1]["values"]["Policy/Learning Rate"] == 0.001
    settings = json.loads(checkpoint(run, "1D")["settings"])
    assert settings["hyperparameters"]["learning_rate"] == 0.001
    assert run_events(run)[-1]["reason"] in last


def test_run_that_evaluates_its_last_checkpoint_answers_at_once(
    tmp_path: Path, answered: Callable[..., str], refused: Callable[..., str]
) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    path = tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=200)
    own = {"checkpoint_settings": {"evaluation_episodes": 1_000_000}}  # hours
    write_yaml(path, {**yaml.safe_load(path.read_text()), **own})
    run = tmp_path / "results" / "run"
    with Trainer(*WORDS, cwd=tmp_path) as trainer:
        trainer.wait_for(r"1D\. Step: 200\. ")
        assert "Run 'run' ends" in answered("stop", *RUN, cwd=tmp_path)
        trainer.wait_for(r"Exported .*1D-\d+\.onnx")
        said = answered("stop", *RUN, cwd=tmp_path)
        while "closes its simulators" in said or "saves" in said:
            said = answered("stop", *RUN, cwd=tmp_path)
        assert "Run 'run' is already stopping: it plays what it has saved last" in said
        said = answered("status", *RUN, cwd=tmp_path)
        assert "it is stopping. It plays what it has saved last (evaluation_episodes)" in said
        assert "1D: step " in said
        assert "0 steps/s" in said
        assert "simulators 0" in said
        for words in (("checkpoint",), ("set", "beta=1e-3"), ("pause",), ("export",)):
            told = refused(*words, *RUN, cwd=tmp_path)
            assert f"`{words[0]}` was not carried out: Run 'run' is stopping. It plays" in told
        trainer.signal(signal.SIGTERM)
        assert trainer.wait() == 0
    assert run_events(run)[-1]["reason"] == "stopped by `ppo-train stop`"
    assert [event["event"] for event in run_events(run)].count("stop") == 1


def test_wall_time_ends_the_run_saved(tmp_path: Path) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    path = tiny_yaml(tmp_path, max_steps=1_000_000)
    path.write_text(path.read_text() + "stop: {wall_time_s: 4}\n")
    with Trainer(*WORDS[:-1], cwd=tmp_path) as trainer:
        assert trainer.wait() == 0
        last = trainer.output.splitlines()[-1]
    assert last == "[INFO] Run 'run' ended: stop.wall_time_s 4 is over."
    run = tmp_path / "results" / "run"
    assert run_events(run)[-1]["reason"] == "stop.wall_time_s 4 is over"
    assert (run / "1D.onnx").is_file()
    assert not (run / "run_logs" / "control.json").exists()  # nobody asked for it
