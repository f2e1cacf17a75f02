"""Equal seeds give equal weights, also when the run is killed and resumed in between."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trainer_process import Trainer, checkpoint, ppo_train, tiny_build, tiny_yaml, write_yaml

CARTPOLE: dict[str, Any] = {
    "behaviors": {
        "CartPole": {
            "trainer_type": "ppo",
            "hyperparameters": {"batch_size": 64, "buffer_size": 256, "num_epoch": 2},
            "network_settings": {"normalize": True, "hidden_units": 32},
            "max_steps": 1600,
            "checkpoint_interval": 500,
            "keep_checkpoints": 0,
            "summary_freq": 400,
        }
    },
    "env_settings": {"env_path": "gym:CartPole-v1", "num_envs": 2, "num_areas": 2, "seed": 3},
    "reproducible": True,
}

IN_PROCESS = {**CARTPOLE, "env_settings": {**CARTPOLE["env_settings"], "num_envs": 0}}

TRAINERS: dict[str, dict[str, Any]] = {
    "ppo_kl": {"batch_size": 16, "buffer_size": 64},
    "a2c": {"buffer_size": 64},
    "reinforce": {"batch_size": 16, "buffer_size": 64},
    "trpo": {"batch_size": 16, "buffer_size": 64},
    "npg": {"batch_size": 16, "buffer_size": 64},
}


def tiny_settings(folder: Path, with_memory: bool, trainer_type: str = "ppo") -> Path:
    """The tiny game with a continuous dimension and a branch, in two simulators."""
    build = tiny_build(folder, "--actions", "1,1", *(["--memory"] if with_memory else []))
    memory = {"memory_size": 8, "sequence_length": 4}
    path = tiny_yaml(
        folder,
        network_settings__normalize=True,
        network_settings__memory=memory if with_memory else None,
        max_steps=1000,
        checkpoint_interval=250,
        keep_checkpoints=0,
        summary_freq=300,
    )
    settings = yaml.safe_load(path.read_text())
    settings["env_settings"] = {"env_path": str(build), "num_envs": 2, "seed": 3}
    settings["reproducible"] = True
    if trainer_type in TRAINERS:
        (behavior,) = settings["behaviors"].values()
        behavior["trainer_type"] = trainer_type
        behavior["hyperparameters"] = TRAINERS[trainer_type]
    return write_yaml(path, settings)


def assert_equal(found: Any, expected: Any, where: str) -> None:
    """Compares states bit by bit, with the name of what differs."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_equal(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), f"{where} differs"
    else:
        assert found == expected, f"{where} differs"


def learned(run: Path, behavior: str, step: int | None = None) -> dict[str, Any]:
    """Gives the parts of a checkpoint that decide about everything that is learned later."""
    state = checkpoint(run, behavior, step)
    return {key: state[key] for key in ("step", "policy", "algorithm", "acting_generator")}


def steps_of(run: Path, behavior: str) -> list[int]:
    return sorted(int(re.findall(r"\d+", path.stem)[-1]) for path in run.glob(f"{behavior}/*-*.pt"))


@dataclass(frozen=True)
class WholeRun:
    """A run in one go, with the settings that made it."""

    cwd: Path
    settings: Path
    behavior: str

    @property
    def folder(self) -> Path:
        return self.cwd / "results" / "whole"


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], WholeRun]:
    @cache
    def run(env: str) -> WholeRun:
        cwd = tmp_path_factory.mktemp(env)
        gymnasium = {"cartpole": CARTPOLE, "in process": IN_PROCESS}
        settings = (
            write_yaml(cwd / "settings.yaml", gymnasium[env])
            if env in gymnasium
            else tiny_settings(cwd, with_memory=env == "memory", trainer_type=env)
        )
        ppo_train(settings, "--run-id", "whole", cwd=cwd)
        return WholeRun(cwd, settings, "CartPole" if env in gymnasium else "1D")

    return run


def nth(k: int, line: str) -> str:
    """Gives the pattern of an output with k such lines."""
    return rf"(?:{line}[\s\S]*?){{{k}}}"


@pytest.mark.parametrize(
    ("env", "killed_after"),
    [
        ("tiny", nth(1, "Exported")),  # the simulators are being started anew
        ("tiny", r"Step: 300\."),  # between two checkpoints
        ("tiny", nth(2, "Exported")),
        ("memory", r"Step: 600\."),
        ("cartpole", r"Step: 800\."),
        ("in process", r"Step: 800\."),
        *((trainer_type, r"Step: 600\.") for trainer_type in TRAINERS),
    ],
    ids=[
        *(
            "first checkpoint",
            "between checkpoints",
            "second checkpoint",
            "memory",
            "gymnasium",
            "in process",
        ),
        *TRAINERS,
    ],
)
def test_kill_and_resume_end_in_the_weights_of_a_run_in_one_go(
    env: str, killed_after: str, whole_run: Callable[[str], WholeRun], tmp_path: Path
) -> None:
    settings, behavior = whole_run(env).settings, whole_run(env).behavior
    whole, halves = whole_run(env).folder, tmp_path / "results" / "halves"
    steps = steps_of(whole, behavior)
    assert len(steps) == 4

    with Trainer(settings, "--run-id", "halves", cwd=tmp_path) as trainer:
        trainer.wait_for(killed_after)
        trainer.signal(signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
    done = [step for step in steps_of(halves, behavior) if step in steps[:-1]]
    assert done, "it was killed before the first checkpoint"
    for step in done:  # the same seed twice
        assert_equal(learned(halves, behavior, step), learned(whole, behavior, step), f"at {step}")

    said = ppo_train(settings, "--run-id", "halves", "--resume", cwd=tmp_path)
    assert f"Resuming from results/halves/{behavior}/{behavior}-" in said
    assert steps_of(halves, behavior) == steps
    assert_equal(learned(halves, behavior), learned(whole, behavior), "at the end")
