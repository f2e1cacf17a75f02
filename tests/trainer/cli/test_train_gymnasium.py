"""Gymnasium environments through the command line: all supported spaces, own modules, arguments."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from trainer_process import checkpoint, ppo_train, write_yaml

MODULE = '''
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

BOX = Box(-2.0, 4.0, (3,), np.float32)
ACTIONS = {
    "binary": MultiBinary(3),
    "nested": Dict({
        "gears": MultiDiscrete([2, 5]),
        "grip": Tuple((Box(0.0, 10.0, (2,), np.float32), Discrete(4))),
        "steer": Box(-1.0, 1.0, (1,), np.float32),
    }),
    "text": Text(5),
}
OBSERVATIONS = {
    "discrete": Discrete(6),
    "nested": Tuple((BOX, MultiBinary(2), Dict({"far": Discrete(4), "near": BOX}))),
}


class Own(gymnasium.Env):
    """Episodes of 10 steps that pay `bonus` per step; refuses actions outside of its space."""

    def __init__(self, acts="binary", sees="discrete", bonus=1.0):
        self.action_space = ACTIONS[acts]
        self.observation_space = OBSERVATIONS[sees]
        self.bonus = bonus

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = 10
        return self.observation_space.sample(), {}

    def step(self, action):
        if action not in self.action_space:
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.left -= 1
        return self.observation_space.sample(), self.bonus, self.left == 0, False, {}
'''


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "my_module.py").write_text(MODULE)
    settings(tmp_path)
    return tmp_path


def settings(folder: Path, **env_kwargs: Any) -> None:
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 32, "buffer_size": 64},
        "network_settings": {"normalize": True, "hidden_units": 8},
        "max_steps": 200,
        "summary_freq": 100,
    }
    env = {"env_path": "gym:my_module:Own", "num_areas": 2, "env_kwargs": env_kwargs}
    write_yaml(folder / "own.yaml", {"behaviors": {"Own": behavior}, "env_settings": env})


# Per case: continuous actions, branches, and the length of each sensor.
@pytest.mark.parametrize(
    ("acts", "sees", "num_continuous", "branches", "sensors"),
    [
        ("binary", "discrete", 0, [2, 2, 2], [6]),
        ("nested", "nested", 3, [2, 5, 4], [3, 2, 4, 3]),
    ],
)
def test_spaces_are_trained_on_and_exported(
    cwd: Path, acts: str, sees: str, num_continuous: int, branches: list[int], sensors: list[int]
) -> None:
    settings(cwd, acts=acts, sees=sees)
    said = ppo_train("own.yaml", cwd=cwd)
    assert "Own. Step: 200." in said
    state = checkpoint(cwd / "results" / "ppo", "Own")
    assert state["num_updates"] == 3
    assert state["spec"]["continuous_size"] == num_continuous
    assert state["spec"]["discrete_branches"] == branches
    model = onnxruntime.InferenceSession(cwd / "results" / "ppo" / "Own.onnx")
    feed = {f"obs_{i}": np.ones((2, size), np.float32) for i, size in enumerate(sensors)}
    if branches:
        feed["action_masks"] = np.ones((2, sum(branches)), np.float32)
    if num_continuous:
        assert model.run(["continuous_actions"], feed)[0].shape == (2, num_continuous)
    assert model.run(["discrete_actions"], feed)[0].shape == (2, len(branches))


def test_constructor_arguments_from_the_file_change_the_reward(
    cwd: Path, answered: Callable[..., str]
) -> None:
    settings(cwd, bonus=2.5)
    said = ppo_train("own.yaml", cwd=cwd)
    # 10 steps of 2.5 in every episode.
    assert re.search(r"Step: 100\. .*Mean Reward: 25\.000\. Std of Reward: 0\.000\.", said), said
    played = answered("eval", "--run-id", "ppo", "--episodes", 2, cwd=cwd)
    assert "Own: mean return 25.00, std 0.00" in played


def test_env_flag_wins_over_the_file(cwd: Path) -> None:
    said = ppo_train("own.yaml", "--env", "gym:CartPole-v1", "--num-envs", 2, cwd=cwd)
    # One behaviour in the file: the environment takes its name, whatever it is.
    assert (
        "Behavior Own: observations obs (4,); actions 0 continuous, discrete branches [2]" in said
    )
    assert said.count("Connected to Unity environment") == 2


@pytest.mark.parametrize(
    ("words", "kwargs", "message"),
    [
        (
            (),
            {"acts": "text"},
            r"Action action is a Text\(1, 5, .*\)\. Supported are Box, Discrete",
        ),
        ((), {"bonos": 2}, r"bonos.*Correct env_settings\.env_kwargs; it takes .*bonus"),
        (("--env", "gym:CartPol-v1"), {}, r"gym:CartPol-v1: .*Did you mean CartPole-v1"),
    ],
)
def test_environment_that_cannot_be_used_is_named(
    cwd: Path, words: tuple[str, ...], kwargs: dict[str, Any], message: str
) -> None:
    settings(cwd, **kwargs)
    said = ppo_train("own.yaml", *words, cwd=cwd, exit_code=2)
    assert re.search(message, said), said
    assert "[ERROR] Run 'ppo' ended: no simulator is left." in said


def test_what_an_environment_forbids_is_never_done(tmp_path: Path) -> None:
    masked = Path(__file__).parents[2] / "envs" / "gym" / "masked_env.py"
    (tmp_path / "masked_env.py").write_text(masked.read_text())
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 32, "buffer_size": 128},
        "network_settings": {"hidden_units": 16, "num_layers": 1},
        "max_steps": 500,
    }
    write_yaml(tmp_path / "run.yaml", {"behaviors": {"MaskedEnv": behavior}})
    # It raises when a forbidden action is taken: one of four pairs is allowed in even env_steps.
    words = ("--env", "gym:masked_env:MaskedEnv", "--num-areas", 3, "--run-id", "m", "--seed", 1)
    said = ppo_train("run.yaml", *words, cwd=tmp_path)
    assert "discrete branches [2, 3]" in said
    assert "ended in the middle of the run" not in said
    assert checkpoint(tmp_path / "results" / "m", "MaskedEnv")["step"] >= 500
    assert max(checkpoint(tmp_path / "results" / "m", "MaskedEnv")["recent_returns"]) == 7.0
