"""`ppo-train check --env`: what a simulator shows, against what the file says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from trainer_process import ROOT, Trainer, tiny_build

from trainer.cli.main import main

TWO_TEAMS = ["--behavior", "Striker?team=0", "--behavior", "Striker?team=1", "--behavior", "Goalie"]


def settings(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_scene_is_described_with_sensors_actions_and_teams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = tiny_build(tmp_path, "--actions", "1,2", *TWO_TEAMS)
    path = settings(tmp_path, "behaviors: {Striker: {}, Goalie: {}}\n")
    assert main(["check", str(path), "--env", str(build)]) == 0
    said = capsys.readouterr().out.splitlines()
    (sensor,) = {line for line in said if "observation" in line}
    assert re.fullmatch(r"    observation \w+: vector, shape \(1,\)", sensor)
    one = [
        sensor,
        "    actions: 1 continuous",
        "    actions: discrete, branches of [2, 2]",
    ]
    assert said == [
        f"{path} is valid: behaviours Striker, Goalie, 0 keys",
        f"{build} was started and answers:",
        "  Goalie: 1 agent of team 0",
        *one,
        "  Striker?team=0: 1 agent of team 0",
        *one,
        "  Striker?team=1: 1 agent of team 1",
        *one,
        f"{path} fits the scene",
    ]


def test_names_that_differ_are_told_with_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = tiny_build(tmp_path, "--behavior", "Walker?team=0")
    path = settings(tmp_path, "behaviors: {WalkerDynamic: {}}\n")
    assert main(["check", str(path), "--env", str(build)]) == 2
    problem, note = capsys.readouterr().err.splitlines()
    assert problem.startswith(
        f"{path}: the scene has 'Walker?team=0'; the file has 'WalkerDynamic'. "
        "Is 'WalkerDynamic' the same? Rename it"
    )
    assert note.startswith(f"{path}: the file has 'WalkerDynamic', which the scene did not show")


def test_default_settings_fit_every_scene(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = tiny_build(tmp_path, "--behavior", "Walker?team=0")
    path = settings(tmp_path, "default_settings: {}\nbehaviors: {Other: {}}\n")
    assert main(["check", str(path), "--env", str(build)]) == 0
    assert "the file has 'Other', which the scene did not show" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "network", "told"),
    [
        (
            ("--images", "1", "--image-shape", "3,19,20"),
            "{}",
            "sensor 'image0' gives images of 20 x 19 pixels, and vis_encode_type simple needs at "
            "least 20 x 20",
        ),
        (
            ("--entities", "1", "--goal", "1"),
            "{}",
            "sensor 'entities0' is a goal signal of variable length, (10, 5)",
        ),
        (("--images", "1", "--image-shape", "3,19,20"), "{vis_encode_type: resnet}", None),
        (("--entities", "1", "--goal", "1"), "{goal_conditioning_type: none}", None),
    ],
)
def test_sensors_that_the_network_cannot_read_are_told(
    words: tuple[str, ...],
    network: str,
    told: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = tiny_build(tmp_path, *words)
    path = settings(tmp_path, f"default_settings: {{network_settings: {network}}}\n")
    code = main(["check", str(path), "--env", str(build)])
    said = capsys.readouterr()
    if told is None:
        assert (code, said.err) == (0, "")
    else:
        assert code == 2
        assert said.err.startswith(f"{path}: '1D?team=0': {told}")
        assert "fits the scene" not in said.out


def test_one_simulator_is_started_whatever_the_file_says_and_none_is_left(tmp_path: Path) -> None:
    build = tiny_build(tmp_path)
    path = settings(
        tmp_path, "behaviors: {1D: {}}\nenv_settings: {env_path: nowhere, num_envs: 64}\n"
    )
    with Trainer("check", path.name, "--env", build.name, cwd=tmp_path) as trainer:
        assert trainer.wait() == 0, trainer.output
    assert "run.yaml fits the scene" in trainer.output
    assert not (tmp_path / "results").exists()


def test_build_that_does_not_start_is_told_with_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = tmp_path / "broken.x86_64"
    build.write_text("#!/bin/sh\necho no display >&2\nexit 7\n")
    build.chmod(0o755)
    path = settings(tmp_path, "behaviors: {A: {}}\n")
    assert main(["check", str(path), "--env", str(build)]) == 2
    said = capsys.readouterr().err
    assert "ended before it dialled the trainer (exit code 7)" in said
    assert "no display" in said


def test_mistake_in_the_file_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings(tmp_path, "behaviors: {A: {max_step: 5}}\n")
    assert main(["check", str(path), "--env", str(tmp_path / "missing.x86_64")]) == 2
    assert "Did you mean 'max_steps'?" in capsys.readouterr().err


def test_flags_of_simulators_need_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings(tmp_path, "behaviors: {A: {}}\n")
    assert main(["check", str(path), "--timeout-wait", "5"]) == 2
    assert "Add --env or --editor." in capsys.readouterr().err
    assert main(["check", str(path), "--editor", "--env", "x"]) == 2
    assert "cannot both" in capsys.readouterr().err


def test_scene_is_looked_at_without_torch(tmp_path: Path) -> None:
    path = settings(tmp_path, "behaviors: {Pole: {}}\n")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from trainer.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "check", str(path), "--env", "gym:CartPole-v1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Pole?team=0: 1 agent of team 0" in done.stdout
    assert "discrete, branches of [2]" in done.stdout


def test_editor_is_waited_for_on_its_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:  # an Editor's port is chosen by its user, so 0 is none
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = settings(tmp_path, "behaviors: {1D: {}}\nenv_settings: {env_path: builds/A}\n")
    editor = subprocess.Popen(
        [sys.executable, "-m", "envs.testing.tiny", "--mlagents-port", str(port)], cwd=ROOT
    )
    try:
        assert main(["check", str(path), "--editor", "--base-port", str(port)]) == 0
    finally:
        editor.wait(20)
    said = capsys.readouterr().out
    assert f"Press Play in the Unity Editor (port {port}) ..." in said
    assert "1D?team=0: 1 agent of team 0" in said
