"""`ppo-train eval`: what a finished policy earns, through the checkpoint and through ONNX."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FinishedRun
from trainer_process import ppo_train, tiny_build

EPISODE = re.compile(r"^1D episode (\d+): return (-?\d+\.\d\d), length (\d+)$", re.MULTILINE)


def test_checkpoint_and_onnx_earn_the_same(finished_run: FinishedRun) -> None:
    words = ("--run-id", "first", "--episodes", 4, "--seed", 5)
    through_checkpoint = ppo_train("eval", *words, cwd=finished_run.cwd)
    through_onnx = ppo_train("eval", *words, "--onnx", cwd=finished_run.cwd)
    episodes = EPISODE.findall(through_checkpoint)
    assert [number for number, _, _ in episodes] == ["1", "2", "3", "4"]
    assert EPISODE.findall(through_onnx) == episodes
    summary = (
        r"1D: mean return {mean:.2f}, std \d+\.\d\d, min {low:.2f}, max {high:.2f} "
        r"\(4 deterministic episodes, results/first/1D/1D-300\d\.{kind}\)"
    )
    returns = [float(earned) for _, earned, _ in episodes]
    figures = {"mean": sum(returns) / 4, "low": min(returns), "high": max(returns)}
    assert re.search(summary.format(**figures, kind="pt"), through_checkpoint), through_checkpoint
    assert re.search(summary.format(**figures, kind="onnx"), through_onnx), through_onnx


def test_sampled_actions_follow_the_seed_and_an_older_checkpoint_can_be_chosen(
    finished_run: FinishedRun, answered: Callable[..., str]
) -> None:
    step = min(int(path.stem.split("-")[1]) for path in finished_run.folder.glob("1D/1D-*.pt"))

    def evaluate(seed: int) -> list[tuple[str, ...]]:
        words = ("--sampled", "--episodes", 3, "--from-step", step, "--seed", seed)
        said = answered("eval", "--run-id", "first", *words, cwd=finished_run.cwd)
        assert f"(3 sampled episodes, results/first/1D/1D-{step}.pt)" in said
        return EPISODE.findall(said)

    first = evaluate(5)
    assert len(first) == 3
    assert evaluate(5) == first
    assert evaluate(6) != first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run-id", "frist"), r"error: results/frist holds no run .* There are: first\."),
        (("--run-id", "first", "--episodes", 0), r"error: --episodes is 0; at least one"),
        (("--run-id", "first", "--behavior", "2D"), r"holds no checkpoint of behavior '2D'.*1D"),
        (("--run-id", "first", "--from-step", 7), r"Checkpoint of step 7 is not in .* --from-step"),
    ],
)
def test_mistake_is_one_message_and_exit_code_2(
    finished_run: FinishedRun, refused: Callable[..., str], words: tuple[object, ...], message: str
) -> None:
    said = refused("eval", *words, cwd=finished_run.cwd)
    assert re.search(message, said), said


@pytest.mark.parametrize("through", ["checkpoint", "onnx"])
def test_another_simulator_is_refused_by_name(
    finished_run: FinishedRun, refused: Callable[..., str], tmp_path: Path, through: str
) -> None:
    build = tiny_build(tmp_path, "--vectors", "2")
    words = ("--env", build, *(["--onnx"] if through == "onnx" else []))
    said = refused("eval", "--run-id", "first", *words, cwd=finished_run.cwd)
    file = r"results/first/1D/1D-300\d\."
    expected = {
        "checkpoint": rf"error: {file}pt was trained on .*; the simulator's behaviour '1D' has "
        r"observations goal0 \(1,\), goal1 \(1,\); actions 1 continuous\. Choose",
        "onnx": rf"error: {file}onnx expects observations of the shapes \[\(1,\)\], the "
        r"environment has \[\(1,\), \(1,\)\]",
    }
    assert re.match(expected[through], said), said


def test_checkpoint_without_its_onnx_says_how_to_get_one(
    finished_run: FinishedRun, refused: Callable[..., str], tmp_path: Path
) -> None:
    run = finished_run.copied_to(tmp_path)
    for path in run.folder.glob("1D/1D-300*.onnx"):
        path.unlink()
    said = refused("eval", "--run-id", "first", "--onnx", cwd=run.cwd)
    assert re.match(r"error: results/first/1D/1D-300\d\.onnx cannot be loaded", said), said
    assert "ppo-train export" in said
    shutil.rmtree(run.folder / "1D")
    assert "holds no checkpoint" in refused("eval", "--run-id", "first", cwd=run.cwd)
