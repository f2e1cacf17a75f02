"""Playing whole episodes, with simulators that are not what the run was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensor_specs import behavior, entities, image, random_obs, vector
from trainer_process import tiny_build

from envs.batch import Actions, Decisions, Terminals
from envs.spec import ActionSpec, BehaviorSpec
from trainer.config.errors import UserError
from trainer.config.settings import BehaviorSettings, RunSettings
from trainer.evaluation import CheckpointPlayer, Episode, Evaluation, OnnxPlayer, Player, evaluate
from trainer.export_onnx import export
from trainer.onnx_policy import OnnxPolicy
from trainer.saved_policy import SavedPolicy, build_policy


@dataclass
class Stubborn:
    """Always does the same: all continuous actions 1, of each branch the first choice."""

    source: str = "a stubborn player"
    _actions: ActionSpec = field(default_factory=lambda: ActionSpec(1, ()))

    def require_fits(self, name: str, spec: BehaviorSpec) -> None:
        """Plays everything."""
        self._actions = spec.action_spec

    def act(self, decisions: Decisions) -> Actions:
        """Answers N decisions."""
        num_rows = len(decisions.reward)
        return Actions(
            np.ones((num_rows, self._actions.continuous_size), np.float32),
            np.zeros((num_rows, self._actions.discrete_size), np.int32),
        )

    def end(self, terminals: Terminals) -> None:
        """Remembers nothing."""


def play(folder: Path, env: str, *names: str, **trained_on: Any) -> dict[str, list[Episode]]:
    """Plays two episodes of each behaviour in `env`; the run's own simulator is `trained_on`."""
    settings = RunSettings.model_validate(
        {"behaviors": {name: {} for name in names}, "env_settings": trained_on}
    )
    plan = Evaluation(env_path=env, episodes=2, deterministic=True, seed=0)
    return evaluate(settings, folder / "logs", {name: Stubborn() for name in names}, plan)


def test_behavior_that_never_appears_ends_the_evaluation_by_name(tmp_path: Path) -> None:
    build = str(tiny_build(tmp_path))
    with pytest.raises(UserError) as caught:
        play(tmp_path, build, "1D", "Goalkeeper", "Striker", env_path=build)
    assert str(caught.value) == (
        "The simulator has no agent of Goalkeeper, Striker, and 1D has finished its episodes (2); "
        "expected agents of all behaviours of the run. Choose one that is there (--behavior 1D), "
        "or the simulator that the run was trained on (--env)."
    )


def test_behaviors_that_both_appear_are_played_to_the_end(tmp_path: Path) -> None:
    build = str(tiny_build(tmp_path, "--behavior", "Left?team=0", "--behavior", "Right?team=1"))
    played = play(tmp_path, build, "Left", "Right", env_path=build)
    # Five steps of 0.2 to the right end; the goal is there or is not.
    assert {name: [length for _, length in episodes] for name, episodes in played.items()} == {
        "Left": [5, 5],
        "Right": [5, 5],
    }


@pytest.mark.parametrize("trained_on", ["gym", "unity"])
def test_another_simulator_gets_no_arguments_of_the_first(tmp_path: Path, trained_on: str) -> None:
    build = str(tiny_build(tmp_path))
    if trained_on == "gym":
        own = {"env_path": "gym:CartPole-v1", "env_kwargs": {"sutton_barto_reward": True}}
        played = play(tmp_path, build, "1D", **own)
        assert [length for _, length in played["1D"]] == [5, 5]
    else:
        own = {"env_path": build, "env_args": ("--step-size", "0.5")}
        played = play(tmp_path, "gym:CartPole-v1", "CartPole", **own)
        # Always to the left, the pole falls after some ten steps of reward 1.
        assert all(7 <= earned == length <= 13 for earned, length in played["CartPole"])


def test_wrappers_stay_around_another_environment_of_gymnasium_only(tmp_path: Path) -> None:
    wrappers = ({"TimeLimit": {"max_episode_steps": 4}},)
    own = {"env_path": "gym:Acrobot-v1", "env_wrappers": wrappers}
    played = play(tmp_path, "gym:CartPole-v1", "CartPole", **own)
    assert [length for _, length in played["CartPole"]] == [4, 4]
    played = play(tmp_path, str(tiny_build(tmp_path)), "1D", **own)
    assert [length for _, length in played["1D"]] == [5, 5]


def test_another_build_of_the_game_keeps_the_arguments(tmp_path: Path) -> None:
    (tmp_path / "newer").mkdir()
    own = {"env_path": str(tiny_build(tmp_path)), "env_args": ("--step-size", "0.5")}
    played = play(tmp_path, str(tiny_build(tmp_path / "newer")), "1D", **own)
    assert [length for _, length in played["1D"]] == [2, 2]


def decisions_of(spec: BehaviorSpec, rows: int) -> Decisions:
    zeros = np.zeros(rows, np.int32)
    return Decisions(
        obs=tuple(column.numpy() for column in random_obs(spec, rows)),
        reward=np.zeros(rows, np.float32),
        lane=np.arange(rows),
        agent_id=zeros,
        simulator=zeros,
        team=zeros,
        group_id=zeros,
        group_reward=np.zeros(rows, np.float32),
    )


def test_checkpoint_and_file_play_alike_with_every_kind_of_sensor(tmp_path: Path) -> None:
    spec = behavior(image(3, 20, 20), vector(4), entities(5, 6), vector(2, "goal", is_goal=True))
    torch.manual_seed(0)
    settings = BehaviorSettings()
    policy = build_policy("Crab", spec, settings)
    with torch.no_grad():
        policy.mean_head.weight.normal_()
    export(policy, spec, tmp_path / "Crab.onnx")
    saved = SavedPolicy("Crab", 0, spec, settings, policy)
    players: list[Player] = [
        CheckpointPlayer(saved, True, 0, "checkpoint"),
        OnnxPlayer(OnnxPolicy(tmp_path / "Crab.onnx"), True, "file"),
    ]
    decisions = decisions_of(spec, 9)
    assert decisions.obs[0].dtype == np.uint8
    found, same = (player.act(decisions).continuous for player in players)
    assert found == pytest.approx(same, abs=1e-5)
    assert found.std() > 0.01


@pytest.mark.parametrize(
    "other",
    [
        behavior(image(3, 24, 20, "eye"), vector(2, "goal", is_goal=True)),
        behavior(image(3, 20, 20, "eye"), vector(2, "goal")),
    ],
    ids=["size", "goal"],
)
def test_simulator_with_other_sensors_is_refused_with_both_descriptions(
    other: BehaviorSpec,
) -> None:
    spec = behavior(image(3, 20, 20, "eye"), vector(2, "goal", is_goal=True), continuous=2)
    settings = BehaviorSettings()
    saved = SavedPolicy("Crab", 0, spec, settings, build_policy("Crab", spec, settings))
    with pytest.raises(UserError) as caught:
        CheckpointPlayer(saved, True, 0, "run7").require_fits("Crab", other)
    assert "run7 was trained on observations eye (3, 20, 20) uint8, goal goal (2,)" in str(
        caught.value
    )
