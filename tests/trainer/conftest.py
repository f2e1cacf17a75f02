"""Finished runs, commands, settings files and behaviours, for tests of the trainer."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from crowd_behavior import SETTINGS, MakeBehavior, spec_of
from trainer_process import ppo_train, tiny_build, tiny_yaml

from envs.spec import BehaviorSpec
from trainer.behavior import Behavior
from trainer.cli.main import main
from trainer.config.settings import BehaviorSettings


@dataclass(frozen=True)
class FinishedRun:
    """A run of the tiny game, with a continuous dimension and a branch, in two simulators."""

    cwd: Path
    settings: Path
    build: Path
    output: str

    @property
    def folder(self) -> Path:
        return self.cwd / "results" / "first"

    def copied_to(self, cwd: Path) -> FinishedRun:
        """Gives the same run in another folder, to do with as one likes."""
        shutil.copytree(self.cwd, cwd, dirs_exist_ok=True)
        return FinishedRun(cwd, cwd / self.settings.name, cwd / self.build.name, self.output)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    cwd = tmp_path_factory.mktemp("finished")
    build = tiny_build(cwd, "--actions", "1,1")
    settings = tiny_yaml(cwd, network_settings__normalize=True, checkpoint_interval=800)
    words = ("--env", build.name, "--num-envs", 2, "--seed", 1, "--run-id", "first")
    return FinishedRun(cwd, settings, build, ppo_train(settings.name, *words, cwd=cwd))


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; gives exit code, output and errors.

    Importing torch takes seconds, so commands that train nothing need no process of their own.
    """
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def run(*words: object, cwd: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(cwd)
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def answered(in_process: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Runs a command that is right, in this process, and gives its output."""

    def run(*words: object, cwd: Path) -> str:
        code, output, errors = in_process(*words, cwd=cwd)
        assert code == 0, errors
        return output

    return run


@pytest.fixture
def refused(in_process: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Runs a command that is a mistake, in this process, and gives what it says of it."""

    def run(*words: object, cwd: Path) -> str:
        code, _, errors = in_process(*words, cwd=cwd)
        assert code == 2
        assert errors.startswith("error: ")
        assert "Traceback" not in errors
        return errors

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def make_behavior(tmp_path: Path) -> Iterator[MakeBehavior]:
    torch.set_num_threads(1)  # as a run does for small networks
    made: list[Behavior] = []

    def build(
        spec: BehaviorSpec | None = None,
        state: dict[str, object] | None = None,
        seed: int = 3,
        is_training: bool = True,
        starts_at_zero: bool = False,
        is_threaded: bool = False,
        **changes: Any,
    ) -> Behavior:
        settings: dict[str, Any] = dict(SETTINGS)
        for key, value in changes.items():
            is_part = isinstance(value, dict)
            settings[key] = {**settings.get(key, {}), **value} if is_part else value
        behavior = Behavior(
            "Crab",
            spec or spec_of(),
            BehaviorSettings.model_validate(settings),
            tmp_path / str(len(made)),
            seed=seed,
            device=torch.device("cpu"),
            is_training=is_training,
            state=state,
            starts_at_zero=starts_at_zero,
            is_threaded=is_threaded,
        )
        made.append(behavior)
        return behavior

    yield build
    for behavior in made:
        behavior.metrics.close()
