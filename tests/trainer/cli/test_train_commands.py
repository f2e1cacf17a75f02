"""Commands that a run prints can be pasted into the shell it was started from."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli import train
from trainer.cli.train import curves_command, program, resume_command
from trainer.config.flags import Parser

BIN = Path(sys.executable).parent


def typed(*words: str) -> argparse.Namespace:
    parser = Parser()
    train.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("name", ["ppo-train", "tensorboard"])
def test_program_has_its_path_when_the_venv_is_not_active(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program(name) == str(BIN / name)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{BIN}")
    assert program(name) == name


def test_folder_with_a_space_stays_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(BIN))
    assert curves_command("my results") == "tensorboard --logdir 'my results'"


def test_resume_command_repeats_what_was_typed_and_nothing_that_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(BIN))
    words = ("a b.yaml", "--run-id", "x", "--force", "--initialize-from", "y", "--no-graphics")
    said = resume_command(typed(*words, "--env-args", "--level", "3"))
    again = "ppo-train 'a b.yaml' --run-id x --no-graphics --resume --env-args --level 3"
    assert said == again


def test_printed_command_starts_ppo_train_without_a_venv_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    first, *_ = shlex.split(resume_command(typed("settings.yaml")))
    done = subprocess.run([first, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:10]) == (0, "ppo-train ")
