from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.config.errors import ConfigError
from trainer.run_lock import LOCK, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from trainer.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Gives another process that has the lock until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def test_second_trainer_is_told_who_the_first_is_until_that_ends(tmp_path: Path) -> None:
    other = holder(tmp_path)
    for _ in range(2):
        with (
            pytest.raises(ConfigError, match=rf"another process \({other.pid}\).*--run-id"),
            run_lock(tmp_path),
        ):
            raise AssertionError
    assert (tmp_path / LOCK).read_text() == f"{other.pid}\n"
    other.communicate()
    with run_lock(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_killed_trainer_is_nobodys(tmp_path: Path) -> None:
    other = holder(tmp_path)
    other.kill()
    other.communicate()
    assert (tmp_path / LOCK).exists()
    with run_lock(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_lock_ends_with_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    with run_lock(tmp_path):
        pass


def test_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with run_lock(tmp_path), run_lock(tmp_path):
        pass
    assert caplog.text.count("takes no locks (No locks available)") == 2
