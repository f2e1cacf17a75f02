from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from envs.errors import SimulatorDidNotStartError
from envs.registry import find_unity_build, resolve


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_no_env_means_wait_for_the_editor() -> None:
    assert resolve(None) is None


def test_gym_id_becomes_a_command_of_the_simulator_agent() -> None:
    plan = resolve(
        "gym:Walker2d-v5", num_areas=4, env_kwargs={"frame_skip": 2}, behavior_name="Walker"
    )
    assert plan is not None
    assert plan.kind == "gym"
    assert plan.command[:5] == (sys.executable, "-m", "envs.gym", "--env", "Walker2d-v5")
    rest = dict(zip(plan.command[5::2], plan.command[6::2], strict=True))
    assert rest == {"--num-areas": "4", "--kwargs": '{"frame_skip": 2}', "--behavior": "Walker"}
    assert json.loads(rest["--kwargs"]) == {"frame_skip": 2}


def test_wrappers_are_handed_over_in_their_order() -> None:
    wrappers: list[dict[str, object]] = [
        {"AtariPreprocessing": {"noop_max": 3}},
        {"FlattenObservation": {}},
    ]
    plan = resolve("gym:ALE/Pong-v5", env_wrappers=wrappers)
    assert plan is not None
    assert json.loads(plan.command[plan.command.index("--wrappers") + 1]) == wrappers


def test_gym_module_and_callable_is_passed_on_as_it_is() -> None:
    plan = resolve("gym:my_package.my_env:MyEnv")
    assert plan is not None
    assert plan.command[4] == "my_package.my_env:MyEnv"
    assert "--behavior" not in plan.command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"env": "gym:"}, "names no environment"),
        ({"env": "gym:CartPole-v1", "env_args": ["--x"]}, "meant for a Unity build"),
        ({"env": "gym:CartPole-v1", "env_kwargs": {"a": object()}}, "another process"),
        ({"env": "gym:CartPole-v1", "env_wrappers": [{"A": {"b": {1}}}]}, "env_wrappers of gym:"),
        ({"env": None, "env_kwargs": {"a": 1}}, "the Unity Editor is no Gymnasium"),
        ({"env": None, "env_wrappers": [{"A": {}}]}, "env_wrappers is .* is no Gymnasium"),
        ({"env": "CartPole-v1"}, "write --env gym:CartPole-v1"),
        ({"env": "ALE/Pong-v5"}, "write --env gym:ALE/Pong-v5"),
        ({"env": "my_package.my_env:MyEnv"}, "write --env gym:my_package.my_env:MyEnv"),
    ],
)
def test_wrong_words_after_env_are_explained(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(SimulatorDidNotStartError, match=words):
        resolve(**arguments)  # type: ignore[arg-type]  # one table for all arguments


@pytest.mark.parametrize("typed", ["Game", "Game.x86_64", "Game.exe", "Game.app", "Game.x86"])
def test_linux_build_is_found_under_every_suffix_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    build = executable(tmp_path / "Builds" / "Game.x86_64")
    monkeypatch.chdir(tmp_path)
    assert find_unity_build(f"Builds/{typed}", "linux") == build
    assert find_unity_build(str(tmp_path / "Builds" / typed), "linux") == build


def test_linux_prefers_64_bit_then_32_bit_then_the_bare_file(tmp_path: Path) -> None:
    bare = executable(tmp_path / "Game")
    assert find_unity_build(str(bare), "linux") == bare
    narrow = executable(tmp_path / "Game.x86")
    assert find_unity_build(str(bare), "linux") == narrow
    wide = executable(tmp_path / "Game.x86_64")
    assert find_unity_build(str(bare), "linux") == wide


def test_mac_build_is_found_inside_its_app(tmp_path: Path) -> None:
    inside = executable(tmp_path / "Game.app" / "Contents" / "MacOS" / "Another Name")
    assert find_unity_build(str(tmp_path / "Game"), "darwin") == inside
    same_name = executable(inside.with_name("Game"))
    assert find_unity_build(str(tmp_path / "Game.app"), "darwin") == same_name


def test_windows_folder_gives_its_exe_but_not_the_crash_handler(tmp_path: Path) -> None:
    executable(tmp_path / "Game" / "UnityCrashHandler64.exe")
    player = executable(tmp_path / "Game" / "Walker.exe")
    assert find_unity_build(str(tmp_path / "Game"), "win32") == player


def test_build_gets_env_args_and_graphics_but_no_port(tmp_path: Path) -> None:
    build = executable(tmp_path / "Game.x86_64")
    plan = resolve(str(build), env_args=["--level", "3"], no_graphics=True)
    assert plan is not None
    assert (plan.kind, plan.command) == ("unity", (str(build),))
    assert (plan.env_args, plan.no_graphics) == (("--level", "3"), True)


def test_missing_build_names_all_places_and_a_build_nearby(tmp_path: Path) -> None:
    other = executable(tmp_path / "Walker.x86_64")
    with pytest.raises(SimulatorDidNotStartError) as caught:
        find_unity_build(str(tmp_path / "Wolker"), "linux")
    message = str(caught.value)
    for place in ("Wolker.x86_64", "Wolker.x86,", "Wolker."):
        assert str(tmp_path / place) in message
    assert f"There is {other}" in message


def test_build_without_permission_tells_the_command_to_allow_it(tmp_path: Path) -> None:
    build = executable(tmp_path / "Game.x86_64")
    build.chmod(0o644)
    with pytest.raises(SimulatorDidNotStartError, match=f"chmod -R 755 {build}"):
        find_unity_build(str(build), "linux")
