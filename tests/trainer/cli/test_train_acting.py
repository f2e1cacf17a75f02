"""Runs whose simulators act for themselves: on-policy, complete, and as robust as all others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_control import step_of
from trainer_process import Trainer, checkpoint, run_events, tiny_build, tiny_yaml, write_yaml

from trainer.actor import Actor
from trainer.algos.base import Update
from trainer.algos.ppo import PPO
from trainer.algos.reinforce import Reinforce
from trainer.rollout.rollout import Rollout

InProcess = Callable[..., tuple[int, str, str]]
BUFFER_SIZE, NUM_SIMULATORS, NUM_AREAS = 256, 2, 2  # assignments of up to 8 env_steps
EVERYBODY = NUM_SIMULATORS * NUM_AREAS  # decisions of one env_step of all agents
MAX_STEPS = 1200

# The reward is the action itself, so that a mix-up of rows shows.
MODULE = '''
import os
import threading

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Plain(gymnasium.Env):
    """Episodes of `length`, terminated and truncated in turn; one of all misbehaves once."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length=7, how=None, at=40, marker=None):
        self.length, self.how, self.at, self.marker = length, how, at, marker
        self.num_steps = self.num_episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.num_episodes += 1
        return self.observe(), {}

    def observe(self):
        return np.array([self.np_random.normal(), self.t], np.float32)

    def step(self, action):
        self.t += 1
        self.num_steps += 1
        obs = self.observe()
        if self.how and self.num_steps >= self.at:
            try:
                os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                self.how = None
            else:
                obs = self.misbehave(obs)
        is_over = self.t == self.length
        is_cut = is_over and self.num_episodes % 2 == 0
        return obs, float(action[0]), is_over and not is_cut, is_cut, {}

    def misbehave(self, obs):
        if self.how == "crash":
            os._exit(9)
        if self.how == "raise":
            raise ArithmeticError("the plain does not add up")
        if self.how == "hang":
            threading.Event().wait()
        return obs * np.nan
'''


def settings(folder: Path, **changes: Any) -> None:
    """Writes the environment and a run of it, at the simulators."""
    (folder / "plain.py").write_text(MODULE)
    environment = {
        "env_path": "gym:plain:Plain",
        "num_envs": NUM_SIMULATORS,
        "num_areas": NUM_AREAS,
        "seed": 3,
        "act_at": "simulator",
        "env_kwargs": changes.pop("env_kwargs", {}),
        **changes.pop("env", {}),
    }
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 32, "buffer_size": BUFFER_SIZE, "num_epoch": 2},
        "network_settings": {"normalize": True, "num_layers": 1, "hidden_units": 8},
        "max_steps": MAX_STEPS,
        "summary_freq": 400,
        **changes,
    }
    if behavior["trainer_type"] == "reinforce":
        del behavior["hyperparameters"]["num_epoch"]
    write_yaml(
        folder / "settings.yaml",
        {"behaviors": {"Plain": behavior}, "env_settings": environment},
    )


class Updates:
    """What every update was given, and how far its old log-probabilities are from today's."""

    def __init__(self) -> None:
        self.rollouts: list[Rollout] = []
        self.steps: list[int] = []
        self.distances: list[float] = []

    def watch(self, algorithm: Any, rollout: Rollout, step: int) -> None:
        policy = algorithm.policy
        with torch.no_grad():
            inputs = policy.inputs(rollout.obs)
            now = policy.evaluate(
                inputs, rollout.action_mask, rollout.continuous, rollout.discrete
            ).log_probs
        self.distances.append(float((now - rollout.log_probs).abs().max()))
        self.rollouts.append(rollout)
        self.steps.append(step)

    def require_sound(self) -> None:
        """On-policy to float32's rounding, and every reward in the row of its action."""
        assert max(self.distances) < 1e-4
        for rollout in self.rollouts:
            acted = rollout.continuous[:, 0].clamp(-3, 3) / 3
            torch.testing.assert_close(rollout.rewards[:, 0], acted, rtol=0, atol=1e-5)

    def require_full(self) -> None:
        for rollout in self.rollouts:
            assert BUFFER_SIZE <= len(rollout) <= BUFFER_SIZE + EVERYBODY
        gaps = np.diff([0, *self.steps])
        assert all(BUFFER_SIZE <= gap <= BUFFER_SIZE + EVERYBODY for gap in gaps)


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> Updates:
    """Watches updates; and that the trainer itself does not act."""
    found = Updates()
    for algorithm in (PPO, Reinforce):
        update = algorithm.update

        def watched(
            self: Any, rollout: Rollout, step: int, update: Callable[..., Update] = update
        ) -> Update:
            found.watch(self, rollout, step)
            return update(self, rollout, step)

        monkeypatch.setattr(algorithm, "update", watched)
    return found


@pytest.fixture
def _only_simulators_act(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("the trainer acts")

    monkeypatch.setattr(Actor, "act", refused)


def require_end(run: Path, most: int = MAX_STEPS) -> None:
    """The run reached `max_steps`, and no further than one env_step of all agents."""
    assert run_events(run)[-1]["exit_code"] == 0
    assert most <= checkpoint(run, "Plain")["step"] <= most + EVERYBODY


# On-policy.


@pytest.mark.usefixtures("_only_simulators_act")
def test_ppo_learns_from_full_rollouts_of_the_policy_as_it_is(
    tmp_path: Path, in_process: InProcess, updates: Updates
) -> None:
    settings(tmp_path)
    code, said, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, said + errors
    updates.require_sound()
    updates.require_full()
    assert len(updates.rollouts) >= MAX_STEPS // (BUFFER_SIZE + EVERYBODY)
    run = tmp_path / "results" / "run"
    require_end(run)
    assert (run / "Plain.onnx").is_file()
    summaries = [event for event in run_events(run) if event["event"] == "summary"]
    assert [event["step"] // 400 for event in summaries] == [1, 2, 3]
    assert "Agents act" not in said  # nothing was to be chosen

    # It goes on where it was, with another max_steps.
    settings(tmp_path, max_steps=MAX_STEPS + 300)
    last = checkpoint(run, "Plain")["step"]
    code, said, errors = in_process("settings.yaml", "--run-id", "run", "--resume", cwd=tmp_path)
    assert code == 0, said + errors
    assert f"Resuming training from step {last}." in said
    updates.require_sound()
    require_end(run, MAX_STEPS + 300)


@pytest.mark.usefixtures("_only_simulators_act")
def test_whole_episodes_longer_than_the_rollout_are_played_to_their_end(
    tmp_path: Path, in_process: InProcess, updates: Updates
) -> None:
    settings(tmp_path, trainer_type="reinforce", time_horizon=500, env_kwargs={"length": 100})
    code, said, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, said + errors
    require_end(tmp_path / "results" / "run")
    assert updates.rollouts
    for rollout in updates.rollouts:  # nothing but whole episodes
        assert set(np.diff(rollout.segment_starts.tolist()).tolist()) == {100}
        torch.testing.assert_close(
            rollout.rewards[:, 0], rollout.continuous[:, 0].clamp(-3, 3) / 3, rtol=0, atol=1e-5
        )


# Which place.


@pytest.mark.parametrize(("faster", "place"), [(0.0, "at the simulators"), (1e9, "in the trainer")])
def test_auto_says_once_where_it_stays(
    tmp_path: Path,
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    updates: Updates,
    faster: float,
    place: str,
) -> None:
    for name, value in (("FASTER", faster), ("TRIAL_S", 0.05), ("TRIAL_STEPS", 60)):
        monkeypatch.setattr(f"trainer.placement.{name}", value)
    acted_at = []
    act = Actor.act

    def watched(self: Actor, *arguments: Any) -> Any:
        acted_at.append(len(updates.steps))
        return act(self, *arguments)

    monkeypatch.setattr(Actor, "act", watched)
    settings(tmp_path, max_steps=3000, env={"act_at": "auto"})
    code, said, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, said + errors
    (told,) = re.findall(r"Agents act .*", said)
    assert re.fullmatch(
        rf"Agents act {place}: collecting made [\d,]+ steps/s with the policy at the simulators, "
        r"[\d,]+ in the trainer\.",
        told,
    )
    require_end(tmp_path / "results" / "run", 3000)
    assert acted_at[0] == 0  # the trainer is tried first
    last_updates = acted_at[-1] >= len(updates.steps) - 1
    assert last_updates == (place == "in the trainer")


# Simulators that fail in the middle of an assignment.


@pytest.mark.usefixtures("_only_simulators_act")
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("crash", r"ended in the middle of the run \(exit code 9\)"),
        ("raise", r"ended in the middle of the run .*[\s\S]*the plain does not add up"),
        ("hang", r"did not answer within 20 s"),
    ],
)
def test_simulator_that_fails_while_it_acts_costs_its_own_episodes_only(
    tmp_path: Path, in_process: InProcess, updates: Updates, how: str, words: str
) -> None:
    settings(
        tmp_path,
        env_kwargs={"how": how, "marker": str(tmp_path / "marker")},
        env={"timeout_wait": 20},  # a busy machine starts simulators slowly
        max_steps=2400,
    )
    code, said, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, said + errors
    run = tmp_path / "results" / "run"
    require_end(run, 2400)
    (lost,) = [event for event in run_events(run) if event["event"] == "simulator_lost"]
    assert lost["will_restart"]
    assert re.search(words, lost["message"]), lost["message"]
    # The one that was started again acts with today's policy, and no row is of two lives.
    updates.require_sound()
    updates.require_full()


def test_bad_numbers_in_the_middle_of_an_assignment_cost_one_episode(
    tmp_path: Path, in_process: InProcess, updates: Updates
) -> None:
    settings(
        tmp_path,
        env_kwargs={"how": "nan", "marker": str(tmp_path / "marker"), "length": 20},
    )
    code, said, errors = in_process("settings.yaml", "--run-id", "run", cwd=tmp_path)
    assert code == 0, said + errors
    run = tmp_path / "results" / "run"
    events = [event["event"] for event in run_events(run)]
    assert events.count("episode_dropped") == 1
    assert "simulator_lost" not in events
    updates.require_sound()
    require_end(run)


# A user who meddles.


def test_run_is_paused_and_goes_on_while_simulators_act(
    tmp_path: Path, answered: Callable[..., str]
) -> None:
    settings(tmp_path, max_steps=10_000_000)
    run = tmp_path / "results" / "run"
    words = ("settings.yaml", "--run-id", "run", "--control")
    with Trainer(*words, cwd=tmp_path) as trainer:
        trainer.wait_for(r"Plain\. Step: \d+\. ")
        assert "is paused" in answered("pause", "--run-id", "run", cwd=tmp_path)
        time.sleep(2.0)  # what was assigned arrives
        stood = step_of(run)
        time.sleep(1.0)
        assert step_of(run) == stood
        assert "goes on" in answered("continue", "--run-id", "run", cwd=tmp_path)
        trainer.wait_for(rf"Plain\. Step: {(stood // 400 + 3) * 400}\. ")
        answered("stop", "--run-id", "run", cwd=tmp_path)
        assert trainer.wait() == 0
    assert "simulator_lost" not in {event["event"] for event in run_events(run)}


# Those that cannot.


def test_unity_cannot_act(tmp_path: Path, refused: Callable[..., str]) -> None:
    tiny_yaml(tmp_path, name="Scripted")
    tiny_build(tmp_path, "--script", "healthy", program="envs.testing.scripted")
    words = ("settings.yaml", "--env", "scripted.x86_64", "--act-at", "simulator")
    said = refused(*words, cwd=tmp_path)
    assert said == (
        "error: env_settings.act_at is simulator, but simulator 0 cannot act: only ppo-train's own "
        "simulator agents (env_path gym:...), of one behavior, can. Set act_at to auto or "
        "trainer.\n"
    )


def test_memory_cannot_act_at_a_simulator(tmp_path: Path, refused: Callable[..., str]) -> None:
    memory = {"memory": {"memory_size": 8, "sequence_length": 4}}
    settings(tmp_path, network_settings=memory)
    said = refused("settings.yaml", cwd=tmp_path)
    assert "cannot act: its policy has memory, or lies on another device than the CPU." in said
