"""`threaded: true`: real runs that collect while they learn, with learners as slow as it takes."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
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

from trainer.algos.base import Update
from trainer.algos.ppo import PPO
from trainer.behavior import Behavior
from trainer.behavior_update import BehaviorUpdate
from trainer.control import Command
from trainer.rollout.rollout import Rollout
from trainer.run import Run
from trainer.run_storage import RunStorage
from trainer.updates import Updates

InProcess = Callable[..., tuple[int, str, str]]
WORDS = ("settings.yaml", "--env", "tiny.x86_64", "--num-envs", 2, "--run-id", "run")
BUFFER = 64
PATIENCE_S = 60.0


@pytest.fixture
def game(tmp_path: Path) -> Path:
    tiny_build(tmp_path)
    tiny_yaml(tmp_path, max_steps=640, summary_freq=100, threaded=True)
    return tmp_path


def await_that(is_so: Callable[[], bool]) -> None:
    """Waits in the learner's thread for what the loop is to do meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "the loop stands still while the learner works"
        time.sleep(0.001)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has something done in every update, in the learner's thread, with the run and its number."""
    runs: list[Run] = []
    init, carry_out = Updates.__init__, BehaviorUpdate.carry_out

    def noted(self: Updates, run: Run) -> None:
        runs.append(run)
        init(self, run)

    def install(during: Callable[[Run, Behavior, int], None]) -> None:
        def slow(self: BehaviorUpdate) -> None:
            assert threading.current_thread() is not threading.main_thread()
            during(runs[-1], self._behavior, self._behavior.num_updates + 1)
            carry_out(self)

        monkeypatch.setattr(Updates, "__init__", noted)
        monkeypatch.setattr(BehaviorUpdate, "carry_out", slow)

    return install


def summaries(run: Path) -> list[dict[str, float]]:
    return [event["values"] for event in run_events(run) if event["event"] == "summary"]


def test_collection_goes_on_until_the_log_is_full_and_lags_by_one_update(
    game: Path, in_process: InProcess, beside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    update = PPO.update

    def noted(self: PPO, rollout: Rollout, step: int) -> Update:
        sizes.append(len(rollout))
        return update(self, rollout, step)

    monkeypatch.setattr(PPO, "update", noted)
    beside(
        lambda _, behavior, __: await_that(
            lambda: behavior.log.num_complete >= BUFFER or behavior.is_finished
        )
    )
    code, said, _ = in_process(*WORDS, cwd=game)
    assert code == 0
    run = game / "results" / "run"
    assert "learns beside collection (threaded), with 1 torch thread(s)" in said
    # A message brings one decision of each simulator; the loop waits with the log that is full.
    assert all(BUFFER <= size <= BUFFER + 2 for size in sizes), sizes
    # All that was collected was learnt, but for less than a rollout.
    state = checkpoint(run, "1D")
    assert state["num_updates"] == len(sizes) >= 8
    assert 640 - sum(sizes) < BUFFER
    shown = summaries(run)
    # The first rollout was chosen by the weights that learn from it.
    assert 0 < shown[1]["Policy/Lag"] <= 1.1
    assert all(1 <= values["Policy/Lag"] <= 1.1 for values in shown[3:])
    # Decisions that were open when the log before was taken.
    assert max(values.get("Policy/Largest Lag", 0) for values in shown) == 2
    assert all(values["Policy/Stale Steps"] == 0 for values in shown if "Policy/Lag" in values)
    assert re.search(r"waiting for the learner \d+ %; beside it the learner, busy \d+ %", said)
    timers = json.loads((run / "run_logs" / "timers.json").read_text())["children"]
    assert timers["learner"]["is_parallel"]
    assert timers["learner"]["count"] == len(sizes)
    assert timers["waiting for the learner"]["total"] > 0


def test_decisions_beyond_the_bound_are_dropped_and_counted(
    game: Path, in_process: InProcess, beside: Any
) -> None:
    path = game / "settings.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["behaviors"]["1D"] |= {"max_policy_lag": 1, "max_steps": 400}
    write_yaml(path, settings)
    beside(
        lambda _, behavior, __: await_that(
            lambda: behavior.log.num_complete >= BUFFER or behavior.is_finished
        )
    )
    assert in_process(*WORDS, cwd=game)[0] == 0
    shown = summaries(game / "results" / "run")
    assert max(values["Policy/Largest Lag"] for values in shown if "Policy/Lag" in values) == 1
    # Two agents, one decision each, whenever the loop had waited.
    assert 2 <= sum(values.get("Policy/Stale Steps", 0) for values in shown) <= 12


def test_signal_while_learning_waits_for_the_update_and_saves_it(
    game: Path, in_process: InProcess, beside: Any
) -> None:
    def stop(run: Run, behavior: Behavior, number: int) -> None:
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            await_that(lambda: bool(run.stop))

    beside(stop)
    assert in_process(*WORDS, cwd=game)[0] == 143
    state = checkpoint(game / "results" / "run", "1D")
    assert state["num_updates"] == 4
    assert 4 * BUFFER <= state["step"] <= 4 * (BUFFER + 2)  # what is in no update does not count


def test_commands_while_learning_wait_for_the_update(
    game: Path, in_process: InProcess, beside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs = ("pause", "continue", "checkpoint", "export", "set", "stop")
    commands = {verb: Command(verb, {}) for verb in verbs}
    commands["set"] = Command("set", {"values": {"learning_rate": 1e-3}})
    export_now, seen = RunStorage.export_now, []

    def export(self: RunStorage, behavior: Behavior) -> tuple[Path, int]:
        seen.append((behavior.update, behavior.num_updates))
        return export_now(self, behavior)

    def ask(run: Run, behavior: Behavior, number: int) -> None:
        if number == 3:
            for command in commands.values():
                run.control._queue.put(command)
            await_that(lambda: commands["pause"].reply.running())
            assert not run.is_paused

    monkeypatch.setattr(RunStorage, "export_now", export)
    beside(ask)
    assert in_process(*WORDS, cwd=game)[0] == 0
    assert all(command.reply.result(timeout=0) for command in commands.values())
    assert seen == [(None, 3)]
    state = checkpoint(game / "results" / "run", "1D")
    assert state["num_updates"] == 3
    assert json.loads(state["settings"])["hyperparameters"]["learning_rate"] == 1e-3


def test_error_of_an_update_is_the_answer_to_the_command_that_waited_and_ends_the_run(
    game: Path, in_process: InProcess, beside: Any
) -> None:
    command = Command("pause", {})

    def fail(run: Run, behavior: Behavior, number: int) -> None:
        if number == 3:
            run.control._queue.put(command)
            await_that(lambda: command.reply.running())
            raise ZeroDivisionError("a mistake of ours")

    beside(fail)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        in_process(*WORDS, cwd=game)
    assert isinstance(command.reply.exception(timeout=0), ZeroDivisionError)
    assert checkpoint(game / "results" / "run", "1D")["num_updates"] == 2


def test_learner_and_loop_have_their_own_numbers_of_threads(
    game: Path, in_process: InProcess, beside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = game / "settings.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["torch_settings"] = {"num_threads": 2}
    settings["behaviors"]["1D"]["max_steps"] = 200
    write_yaml(path, settings)
    learning: set[int] = set()
    acting: set[int] = set()
    decide = Behavior.decide

    def noted(self: Behavior, batches: Any) -> Any:
        acting.add(torch.get_num_threads())
        return decide(self, batches)

    monkeypatch.setattr(Behavior, "decide", noted)
    beside(lambda *_: learning.add(torch.get_num_threads()))
    assert in_process(*WORDS, cwd=game)[0] == 0
    assert (learning, acting) == ({2}, {1})


def test_reproducible_run_says_that_it_updates_in_turn_and_learns_what_it_did(
    game: Path, in_process: InProcess
) -> None:
    path = game / "settings.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["reproducible"] = True
    settings["behaviors"]["1D"]["max_steps"] = 200
    learnt = []
    for is_threaded in (True, False):
        settings["behaviors"]["1D"]["threaded"] = is_threaded
        write_yaml(path, settings)
        run_id = f"run-{is_threaded}"
        code, said, _ = in_process(*WORDS[:-1], run_id, "--seed", 3, cwd=game)
        assert code == 0
        words = "Behavior '1D' is threaded, but the run is reproducible: its updates run in turn"
        assert (words in said) == is_threaded
        assert "the learner" not in said
        learnt.append(checkpoint(game / "results" / run_id, "1D")["policy"])
    assert all(torch.equal(learnt[0][name], learnt[1][name]) for name in learnt[1])


def test_simulators_that_act_go_on_while_the_learner_works(
    tmp_path: Path, in_process: InProcess, beside: Any
) -> None:
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 64, "buffer_size": 128},
        "network_settings": {"hidden_units": 16},
        "max_steps": 1280,
        "summary_freq": 320,
        "threaded": True,
    }
    env = {"env_path": "gym:CartPole-v1", "num_envs": 2, "num_areas": 2, "act_at": "simulator"}
    write_yaml(tmp_path / "cart.yaml", {"behaviors": {"CartPole": behavior}, "env_settings": env})
    beside(
        lambda _, behavior, __: await_that(
            lambda: behavior.log.num_complete >= 128 or behavior.is_finished
        )
    )
    code, _, errors = in_process("cart.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, errors
    shown = summaries(tmp_path / "results" / "run")
    lags = [values["Policy/Lag"] for values in shown if "Policy/Lag" in values]
    assert 0 < max(lags) <= 2
    assert max(values.get("Policy/Largest Lag", 0) for values in shown) <= 3


def test_run_that_is_killed_goes_on_from_its_last_checkpoint(game: Path) -> None:
    path = game / "settings.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["behaviors"]["1D"] |= {"checkpoint_interval": 300, "max_steps": 1_000_000}
    write_yaml(path, settings)
    run = game / "results" / "run"
    with Trainer(*WORDS, cwd=game) as trainer:
        trainer.wait_for(r"Exported[\s\S]*Exported[\s\S]*Step: \d+")
        trainer.signal(signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
    told = [event["step"] for event in run_events_so_far(run) if event["event"] == "checkpoint"]
    state = checkpoint(run, "1D")
    assert state["step"] >= told[-1]
    # Only what was learnt counts: so many rollouts, and what was open never.
    assert state["num_updates"] * BUFFER <= state["step"] <= state["num_updates"] * (BUFFER + 2)
    settings["behaviors"]["1D"]["max_steps"] = state["step"] + 500
    write_yaml(path, settings)
    said = ppo_train(*WORDS, "--resume", cwd=game)
    assert f"Resuming training from step {state['step']}." in said
    assert checkpoint(run, "1D")["num_updates"] >= state["num_updates"] + 7


def run_events_so_far(run: Path) -> list[dict[str, Any]]:
    """Gives the events of a run that was killed; the last line may be torn."""
    lines = (run / "run_logs" / "events.jsonl").read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]
