from __future__ import annotations

import re
import socket
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest

from trainer import doctor
from trainer.cli.main import main
from trainer.doctor import Verdict

ROOT = Path(__file__).parents[2]


def test_python_is_new_enough_or_not() -> None:
    assert doctor.python((3, 11, 0)).verdict is Verdict.GOOD
    assert doctor.python((3, 10, 12)).verdict is Verdict.FAILURE
    assert "Install Python 3.11" in doctor.python((3, 10, 12)).advice


@pytest.mark.parametrize(
    ("free", "verdict"), [(6e9, Verdict.GOOD), (2e9, Verdict.WARNING), (1e8, Verdict.FAILURE)]
)
def test_disk_needs_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, verdict: Verdict
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1e12, 0, free))
    assert doctor.disk(tmp_path / "not" / "there" / "yet").verdict is verdict


def test_disk_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "results"
    file.write_text("")
    found = doctor.disk(file)
    assert found.verdict is Verdict.FAILURE
    assert "cannot be written" in found.found


def test_display_matters_on_linux_only() -> None:
    assert doctor.display("linux", {}).verdict is Verdict.WARNING
    assert "--no-graphics" in doctor.display("linux", {}).advice
    assert doctor.display("linux", {"DISPLAY": ":0"}).verdict is Verdict.GOOD
    assert doctor.display("win32", {}).verdict is Verdict.GOOD


def test_proxy_is_told_by_name() -> None:
    found = doctor.proxy({"HTTP_PROXY": "http://proxy:8080", "https_proxy": ""})
    assert (found.verdict, found.found) == (Verdict.WARNING, "HTTP_PROXY set")
    assert doctor.proxy({}).verdict is Verdict.GOOD


def test_port_that_somebody_has_is_told() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        found = doctor.editor_port(port)
        assert found.verdict is Verdict.WARNING
        assert f"port {port} on 127.0.0.1 is in use" in found.found
    assert doctor.editor_port(0).verdict is Verdict.GOOD


def test_libraries_that_are_looked_for_are_those_that_are_needed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    names = {re.split("[^a-z-]", requirement)[0] for requirement in needed}
    assert set(doctor.NEEDED) == names


def test_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "onnx" else "1.0")
    libraries, gymnasium = doctor.packages()
    assert libraries.verdict is Verdict.FAILURE
    assert "(onnx)" in libraries.advice
    assert gymnasium.verdict is Verdict.GOOD


def test_simulator_is_really_started_and_reached() -> None:
    found = doctor.simulator(doctor.TINY)
    assert found.verdict is Verdict.GOOD, found
    assert "was started and reached over gRPC" in found.found


def test_simulator_that_ends_at_once_is_a_failure_with_its_log() -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('no such luck')")
    found = doctor.simulator(command, wait_s=30.0)
    assert found.verdict is Verdict.FAILURE
    assert "no such luck" in found.found


def test_all_questions_are_asked_and_the_exit_code_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for subject in ("Python", "Libraries", "PyTorch", "Disk", "Display", "Editor's port"):
        assert f"  {subject}: " in said
    assert "  Simulator: a small one" in said
    assert "Runs can start here (" in said
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind

    def dead(command: tuple[str, ...]) -> doctor.Finding:
        return doctor.Finding("Simulator", Verdict.FAILURE, "dead", "Pray.")

    monkeypatch.setattr(doctor, "simulator", dead)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "failure  Simulator: dead\n         -> Pray.\n" in said
    assert "Runs cannot start here: 1 to put right." in said


def test_broken_libraries_do_not_keep_the_others_from_being_looked_at() -> None:
    code = (
        "import sys; sys.modules.update({'torch': None, 'hpack': None})\n"
        "from trainer.cli.main import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "failure  PyTorch: cannot be used" in done.stdout
    assert "failure  Simulator: cannot be looked at" in done.stdout
