"""`num_envs: auto` in real runs: simulators come and go, and nothing that they finished is lost."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from trainer_process import run_events, tiny_build, write_yaml

from envs.batch import Terminals
from envs.fleet import Fleet
from trainer.behavior import Behavior
from trainer.simulator_count import Search

InProcess = Callable[..., tuple[int, str, str]]

# Takes its time, but no processor.
MODULE = """
import fcntl
import os
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Slow(gymnasium.Env):
    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, seconds=0.02, crashes=None):
        self.seconds = seconds
        if crashes:  # as many may live as there are names
            with open(crashes, "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                left = int(file.read())
                file.seek(0)
                file.write(str(left - 1))
            if left <= 0:
                os._exit(7)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        time.sleep(self.seconds)
        is_over = self.t == 7
        if is_over:
            with open(f"episodes-{os.getpid()}", "a") as file:
                file.write(".")
        return np.zeros(2, np.float32), 1.0, is_over, False, {}
"""


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are short, and the machine has two cores, of which there are always enough."""
    for name, value in (("WARM_UP_S", 0.1), ("TRIAL_S", 0.5), ("TRIAL_STEPS", 10)):
        monkeypatch.setattr(f"trainer.simulator_count.{name}", value)
    monkeypatch.setattr("trainer.placement.TRIAL_S", 0.3)
    monkeypatch.setattr("trainer.placement.TRIAL_STEPS", 10)
    monkeypatch.setattr("trainer.machine.num_cores", lambda: 2.0)
    monkeypatch.setattr("trainer.simulator_count.idle_while_collecting", lambda *_: 9.0)


def make_rates(monkeypatch: pytest.MonkeyPatch, rate_of: Callable[[int], float]) -> None:
    """Lets a formula say how fast so many simulators were: the machine may be busy."""
    judge = Search.next

    def judged(search: Search, count: int, rate: float, obstacle: str | None) -> int | None:
        assert rate > 0
        return judge(search, count, rate_of(count), obstacle)

    monkeypatch.setattr(Search, "next", judged)


def settings(folder: Path, max_steps: int, act_at: str, **kwargs: Any) -> None:
    (folder / "slow.py").write_text(MODULE)
    environment = {
        "env_path": "gym:slow:Slow",
        "num_envs": "auto",
        "act_at": act_at,
        "seed": 3,
        "env_kwargs": kwargs,
    }
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 32, "buffer_size": 128, "num_epoch": 1},
        "network_settings": {"num_layers": 1, "hidden_units": 8},
        "max_steps": max_steps,
        "summary_freq": 200,
    }
    write_yaml(
        folder / "settings.yaml", {"behaviors": {"Slow": behavior}, "env_settings": environment}
    )


@pytest.mark.usefixtures("_quick")
def test_simulators_are_added_while_they_help_and_a_resumed_run_begins_with_them(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rates(monkeypatch, lambda count: 40.0 * count)
    # There is memory for four.
    monkeypatch.setattr("trainer.machine.room_for_more", lambda pids, _: 4 - len(list(pids)))
    settings(tmp_path, 700, "auto")
    code, output, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, errors
    (chosen,) = re.findall(r"num_envs auto: .*", output)
    assert chosen == (
        "num_envs auto: 4 simulators: collecting made 160 steps/s with 4, 80 with 2, 120 with 3; "
        "another one might not fit into memory."
    )
    # One trial after the other: where to act with two, then how many.
    assert 0 < output.index("Agents act ") < output.index("(simulator 2)") < output.index(chosen)
    events = run_events(tmp_path / "results" / "run")
    (told,) = [event for event in events if event["event"] == "num_envs"]
    assert (told["chosen"], set(told["steps_per_s"])) == (4, {"2", "3", "4"})
    last = [event for event in events if event["event"] == "summary"][-1]
    assert last["values"]["Speed/Simulators Alive"] == 4
    noted = json.loads((tmp_path / "results" / "run" / "run_logs" / "num_envs.json").read_text())
    assert noted["num_envs"] == 4

    settings(tmp_path, 900, "auto")
    code, output, errors = in_process("settings.yaml", "--run-id", "run", "--resume", cwd=tmp_path)
    assert code == 0, errors
    assert "num_envs auto: 4 simulators, as this run has measured on this machine." in output
    assert "(simulator 3)" in output
    assert "collecting made" not in re.findall(r"num_envs auto: .*", output)[0]


class Diary:
    """What the trainer heard of each simulator, and who was dismissed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.episodes: Counter[int] = Counter()
        self.dismissed: dict[int, int] = {}  # pid by number
        end, dismiss = Behavior.end, Fleet.dismiss

        def noted_end(behavior: Behavior, batches: Sequence[Terminals]) -> None:
            for batch in batches:
                self.episodes.update(batch.simulator.tolist())
            end(behavior, batches)

        def noted_dismissal(fleet: Fleet, simulator: int) -> Any:
            pid = fleet.pids[simulator]
            assert pid is not None
            self.dismissed[simulator] = pid
            return dismiss(fleet, simulator)

        monkeypatch.setattr(Behavior, "end", noted_end)
        monkeypatch.setattr(Fleet, "dismiss", noted_dismissal)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("act_at", ["trainer", "simulator"])
def test_simulators_that_do_not_help_are_ended_and_no_episode_is_lost(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, act_at: str
) -> None:
    make_rates(monkeypatch, lambda count: 300.0 + count)
    monkeypatch.setattr("trainer.machine.num_cores", lambda: 3.0)
    monkeypatch.setattr("trainer.simulator_count.idle_while_collecting", lambda *_: 0.2)
    diary = Diary(monkeypatch)
    settings(tmp_path, 1200, act_at, seconds=0.003)
    code, output, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, errors
    (chosen,) = re.findall(r"num_envs auto: .*", output)
    assert chosen == (
        "num_envs auto: 1 simulator: collecting made 301 steps/s with 1, 302 with 2, 303 with 3; "
        "the cores are full."
    )
    assert set(diary.dismissed) == {1, 2}
    finished = {
        number: len(file.read_text()) if (file := tmp_path / f"episodes-{pid}").exists() else 0
        for number, pid in diary.dismissed.items()
    }
    assert sum(finished.values()) > 0
    assert {number: diary.episodes[number] for number in finished} == finished
    events = run_events(tmp_path / "results" / "run")
    assert not [event for event in events if event["event"] == "simulator_lost"]
    last = [event for event in events if event["event"] == "summary"][-1]
    assert last["values"]["Speed/Simulators Alive"] == 1


@pytest.mark.usefixtures("_quick")
def test_newcomer_that_crashes_ends_the_search_for_more(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rates(monkeypatch, lambda count: 40.0 * count)
    monkeypatch.setattr("trainer.machine.room_for_more", lambda *_: 50)
    (tmp_path / "places").write_text("3")
    settings(tmp_path, 500, "trainer", crashes=str(tmp_path / "places"))
    code, output, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, errors
    assert (
        "num_envs auto: 3 simulators: collecting made 120 steps/s with 3, 80 with 2; with more, "
        "one was lost." in output
    )
    assert "Simulator 3 (gym" in output
    last = [e for e in run_events(tmp_path / "results" / "run") if e["event"] == "summary"][-1]
    assert last["values"]["Speed/Simulators Alive"] == 3


def test_unity_builds_are_counted_too(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.machine.num_cores", lambda: 2.0)
    for name, value in (("WARM_UP_S", 0.05), ("TRIAL_S", 0.2), ("TRIAL_STEPS", 10)):
        monkeypatch.setattr(f"trainer.simulator_count.{name}", value)
    build = tiny_build(tmp_path, "--actions", "1,0")
    behavior = {"trainer_type": "ppo", "max_steps": 6000}
    write_yaml(tmp_path / "settings.yaml", {"behaviors": {"1D": behavior}})
    words = ("settings.yaml", "--env", build.name, "--num-envs", "auto", "--run-id", "run")
    code, output, errors = in_process(*words, cwd=tmp_path)
    assert code == 0, errors
    assert len(re.findall(r"num_envs auto: \d simulators?: collecting made ", output)) == 1
