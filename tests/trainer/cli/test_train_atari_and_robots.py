"""The ready files for Pong and for a reaching robot, through the whole program, in small."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from trainer_process import ROOT, changed, checkpoint, ppo_train, write_yaml

from envs.spec import ObservationType

CONFIGS = ROOT / "configs" / "gym"


def small(folder: Path, name: str, behavior: str, **changes: Any) -> str:
    """Writes a file of the repository with a shorter run of a smaller network."""
    settings = yaml.safe_load((CONFIGS / name).read_text())
    below = f"behaviors.{behavior}"
    short = {
        f"{below}.hyperparameters.batch_size": 32,
        f"{below}.hyperparameters.buffer_size": 128,
        f"{below}.hyperparameters.num_epoch": 2,
        f"{below}.network_settings.hidden_units": 32,
        f"{below}.max_steps": 400,
        f"{below}.summary_freq": 200,
        "env_settings.num_envs": 1,
        "checkpoint_settings.run_id": "small",
    }
    write_yaml(folder / "small.yaml", changed(settings, {**short, **changes}))
    return "small.yaml"


def sensors_of(run: Path, behavior: str) -> list[tuple[str, list[int], str, ObservationType]]:
    return [
        (
            sensor["name"],
            list(sensor["shape"]),
            sensor["dtype"],
            ObservationType(sensor["observation_type"]),
        )
        for sensor in checkpoint(run, behavior)["spec"]["sensors"]
    ]


def require_checked_export(run: Path, behavior: str) -> onnxruntime.InferenceSession:
    """Gives the exported policy, and proves that Unity's checks find nothing in it."""
    ppo_train("verify", f"{behavior}.onnx", cwd=run)
    return onnxruntime.InferenceSession(run / f"{behavior}.onnx")


def test_pong_is_trained_exported_and_played(tmp_path: Path) -> None:
    kwargs = {"frameskip": 1, "max_num_frames_per_episode": 400}
    name = small(tmp_path, "Pong-v5.yaml", "Pong", **{"env_settings.env_kwargs": kwargs})
    said = ppo_train(name, "--seed", 1, cwd=tmp_path)
    # 400 frames are at most 100 decisions: each agent's episodes end within 400 steps.
    assert re.search(r"Pong\. Step: 400\. .*Mean Reward: -?\d", said), said
    run = tmp_path / "results" / "small"
    state = checkpoint(run, "Pong")
    assert state["num_updates"] >= 3
    assert state["spec"]["discrete_branches"] == [6]
    assert sensors_of(run, "Pong") == [("obs", [4, 84, 84], "uint8", ObservationType.DEFAULT)]
    model = require_checked_export(run, "Pong")
    feed = {
        "obs_0": np.zeros((2, 4, 84, 84), np.float32),
        "action_masks": np.ones((2, 6), np.float32),
    }
    assert model.run(["discrete_actions"], feed)[0].shape == (2, 1)
    played = ppo_train("eval", "--run-id", "small", "--episodes", 1, cwd=tmp_path)
    assert re.search(r"^Pong episode 1: return -?\d\.00, length \d+$", played, re.MULTILINE), played


def test_reaching_robot_is_trained_exported_and_resumed(tmp_path: Path) -> None:
    hyper = {
        "behaviors.FetchReach.network_settings.goal_conditioning_type": "hyper",
        "env_settings.env_kwargs": {"reward_type": "sparse"},
    }
    name = small(tmp_path, "FetchReach-v4.yaml", "FetchReach", **hyper)
    said = ppo_train(name, "--seed", 1, cwd=tmp_path)
    # 50 decisions of -1, but for those at the goal.
    returns = [float(found) for found in re.findall(r"Mean Reward: (-\d+\.\d+)", said)]
    assert returns, said
    assert all(-50.0 <= mean <= -30.0 for mean in returns)
    run = tmp_path / "results" / "small"
    state = checkpoint(run, "FetchReach")
    assert state["num_updates"] >= 3
    assert (state["spec"]["continuous_size"], state["spec"]["discrete_branches"]) == (4, [])
    assert sensors_of(run, "FetchReach") == [
        ("obs/achieved_goal", [3], "float32", ObservationType.DEFAULT),
        ("obs/desired_goal", [3], "float32", ObservationType.GOAL_SIGNAL),
        ("obs/observation", [10], "float32", ObservationType.DEFAULT),
    ]
    model = require_checked_export(run, "FetchReach")
    assert [value.name for value in model.get_inputs()] == ["obs_0", "obs_1", "obs_2"]
    feed = {f"obs_{i}": np.ones((2, size), np.float32) for i, size in enumerate((3, 3, 10))}
    asked = "deterministic_continuous_actions"
    first = model.run([asked], feed)[0]
    feed["obs_1"] = -feed["obs_1"]
    assert np.abs(model.run([asked], feed)[0] - first).max() > 1e-6, "the goal changes nothing"
    longer = {**hyper, "behaviors.FetchReach.max_steps": 600}
    small(tmp_path, "FetchReach-v4.yaml", "FetchReach", **longer)
    ppo_train(name, "--resume", cwd=tmp_path)
    assert checkpoint(run, "FetchReach")["step"] >= 600


@pytest.mark.parametrize(
    ("name", "env", "lines"),
    [
        (
            "Pong-v5.yaml",
            "gym:ALE/Pong-v5",
            ["observation obs: visual, shape (4, 84, 84)", "discrete, branches of [6]"],
        ),
        (
            "FetchReach-v4.yaml",
            "gym:FetchReach-v4",
            [
                "observation obs/achieved_goal: vector, shape (3,)",
                "observation obs/desired_goal: vector, goal signal, shape (3,)",
                "observation obs/observation: vector, shape (10,)",
                "actions: 4 continuous",
            ],
        ),
    ],
)
def test_ready_file_fits_its_environment(
    tmp_path: Path, name: str, env: str, lines: list[str]
) -> None:
    said = ppo_train("check", CONFIGS / name, "--env", env, cwd=tmp_path)
    assert all(line in said for line in lines), said
    assert f"{name} fits the scene" in said


@pytest.mark.parametrize(
    ("module", "name", "advice"),
    [
        (
            "ale_py",
            "Pong-v5.yaml",
            "ale-py, which is not installed. Install it: pip install 'ppo-train[atari]'",
        ),
        ("cv2", "Pong-v5.yaml", "OpenCV. Install it: pip install 'ppo-train[atari]'"),
        (
            "gymnasium_robotics",
            "FetchReach-v4.yaml",
            "gymnasium-robotics, which is not installed. "
            "Install it: pip install 'ppo-train[robotics]'",
        ),
    ],
)
def test_missing_package_ends_the_run_with_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, advice: str
) -> None:
    # Python imports it at the start of every process, so the simulator's lacks the package.
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    said = ppo_train(CONFIGS / name, cwd=tmp_path, exit_code=2)
    assert advice in said, said
    assert "no simulator is left" in said


def test_mistake_in_a_wrapper_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    wrappers: list[dict[str, Any]] = [{"AtariPreprocesing": {}}]
    name = small(tmp_path, "Pong-v5.yaml", "Pong", **{"env_settings.env_wrappers": wrappers})
    said = ppo_train(name, cwd=tmp_path, exit_code=2)
    assert "env_settings.env_wrappers[0] AtariPreprocesing" in said
    assert "Did you mean AtariPreprocessing" in said
