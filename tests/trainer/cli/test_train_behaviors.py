"""Several behaviours in one run, and one that nobody has written settings for."""

from __future__ import annotations

import re
from pathlib import Path

from trainer_process import (
    TINY_BEHAVIOR,
    changed,
    checkpoint,
    ppo_train,
    tiny_build,
    tiny_yaml,
    write_yaml,
)


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{folder.name}-*.pt"))


def test_two_behaviors_are_saved_apart_and_resumed_from_one_moment(tmp_path: Path) -> None:
    tiny_build(tmp_path, "--behavior", "Left?team=0", "--behavior", "Right?team=1")
    fast = changed(TINY_BEHAVIOR, {"max_steps": 400, "checkpoint_interval": 100})
    slow = changed(fast, {"hyperparameters.buffer_size": 96})
    write_yaml(tmp_path / "settings.yaml", {"behaviors": {"Left": fast, "Right": slow}})
    words = ("settings.yaml", "--env", "tiny.x86_64", "--seed", 1)
    said = ppo_train(*words, cwd=tmp_path)
    assert "Connected new brain: Left?team=0" in said
    assert "Connected new brain: Right?team=1" in said
    run = tmp_path / "results" / "ppo"
    left, right = (saved_steps(run / name) for name in ("Left", "Right"))
    assert left != right  # they learn at different steps, so they are saved at different ones
    assert (run / "Left.onnx").exists()
    assert (run / "Right.onnx").exists()

    # The step of one behaviour means: the newest of the other that is not behind it.
    chosen = left[1]
    before = max(step for step in right if step <= chosen)
    said = ppo_train(*words, "--resume", "--from-step", chosen, cwd=tmp_path)
    assert f"Resuming from results/ppo/Left/Left-{chosen}.pt." in said
    assert f"Resuming from results/ppo/Right/Right-{before}.pt." in said
    assert checkpoint(run, "Left")["step"] >= 400
    assert checkpoint(run, "Right")["step"] >= 400


def test_behavior_without_settings_ends_the_run_but_loses_nothing(tmp_path: Path) -> None:
    tiny_yaml(tmp_path, name="Scripted", max_steps=100_000)
    tiny_build(tmp_path, "--script", "late-behavior", "--at", "50", program="envs.testing.scripted")
    said = ppo_train("settings.yaml", "--env", "scripted.x86_64", cwd=tmp_path, exit_code=2)
    step = checkpoint(tmp_path / "results" / "ppo", "Scripted")["step"]
    assert step >= 100  # 3 agents at 50 env_steps, less those that are not answered yet
    assert f"Copied results/ppo/Scripted/Scripted-{step}.onnx to" in said
    assert re.search(
        r"error: behaviors: the simulator has a behaviour '\w+'; expected 'Scripted'.*"
        r"or add default_settings",
        said,
    ), said
    assert "Traceback" not in said
