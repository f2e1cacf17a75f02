from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli.main import main

ROOT = Path(__file__).parents[3]


def ppo_train(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, after a line of Python."""
    code = f"{before}\nimport sys\nfrom trainer.cli.main import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_check_of_a_valid_file_says_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "configs/unity/ManyBehaviors.yaml")]) == 0
    said = capsys.readouterr().out
    assert "ManyBehaviors.yaml is valid: behaviours Runner, Goalkeeper, 19 keys\n" in said


def test_check_of_a_wrong_file_lists_all_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("behaviors:\n  A: {max_step: 5}\ndebug: perhaps\n")
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:2:7: unknown key 'max_step' under behaviors.A. Did you mean 'max_steps'?",
        f"{path}:3:1: debug is 'perhaps'; expected true or false.",
        f"{path} is not valid: 2 problems",
    ]


def test_check_of_several_files_fails_when_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.yaml"
    assert main(["check", str(missing), str(ROOT / "behaviors.yaml")]) == 2
    said = capsys.readouterr()
    assert "no such file" in said.err
    assert "behaviors.yaml is valid" in said.out


def test_missing_file_names_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "walker.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["check", "run.yaml"]) == 2
    said = capsys.readouterr().err.splitlines()[0]
    assert said == "run.yaml: no such file. There is walker.yaml here."


def test_check_process_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "grpc", "google.protobuf", "gymnasium", "onnx", "mlagents_envs")
    before = "import sys\n" + "\n".join(f"sys.modules[{name!r}] = None" for name in heavy)
    done = ppo_train("check", "behaviors.yaml", before=before)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("behaviors.yaml is valid: behaviour Walker2d, ")


def test_check_prints_notes_beside_the_verdict(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("behaviors: {A: {framework: pytorch}}\n")
    done = ppo_train("check", str(path))
    assert done.returncode == 0
    assert "behaviors.A.framework has no effect" in done.stderr
    assert "is valid" in done.stdout
