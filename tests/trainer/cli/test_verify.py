"""`ppo-train verify`: what is in a file, what Unity makes of it, and the exit code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import FinishedRun

MLAGENTS = Path(__file__).parents[1] / "mlagents_runs"

InProcess = Callable[..., tuple[int, str, str]]


def test_exported_policy_passes_every_check_of_its_run(
    finished_run: FinishedRun, answered: Callable[..., str]
) -> None:
    said = answered("verify", "results/first/1D.onnx", "--spec", "first", cwd=finished_run.cwd)
    for line in (
        r"results/first/1D\.onnx: by ppo-train \S+, ONNX IR 4, opset 9",
        r"  obs_0         float  \(batch, 1\)",
        r"  discrete_actions                  int64  \(batch, 1\)",
        r"  version_number = \[3\.0\] \(initializer by way of Identity\)",
        r"  .*Gemm x\d+, .*Multinomial x1, .*",
        r"  ok       runs on zeros, nothing allowed, batch 1",
        r"  ok       obs_0 fits sensor 0 \(.*\) \(1,\)",
        r"  ok       discrete_action_output_shape fits the behaviour: \[2\]",
        r"results/first/1D\.onnx: \d+ checks, 0 warnings, 0 errors\. Nothing that Unity would .*",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE), (line, said)


def test_run_may_be_named_by_its_folder_and_the_behavior_by_the_file(
    finished_run: FinishedRun, answered: Callable[..., str], tmp_path: Path
) -> None:
    (checkpoint,) = sorted(finished_run.folder.glob("1D/1D-300*.onnx"))
    words = ("verify", checkpoint, "--spec", finished_run.folder, "--behavior", "1D")
    assert "0 warnings, 0 errors" in answered(*words, cwd=tmp_path)


def test_file_of_another_game_is_a_warning_or_an_error(
    finished_run: FinishedRun, in_process: InProcess
) -> None:
    words = ("--spec", "first")
    file = MLAGENTS / "continuous" / "Crab.onnx"
    code, said, _ = in_process("verify", file, *words, cwd=finished_run.cwd)
    assert code == 2
    assert "  WARNING  obs_0 has shape (batch, 3), sensor 0" in said
    assert "\n           Unity warns, and running fails\n" in said
    assert "  ERROR    obs_1 belongs to no sensor; the behaviour has 1\n" in said
    assert "Unity would refuse it, or fail when it runs it." in said
    assert in_process("verify", file, cwd=finished_run.cwd)[0] == 0


def test_warnings_alone_are_exit_code_1(in_process: InProcess, tmp_path: Path) -> None:
    model = onnx.load(str(MLAGENTS / "continuous" / "Crab.onnx"))
    model.opset_import[0].version = 10
    onnx.save(model, str(tmp_path / "newer.onnx"))
    code, said, _ = in_process("verify", "newer.onnx", cwd=tmp_path)
    assert code == 1
    assert "  WARNING  opset 10, expected 9" in said
    assert re.search(r"newer\.onnx: \d+ checks, 1 warnings, 0 errors\. Unity would warn\.", said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.onnx",), "a.onnx cannot be read: No such file"),
        (("1D.txt",), "1D.txt is no ONNX model"),
        (("Crab.onnx", "--spec", "none"), "--spec none: neither results/none nor none is a folder"),
        (("Crab.onnx", "--spec", "mlagents"), "It has no checkpoint of ppo-train."),
        (("Crab.onnx", "--spec", "first", "--behavior", "Crab"), "It has: 1D. Choose one with --"),
        (("Crab.onnx", "--behavior", "Crab"), "--behavior Crab says which behaviour of a run is"),
    ],
)
def test_mistake_is_one_message_and_exit_code_2(
    finished_run: FinishedRun,
    refused: Callable[..., str],
    tmp_path: Path,
    words: tuple[str, ...],
    message: str,
) -> None:
    run = finished_run.copied_to(tmp_path)
    (run.cwd / "1D.txt").write_text("not a model")
    shutil.copy(MLAGENTS / "continuous" / "Crab.onnx", run.cwd)
    shutil.copytree(MLAGENTS / "continuous", run.cwd / "results" / "mlagents")
    assert message in refused("verify", *words, cwd=run.cwd)
