"""A Gymnasium environment's images, goal and numbers, through its simulator agent to the fleet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import camera_env
import numpy as np
import pytest
from camera_env import HEIGHT, WIDTH, CameraEnv
from numpy.typing import NDArray

from envs.batch import Actions, Decisions, Terminals
from envs.fleet import Fleet, FleetPlan, SimulatorMessage
from envs.gym.agent import env_seed
from envs.registry import resolve
from envs.spec import VECTOR, VISUAL, ObservationSpec, ObservationType

NUM_AREAS = 2
BEHAVIOR = "CameraEnv?team=0"


def columns_of(obs: dict[str, Any]) -> list[NDArray[Any]]:
    """What the trainer should see of one observation, sensor by sensor."""
    return [
        obs["colour"].transpose(2, 0, 1),
        obs["depth"].transpose(2, 0, 1),
        obs["desired_goal"],
        obs["grey"][None],
        obs["stack"],
    ]


def require_equal(rows: Decisions | Terminals, row: int, obs: dict[str, Any]) -> None:
    for column, expected in zip(rows.obs, columns_of(obs), strict=True):
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column[row], expected)


def test_fleet_sees_what_the_environment_showed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = str(Path(camera_env.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([harness, os.environ.get("PYTHONPATH", "")]))
    plan = FleetPlan(
        launch=resolve("gym:camera_env:CameraEnv", num_areas=NUM_AREAS), seed=5, logs_dir=tmp_path
    )
    envs = [CameraEnv() for _ in range(NUM_AREAS)]
    num_ended = 0
    with Fleet(plan) as fleet:
        (message,) = fleet.recv(timeout_s=60)
        assert isinstance(message, SimulatorMessage), message
        plain, goal = ObservationType.DEFAULT, ObservationType.GOAL_SIGNAL
        assert message.new_behaviors[BEHAVIOR].observation_specs == [
            ObservationSpec((3, HEIGHT, WIDTH), VISUAL, plain, "obs/colour", "uint8"),
            ObservationSpec((2, HEIGHT, WIDTH), VISUAL, plain, "obs/depth", "float32"),
            ObservationSpec((2,), VECTOR, goal, "obs/desired_goal", "float32"),
            ObservationSpec((1, HEIGHT, WIDTH), VISUAL, plain, "obs/grey", "uint8"),
            ObservationSpec((4, HEIGHT, WIDTH), VISUAL, plain, "obs/stack", "uint8"),
        ]
        for index, env in enumerate(envs):
            obs, _ = env.reset(seed=env_seed(5, index))
            require_equal(message.decisions[BEHAVIOR], index, obs)
        for step in range(60):
            actions = np.array([[step / 100], [-step / 100]], np.float32)
            answer = Actions(actions, np.empty((NUM_AREAS, 0), np.int32))
            fleet.send(0, {BEHAVIOR: answer})
            (message,) = fleet.recv(timeout_s=60)
            assert isinstance(message, SimulatorMessage), message
            ended = message.terminals.get(BEHAVIOR)
            row = 0
            for index, env in enumerate(envs):
                obs, _, terminated, truncated, _ = env.step(actions[index])
                if terminated or truncated:
                    assert ended is not None
                    assert ended.truncated[row] == truncated
                    require_equal(ended, row, obs)
                    row += 1
                    num_ended += 1
                    obs, _ = env.reset()
                require_equal(message.decisions[BEHAVIOR], index, obs)
    assert num_ended > 5
