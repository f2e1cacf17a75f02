"""Environments in the trainer's own process, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trainer_process import checkpoint, ppo_train, write_yaml

from trainer.cli.main import main
from trainer.config.errors import ConfigError
from trainer.config.settings import EnvironmentSettings

MODULE = '''
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple


class Own(gymnasium.Env):
    """Episodes of 10 steps that pay 1 per step; refuses actions outside of its space."""

    observation_space = Dict({"eye": Box(0, 255, (20, 20, 1), np.uint8), "far": Discrete(6)})
    action_space = Dict({"gears": MultiDiscrete([2, 5]), "grip": Box(0.0, 10.0, (2,), np.float32)})
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = 10
        return self.observation_space.sample(), {}

    def step(self, action):
        assert action in self.action_space, action
        Own.steps += 1
        if Own.steps == 200:
            raise OSError("the device is gone")
        self.left -= 1
        info = {"stats": {"Own/Left": self.left}}
        return self.observation_space.sample(), 1.0, self.left == 0, False, info
'''


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "my_module.py").write_text(MODULE)
    return tmp_path


def settings(cwd: Path, env: str, **behavior: Any) -> Path:
    hyperparameters = {"batch_size": 64, "buffer_size": 128, "num_epoch": 1}
    network = {"hidden_units": 16}
    whole: dict[str, Any] = {"hyperparameters": hyperparameters, "network_settings": network}
    whole |= {"max_steps": 400, "summary_freq": 200, **behavior}
    env_settings = {"env_path": env, "num_envs": 0, "num_areas": 4, "seed": 1}
    return write_yaml(
        cwd / "settings.yaml",
        {"behaviors": {"Own": {"trainer_type": "ppo", **whole}}, "env_settings": env_settings},
    )


def test_all_spaces_train_and_a_failure_costs_one_episode(cwd: Path) -> None:
    path = settings(cwd, "gym:my_module:Own")
    said = ppo_train(path, "--run-id", "own", cwd=cwd)
    assert "OSError: the device is gone" in said
    assert 'my_module.py", line' in said
    assert "It is built anew (1 of 10)." in said
    assert "Step: 400" in said
    assert "Mean Reward: 10.000" in said
    assert checkpoint(cwd / "results" / "own", "Own")["step"] >= 400
    timers = json.loads((cwd / "results" / "own" / "run_logs" / "timers.json").read_text())
    assert timers["gauges"]["Own.Own.Left.mean"]["value"] < 10

    said = ppo_train("eval", "--run-id", "own", "--episodes", "3", cwd=cwd)
    assert "10.0" in said
    said = ppo_train("check", str(path), "--env", "gym:my_module:Own", cwd=cwd)
    assert "Own?team=0: 4 agents of team 0" in said
    said = ppo_train("export", "--run-id", "own", cwd=cwd)
    assert (cwd / "results" / "own" / "Own.onnx").exists()


def test_an_environment_that_fails_at_once_is_the_users_mistake(
    cwd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cwd / "my_module.py").write_text(
        MODULE.replace("self.left = 10", "raise OSError('no device')")
    )
    monkeypatch.chdir(cwd)
    monkeypatch.syspath_prepend(str(cwd))
    path = settings(cwd, "gym:my_module:Own")
    assert main([str(path), "--run-id", "broken"]) == 2
    said = capsys.readouterr()
    assert "OSError: no device" in said.out + said.err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"env_path": "builds/Walker"}, "only Gymnasium environments"),
        ({"env_path": None}, "only Gymnasium environments"),
        ({"base_port": 6000}, "num_envs is 0 and base_port is 6000"),
        ({"act_at": "simulator"}, "num_envs is 0 and act_at is simulator"),
        ({"num_envs": -1}, "num_envs"),
    ],
)
def test_what_makes_no_sense_in_process_is_refused(changes: dict[str, Any], expected: str) -> None:
    given = {"env_path": "gym:CartPole-v1", "num_envs": 0, **changes}
    with pytest.raises((ConfigError, ValueError), match=expected):
        EnvironmentSettings.model_validate(given)
