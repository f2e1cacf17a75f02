"""`ppo-train export`: ONNX files of a run, verified, where one wants them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import FinishedRun
from trainer_process import checkpoint, ppo_train

from trainer.onnx_policy import OnnxPolicy
from trainer.saved_policy import restore_policy


def test_export_writes_the_newest_policy_beside_the_run(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    run = finished_run.copied_to(tmp_path)
    before = (run.folder / "1D.onnx").read_bytes()
    (run.folder / "1D.onnx").unlink()
    said = ppo_train("export", "--run-id", "first", cwd=run.cwd)
    assert re.fullmatch(
        r"Exported results/first/1D\.onnx \(step 300\d\); onnxruntime and the policy differ by at "
        r"most \d\.\de-\d\d on \d+ rows\.\n",
        said,
    ), said
    assert (run.folder / "1D.onnx").read_bytes() == before


def test_export_of_an_older_step_goes_to_another_folder_and_acts_like_its_checkpoint(
    finished_run: FinishedRun, answered: Callable[..., str], tmp_path: Path
) -> None:
    step = min(int(path.stem.split("-")[1]) for path in finished_run.folder.glob("1D/1D-*.pt"))
    words = ("--from-step", step, "--output", tmp_path / "models", "--behavior", "1D")
    said = answered("export", "--run-id", "first", *words, cwd=finished_run.cwd)
    assert f"(step {step})" in said
    policy = restore_policy(checkpoint(finished_run.folder, "1D", step)).policy
    obs = np.array([[1.0], [-1.0], [0.3]], np.float32)
    acted = policy.act(policy.inputs([torch.from_numpy(obs)]), None, torch.Generator(), True)
    found = OnnxPolicy(tmp_path / "models" / "1D.onnx").act([obs], None, deterministic=True)
    assert np.allclose(found.continuous, acted.continuous.clamp(-3, 3).numpy() / 3, atol=1e-5)
    assert found.discrete.tolist() == acted.discrete.tolist()


def test_export_of_a_missing_run_is_one_message_and_exit_code_2(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert refused("export", "--run-id", "first", cwd=tmp_path) == (
        "error: results/first holds no run (configuration.yaml is missing). There are none yet. "
        "Choose one with --run-id and --results-dir.\n"
    )


def test_export_to_where_no_folder_can_be_is_one_message_and_exit_code_2(
    finished_run: FinishedRun, refused: Callable[..., str], tmp_path: Path
) -> None:
    output = tmp_path / "file" / "models"
    output.parent.write_text("")
    said = refused("export", "--run-id", "first", "--output", output, cwd=finished_run.cwd)
    assert said == (
        f"error: {output} cannot be made: Not a directory. Choose another folder with --output.\n"
    )


def test_export_of_a_run_of_ml_agents_says_what_can_be_done_with_it(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    run = tmp_path / "results" / "old"
    shutil.copytree(Path(__file__).parents[1] / "mlagents_runs" / "continuous", run)
    (run / "configuration.yaml").write_text("behaviors: {}\n")
    assert refused("export", "--run-id", "old", cwd=tmp_path) == (
        "error: results/old holds no checkpoint. Those of ML-Agents can be trained on (--resume, "
        "--initialize-from), not used as they are: resume the run once.\n"
    )
