"""mlagents-envs' own UnityEnvironment, unmodified, drives our Gymnasium simulator agent."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from envs.gym.agent import env_seed

HERE = Path(__file__).parent
REFEREE = HERE.parent.parent / ".venv-referee" / "bin" / "python"
NUM_AREAS = 3
SEED = 7

pytestmark = pytest.mark.referee


def referee_python() -> str:
    if not REFEREE.is_file():
        pytest.fail(f"{REFEREE} is missing: run `make test`, which builds it", pytrace=False)
    return str(REFEREE)


def drive(
    env: str, folder: Path, steps: int, *arguments: str, parameter: str | None = None
) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """Lets the referee drive our agent; gives its summary and what it recorded."""
    executable = folder / "simulator.x86_64"
    command = shlex.join([sys.executable, "-m", "envs.gym", "--env", env, *arguments])
    executable.write_text(f'#!/bin/sh\nexec {command} "$@" 2>{shlex.quote(str(folder))}/log\n')
    executable.chmod(0o755)
    referee = [referee_python(), str(HERE / "referee_drive.py")]
    options = {
        "executable": str(executable),
        "seed": str(SEED),
        "num-areas": str(NUM_AREAS),
        "steps": str(steps),
        "reset-at": str(steps // 2),
        "output": str(folder / "recorded.npz"),
    }
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    if parameter is not None:
        words += ["--parameter", parameter]
    done = subprocess.run([*referee, *words], cwd=HERE, capture_output=True, text=True, timeout=240)
    log = (folder / "log").read_text() if (folder / "log").exists() else "no log"
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    return json.loads(done.stdout.splitlines()[-1]), np.load(folder / "recorded.npz")


def check_against_direct_steps(
    recorded: Mapping[str, NDArray[Any]],
    make: Callable[[], gymnasium.Env[Any, Any]],
    action_of: Callable[[NDArray[Any], NDArray[Any]], Any],
    sensors_of: Callable[[Any], list[NDArray[Any]]],
) -> int:
    """Steps copies of the environments directly; gives the number of ended episodes."""
    steps, num_envs = recorded["decision_id"].shape
    envs = [make() for _ in range(num_envs)]
    terminals = {
        (int(step), int(agent)): row
        for row, (step, agent) in enumerate(
            zip(recorded["terminal_step"], recorded["terminal_id"], strict=True)
        )
    }
    seen_ids: set[int] = set()

    def check_obs(obs: Any, kind: str, where: Any) -> None:
        for index, expected in enumerate(sensors_of(obs)):
            found = recorded[f"{kind}_obs{index}"][where]
            np.testing.assert_array_equal(found, expected.astype(np.float32))

    for index, env in enumerate(envs):
        obs, _ = env.reset(seed=env_seed(SEED, index))
        check_obs(obs, "decision", (0, index))
    seen_ids.update(recorded["decision_id"][0].tolist())
    num_ended = 0
    for step in range(steps - 1):
        ids, next_ids = recorded["decision_id"][step], recorded["decision_id"][step + 1]
        for index, env in enumerate(envs):
            expected_reward = 0.0
            if step == steps // 2:  # where the referee resets; nobody is told that it is done
                obs, _ = env.reset()
                is_over = True
            else:
                action = action_of(
                    recorded["continuous"][step, index], recorded["discrete"][step, index]
                )
                obs, reward, terminated, truncated, _ = env.step(action)
                is_over = terminated or truncated
                if is_over:
                    row = terminals.pop((step + 1, int(ids[index])))
                    check_obs(obs, "terminal", row)
                    assert recorded["terminal_reward"][row] == np.float32(reward)
                    assert recorded["terminal_interrupted"][row] == (not terminated)
                    num_ended += 1
                    obs, _ = env.reset()
                else:
                    expected_reward = float(reward)
            check_obs(obs, "decision", (step + 1, index))
            assert recorded["decision_reward"][step + 1, index] == np.float32(expected_reward)
            if is_over:
                assert int(next_ids[index]) not in seen_ids
                seen_ids.add(int(next_ids[index]))
            else:
                assert next_ids[index] == ids[index]
    assert not terminals, "the referee saw ends of episodes that never happened"
    return num_ended


def test_walker_through_the_protocol_equals_walker_stepped_directly(tmp_path: Path) -> None:
    summary, recorded = drive("Walker2d-v5", tmp_path, 700)
    assert summary["behavior"] == "Walker2d?team=0"
    assert (summary["continuous"], summary["branches"]) == (6, [])
    assert (summary["sensors"], summary["shapes"]) == (["obs"], [[17]])
    num_ended = check_against_direct_steps(
        recorded,
        lambda: gymnasium.make("Walker2d-v5"),
        lambda continuous, _: continuous,
        lambda obs: [obs],
    )
    assert num_ended > 50


def test_cartpole_cut_after_twenty_steps_is_interrupted(tmp_path: Path) -> None:
    summary, recorded = drive("CartPole-v1", tmp_path, 700, "--kwargs", '{"max_episode_steps": 20}')
    assert (summary["continuous"], summary["branches"]) == (0, [2])
    num_ended = check_against_direct_steps(
        recorded,
        lambda: gymnasium.make("CartPole-v1", max_episode_steps=20),
        lambda _, discrete: int(discrete[0]),
        lambda obs: [obs],
    )
    assert num_ended > 80
    interrupted = recorded["terminal_interrupted"]
    assert interrupted.any() and not interrupted.all()


def test_cameras_of_all_kinds_equal_the_pixels_that_were_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from camera_env import HEIGHT, WIDTH, CameraEnv

    harness = str(HERE.parent / "harness")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([harness, os.environ.get("PYTHONPATH", "")]))

    def as_seen(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return pixels.astype(np.float32) / np.float32(255)

    def sensors_of(obs: dict[str, Any]) -> list[NDArray[Any]]:
        grey = as_seen(obs["grey"])[:, :, None]
        return [
            as_seen(obs["colour"]),
            obs["depth"],
            obs["desired_goal"],
            grey.repeat(3, axis=2).mean(axis=2, keepdims=True),  # of equal numbers, but rounded
            as_seen(obs["stack"].transpose(1, 2, 0)),
        ]

    summary, recorded = drive("camera_env:CameraEnv", tmp_path, 100)
    # This referee is of ML-Agents 0.28, which has images as (height, width, channels).
    size = [HEIGHT, WIDTH]
    assert summary["shapes"] == [[*size, 3], [*size, 2], [2], [*size, 1], [*size, 4]]
    num_ended = check_against_direct_steps(
        recorded, CameraEnv, lambda continuous, _: continuous, sensors_of
    )
    assert num_ended > 10


def test_hybrid_dict_environment_keeps_sensor_order_actions_and_stats(tmp_path: Path) -> None:
    from hybrid_env import HybridEnv

    def make() -> gymnasium.Env[Any, Any]:
        env = HybridEnv(scale=0.5)
        env.set_parameters({"bonus": 100.0})
        return env

    def action_of(continuous: NDArray[Any], discrete: NDArray[Any]) -> dict[str, Any]:
        halves = (continuous.astype(np.float64) + 1) / 2
        return {
            "gear": int(discrete[0]) - 1,
            "levers": discrete[1:].astype(np.int8),
            "move": np.array([-2 + 6 * halves[0], halves[1]]),
        }

    def sensors_of(obs: dict[str, Any]) -> list[NDArray[Any]]:
        one_hot = np.eye(5)[obs["seen"][1]]
        return [obs["achieved_goal"], obs["flags"], obs["seen"][0].reshape(-1), one_hot]

    summary, recorded = drive(
        "hybrid_env:HybridEnv",
        tmp_path,
        500,
        "--kwargs",
        '{"scale": 0.5}',
        parameter="bonus=100",
    )
    assert summary["behavior"] == "HybridEnv?team=0"
    assert (summary["continuous"], summary["branches"]) == (2, [3, 2, 2])
    assert summary["sensors"] == ["obs/achieved_goal", "obs/flags", "obs/seen/0", "obs/seen/1"]
    num_ended = check_against_direct_steps(recorded, make, action_of, sensors_of)
    assert num_ended > 100
    assert len(summary["stats"]["Hybrid/Length"]) >= num_ended
