"""Environments that packages bring along: Atari games of ale-py, robots of gymnasium-robotics."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from envs.errors import SimulatorDidNotStartError
from envs.gym import packages
from envs.gym.make import make_env


@pytest.fixture
def nothing_imported(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A registry as it is before anybody has imported a package of environments."""
    own = {
        name: spec
        for name, spec in gymnasium.registry.items()
        if str(spec.entry_point).startswith("gymnasium.")
    }
    monkeypatch.setattr(gymnasium, "registry", own)
    return monkeypatch


def test_atari_game_is_there_by_its_id_alone() -> None:
    env = make_env("ALE/Pong-v5", {"frameskip": 1})
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (210, 160, 3), np.uint8)
    assert env.action_space == gymnasium.spaces.Discrete(6)
    env.close()


def test_older_spelling_of_an_atari_game_is_the_same_package() -> None:
    env = make_env("PongNoFrameskip-v4", {})
    assert env.unwrapped.spec.kwargs["repeat_action_probability"] == 0.0
    env.close()


# Each family has its own way into MuJoCo.
@pytest.mark.parametrize(
    ("env_id", "sizes"),
    [
        ("FetchReach-v4", (3, 3, 10)),
        ("FetchPushDense-v4", (3, 3, 25)),
        ("HandReach-v3", (15, 15, 63)),
        ("HandManipulateBlockRotateZ-v1", (7, 7, 61)),
        ("PointMaze_UMaze-v3", (2, 2, 4)),
    ],
)
def test_robot_is_there_by_its_id_alone(env_id: str, sizes: tuple[int, int, int]) -> None:
    env = make_env(env_id, {})
    obs, _ = env.reset(seed=1)
    keys = ("achieved_goal", "desired_goal", "observation")
    assert {key: obs[key].shape for key in obs} == {
        key: (size,) for key, size in zip(keys, sizes, strict=True)
    }
    assert all(np.isfinite(part).all() for part in obs.values())
    env.step(env.action_space.sample())
    env.close()


def test_joint_types_equal_the_numbers_that_models_hold() -> None:
    make_env("FetchReach-v4", {}).close()
    hinge, slide = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE
    number = np.int32(3)  # mjJNT_HINGE in MuJoCo's documentation of mjtJoint
    assert hinge == number == hinge
    assert number in (slide, hinge)
    assert not hinge != number  # noqa: SIM202 # the operator is what is tested
    assert slide != number
    assert hinge != slide
    assert hinge in {hinge: 1}
    assert hinge != None  # noqa: E711 # the operator is what is tested
    assert hinge != "mjJNT_HINGE"


def test_every_robot_of_the_package_is_known_as_its_own() -> None:
    packages.register_installed()
    (robotics,) = [package for package in packages.PACKAGES if package.extra == "robotics"]
    specs = list(gymnasium.registry.values())
    # The package has retired versions of these too, which need mujoco_py.
    of_gymnasium = {s.name for s in specs if str(s.entry_point).startswith("gymnasium.envs.mujoco")}
    ids = [
        spec.id
        for spec in specs
        if str(spec.entry_point).startswith("gymnasium_robotics.envs.")
        and spec.name not in of_gymnasium
    ]
    assert len(ids) > 100
    assert [env_id for env_id in ids if not robotics.ids.match(env_id)] == []


@pytest.mark.parametrize(
    ("env_id", "module", "message"),
    [
        (
            "ALE/Pong-v5",
            "ale_py",
            "gym:ALE/Pong-v5 is an environment of the package ale-py, which is not installed. "
            "Install it: pip install 'ppo-train[atari]'.",
        ),
        (
            "PongNoFrameskip-v4",
            "ale_py",
            "gym:PongNoFrameskip-v4 is an environment of the package ale-py, which is not "
            "installed. Install it: pip install 'ppo-train[atari]'.",
        ),
        (
            "FetchReach-v4",
            "gymnasium_robotics",
            "gym:FetchReach-v4 is an environment of the package gymnasium-robotics, which is not "
            "installed. Install it: pip install 'ppo-train[robotics]'.",
        ),
    ],
)
def test_missing_package_is_named_with_its_extra(
    nothing_imported: pytest.MonkeyPatch, env_id: str, module: str, message: str
) -> None:
    nothing_imported.setitem(sys.modules, module, None)
    with pytest.raises(SimulatorDidNotStartError) as caught:
        make_env(env_id, {})
    assert str(caught.value) == message


def test_package_that_cannot_be_imported_is_another_mistake(
    nothing_imported: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ale_py.py").write_text("import no_such_library\n")
    nothing_imported.delitem(sys.modules, "ale_py", raising=False)
    nothing_imported.syspath_prepend(tmp_path)
    with pytest.raises(SimulatorDidNotStartError, match="importing it failed: ModuleNotFoundError"):
        make_env("ALE/Pong-v5", {})


def test_other_ids_need_none_of_the_packages(nothing_imported: pytest.MonkeyPatch) -> None:
    for package in packages.PACKAGES:
        nothing_imported.setitem(sys.modules, package.module, None)
    make_env("CartPole-v1", {}).close()
    with pytest.raises(SimulatorDidNotStartError, match="Did you mean CartPole-v1"):
        make_env("CartPol-v1", {})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ALE/Pongg-v5", "ALE/Pong-v5"),
        ("ale/pong-v5", "ALE/Pong-v5"),
        ("FetchReech-v4", "FetchReach-v4"),
        ("FetchReach-v9", "FetchReach-v4"),
    ],
)
def test_spelling_mistake_is_compared_with_the_packages_ids(typed: str, meant: str) -> None:
    with pytest.raises(SimulatorDidNotStartError) as caught:
        make_env(typed, {})
    found = re.search(r"Did you mean (.*?)\?", str(caught.value))
    assert found is not None, caught.value
    assert meant in found.group(1).split(" or ")


def test_robot_of_a_package_that_is_gone_names_the_newest_version() -> None:
    with pytest.raises(
        SimulatorDidNotStartError, match=r"take the newest version, gym:FetchReach-v4\.$"
    ):
        make_env("FetchReach-v1", {})
