"""Wrappers by name: what they make of an environment, and what is said of mistakes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.errors import SimulatorDidNotStartError
from envs.gym.wrappers import make_wrapped_env

OWN = """
import gymnasium


class Doubled(gymnasium.RewardWrapper):
    def __init__(self, env, factor=2.0):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


def bare(env):
    return 3


number = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_wrappers_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_wrappers_go_around_each_other_from_the_inside() -> None:
    env = make_wrapped_env(
        "CartPole-v1",
        {},
        [{"FrameStackObservation": {"stack_size": 3}}, {"FlattenObservation": {}}],
    )
    assert env.observation_space.shape == (12,)
    assert [type(env).__name__, type(env.env).__name__] == [
        "FlattenObservation",
        "FrameStackObservation",
    ]
    obs, _ = env.reset(seed=1)
    following, *_ = env.step(0)
    assert (following[:8] == obs[4:]).all(), "the oldest frame goes, the others move on"
    assert (following[8:] != obs[8:]).any()


def test_lists_become_the_tuples_that_wrappers_ask_for() -> None:
    env = make_wrapped_env("CartPole-v1", {}, [{"ReshapeObservation": {"shape": [2, 2]}}])
    assert env.observation_space.shape == (2, 2)


def test_wrapper_cuts_an_episode_short() -> None:
    env = make_wrapped_env("CartPole-v1", {}, [{"TimeLimit": {"max_episode_steps": 2}}])
    env.reset(seed=1)
    assert [env.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_own_wrapper_is_found_where_the_user_stands(own_module: str) -> None:
    plain: list[dict[str, dict[str, Any]]] = [{f"{own_module}:Doubled": {}}]
    env = make_wrapped_env("CartPole-v1", {}, [*plain, {f"{own_module}:Doubled": {"factor": 5}}])
    env.reset(seed=1)
    assert env.step(0)[1] == 10.0


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (
            {"FrameStack": {}},
            r"env_settings\.env_wrappers\[0\] FrameStack: gymnasium\.wrappers has no such wrapper "
            r"of numpy observations\. Did you mean FrameStackObservation",
        ),
        ({"cliprewards": {}}, r"Did you mean ClipReward"),
        ({"Xyz": {}}, r"It has AddRenderObservation, .*, ClipReward, .*\. A wrapper of your own"),
        ({"vector": {}}, r"no such wrapper"),
        ({"NumpyToTorch": {}}, r"no such wrapper"),
        (
            {"FrameStackObservation": {"stack_sise": 4}},
            r"FrameStackObservation: no argument is called 'stack_sise'\. "
            r"Did you mean 'stack_size'\? "
            r"It takes \(stack_size, \*, padding_type='reset'\)\.$",
        ),
        (
            {"FrameStackObservation": {"stack_size": 4, "pading_type": "zero"}},
            r"no argument is called 'pading_type'\. Did you mean 'padding_type'\?",
        ),
        (
            {"FrameStackObservation": {}},
            r"missing a required argument: 'stack_size'\. It takes \(stack_size",
        ),
        ({"FlattenObservation": {"a": 1}}, r"is called 'a'\. It takes no arguments\.$"),
        (
            {"FrameStackObservation": {"stack_size": 0}},
            r'with \{"stack_size": 0\} could not be put around <.*CartPole-v1.*>: ValueError: '
            r"The stack_size needs to be greater than zero.*Correct its arguments",
        ),
        ({"ResizeObservation": {"shape": [84, 84]}}, r"could not be put around .*CartPole"),
        ({"no_such_module:A": {}}, r"^env_settings\.env_wrappers\[0\] no_such_module:A: there is "),
    ],
)
def test_mistake_in_a_wrapper_is_named(wrapper: dict[str, Any], message: str) -> None:
    with pytest.raises(SimulatorDidNotStartError) as caught:
        make_wrapped_env("CartPole-v1", {}, [wrapper])
    assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dubled", r"has no class or function 'Dubled'\. Did you mean Doubled\?"),
        ("number", r"has no class or function 'number'"),
        ("bare", r"gave a builtins\.int, expected a gymnasium\.Env"),
    ],
)
def test_mistake_in_an_own_wrapper_is_named(own_module: str, name: str, message: str) -> None:
    with pytest.raises(SimulatorDidNotStartError, match=message):
        make_wrapped_env("CartPole-v1", {}, [{f"{own_module}:{name}": {}}])


def test_second_wrapper_of_the_list_is_counted_as_such() -> None:
    with pytest.raises(SimulatorDidNotStartError, match=r"env_wrappers\[1\] Nothing"):
        make_wrapped_env("CartPole-v1", {}, [{"FlattenObservation": {}}, {"Nothing": {}}])


def test_missing_opencv_is_named_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SimulatorDidNotStartError, match=r"pip install 'ppo-train\[atari\]'\.$"):
        make_wrapped_env("ALE/Pong-v5", {"frameskip": 1}, [{"AtariPreprocessing": {}}])


def test_frames_that_would_be_skipped_twice_are_explained() -> None:
    with pytest.raises(SimulatorDidNotStartError, match=r"env_kwargs: \{frameskip: 1\}\.$"):
        make_wrapped_env("ALE/Pong-v5", {}, [{"AtariPreprocessing": {}}])


def test_standard_wrappers_of_atari_make_four_small_grey_frames() -> None:
    env = make_wrapped_env(
        "ALE/Pong-v5",
        {"frameskip": 1},
        [
            {"AtariPreprocessing": {"screen_size": [80, 84]}},
            {"FrameStackObservation": {"stack_size": 4}},
        ],
    )
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 80), np.uint8)
    obs, _ = env.reset(seed=1)
    assert obs.shape == (4, 84, 80)
    assert obs.dtype == np.uint8
    env.close()
