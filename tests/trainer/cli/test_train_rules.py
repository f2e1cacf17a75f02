"""Which run may start where: resume, force, initialize-from, inference, a damaged checkpoint."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import FinishedRun
from trainer_process import (
    Trainer,
    checkpoint,
    event_steps,
    ppo_train,
    run_events,
    tiny_build,
    tiny_yaml,
    tree,
    tree_of,
    weights,
)

from trainer.config.load import load_run

WORDS = ("settings.yaml", "--env", "tiny.x86_64", "--seed", 1)
BEST_MIN_EPISODES = 20  # the default of best_min_episodes


def contents(folder: Path) -> dict[str, str]:
    """Gives a checksum per file, without logs and what inference writes for itself."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not {"run_logs", "inference"} & set(path.parts)
    }


def listed_steps(run: Path) -> list[int]:
    """Gives the checkpoints that training_status.json lists."""
    status = json.loads((run / "run_logs" / "training_status.json").read_text())
    return [entry["steps"] for entry in status["1D"]["checkpoints"]]


def test_run_in_the_way_is_kept_unless_forced(
    finished_run: FinishedRun, refused: Callable[..., str], tmp_path: Path
) -> None:
    run = finished_run.copied_to(tmp_path)
    before = contents(run.folder)
    assert refused(*WORDS, "--run-id", "first", cwd=run.cwd) == (
        "error: results/first holds data of an earlier run. Go on with it (--resume), write over "
        "it (--force), or choose another name (--run-id).\n"
    )
    assert contents(run.folder) == before

    tiny_yaml(run.cwd, max_steps=200, network_settings__normalize=True, summary_freq=100)
    ppo_train(*WORDS, "--run-id", "first", "--force", cwd=run.cwd)
    # Nothing of the earlier run can be resumed, evaluated or seen any more.
    saved = checkpoint(run.folder, "1D")
    step = saved["step"]
    assert 200 <= step < 210
    has_best = len(saved["recent_returns"]) >= BEST_MIN_EPISODES
    assert tree(run.folder) == tree_of("1D", [step], num_simulators=1, has_best=has_best)
    assert event_steps(run.folder / "1D") == [100, 200]
    assert listed_steps(run.folder) == [step]
    assert [e["step"] for e in run_events(run.folder) if e["event"] == "summary"] == [100, 200]
    assert load_run(run.folder / "configuration.yaml").behaviors["1D"].max_steps == 200


def test_resume_of_a_finished_run_ends_at_once_and_changes_no_weights(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    run = finished_run.copied_to(tmp_path)
    files = sorted(contents(run.folder))
    onnx = (run.folder / "1D.onnx").read_bytes()
    step = checkpoint(run.folder, "1D")["step"]
    said = ppo_train(*WORDS, "--run-id", "first", "--resume", cwd=run.cwd)
    assert "ended: all behaviors have reached max_steps." in said
    assert checkpoint(run.folder, "1D")["step"] == step
    assert (run.folder / "1D.onnx").read_bytes() == onnx
    # ML-Agents saves the step a second time, and may delete an older one for it.
    new = set(contents(run.folder)) - set(files)
    assert all("events.out.tfevents" in name for name in new), new
    assert listed_steps(run.folder)[-1] == step
    assert len(listed_steps(run.folder)) == 4
    assert [event["event"] for event in run_events(run.folder)].count("end") == 2


def test_new_run_starts_from_weights_of_another(finished_run: FinishedRun, tmp_path: Path) -> None:
    run = finished_run.copied_to(tmp_path)
    tiny_yaml(run.cwd, max_steps=60, network_settings__normalize=True)  # ends before an update
    words = ("--run-id", "second", "--initialize-from", "first")
    said = ppo_train(*WORDS, *words, cwd=run.cwd)
    assert "Initializing from results/first/1D/checkpoint.pt." in said
    assert "Starting training from step 0 and saving to results/second/1D." in said
    second = run.cwd / "results" / "second"
    assert 60 <= checkpoint(second, "1D")["step"] < 64
    step = checkpoint(second, "1D")["step"]
    assert tree(second) == tree_of("1D", [step], num_simulators=1, has_best=False)
    assert run_events(second)[0]["initialize_from"] == "first"
    for name, tensor in weights(run.folder, "1D").items():
        assert torch.equal(weights(second, "1D")[name], tensor), name


def test_inference_acts_and_leaves_the_run_as_it_is(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    run = finished_run.copied_to(tmp_path)
    before = contents(run.folder)
    words = ("--run-id", "first", "--resume", "--inference")
    with Trainer(*WORDS, *words, cwd=run.cwd) as trainer:
        trainer.wait_for(r"1D\. Step: 3500\. .*Mean Reward: .* Not Training\.")
        trainer.signal(signal.SIGINT)
        assert trainer.wait() == 130
        assert "Exported" not in trainer.output
        assert "the graph is generated" not in trainer.output
    assert contents(run.folder) == before


def test_run_that_is_being_trained_is_left_alone(tmp_path: Path) -> None:
    tiny_build(tmp_path)
    tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=100, checkpoint_interval=100)
    with Trainer(*WORDS, cwd=tmp_path) as trainer:
        trainer.wait_for(r"Exported results/ppo/1D/1D-\d+\.onnx")
        for words in (("--resume",), ("--force",)):
            said = ppo_train(*WORDS, *words, cwd=tmp_path, exit_code=2)
            assert (
                f"results/ppo is being trained by another process ({trainer.process.pid})" in said
            )
        trainer.signal(signal.SIGINT)
        assert trainer.wait() == 130
    assert [event["event"] for event in run_events(tmp_path / "results" / "ppo")].count(
        "start"
    ) == 1
    assert not list((tmp_path / "results").rglob("*.lock"))


def test_inference_without_weights_is_told(tmp_path: Path) -> None:
    tiny_build(tmp_path)
    tiny_yaml(tmp_path, summary_freq=100)
    with Trainer(*WORDS, "--inference", cwd=tmp_path) as trainer:
        trainer.wait_for(
            r"\[WARNING\] '1D' acts with weights that nobody has trained\. Add --resume"
        )
        trainer.wait_for(r"1D\. Step: 100\. .* Not Training\.")
        trainer.signal(signal.SIGINT)
        assert trainer.wait() == 130
        assert "Go on with" not in trainer.output  # nothing was kept that --resume could find
    run = tmp_path / "results" / "ppo"
    assert not list(run.rglob("*.pt")) + list(run.rglob("*.onnx"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--resume",), r"error: results/ppo holds no run to resume\. Check --run-id \('ppo'\)"),
        (("--initialize-from", "a"), r"error: results/a does not exist, so --initialize-from 'a'"),
        (("--from-step", 5), r"error: --from-step 5 says where to go on, .* Add --resume"),
        (("--env", "tony"), r"error: --env tony: there is no Unity build\. Looked for tony\.x86"),
        (("--env", "gym:"), r"error: --env gym: names no environment"),
    ],
)
def test_nothing_to_start_from_is_a_message_and_exit_code_2(
    refused: Callable[..., str], tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    tiny_build(tmp_path)
    tiny_yaml(tmp_path)
    said = refused(*WORDS, *words, cwd=tmp_path)
    assert re.match(message, said), said
    refused(*WORDS, *words, cwd=tmp_path)  # a mistake leaves nothing that is in the way


def test_damaged_checkpoint_names_the_one_before_which_can_be_resumed(
    finished_run: FinishedRun, refused: Callable[..., str], tmp_path: Path
) -> None:
    run = finished_run.copied_to(tmp_path)
    steps = sorted(int(path.stem.split("-")[1]) for path in run.folder.glob("1D/1D-*.pt"))
    newest = run.folder / "1D" / f"1D-{steps[-1]}.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    said = refused(*WORDS, "--run-id", "first", "--resume", cwd=run.cwd)
    assert f"Checkpoint results/first/1D/1D-{steps[-1]}.pt is damaged" in said
    advice = re.search(r"choose it with (--from-step \d+)\.", said)
    assert advice, said
    assert advice[1] == f"--from-step {steps[-2]}"
    said = ppo_train(*WORDS, "--run-id", "first", "--resume", *advice[1].split(), cwd=run.cwd)
    assert f"Resuming training from step {steps[-2]}." in said
    assert checkpoint(run.folder, "1D")["step"] >= 3000
    assert event_steps(run.folder / "1D") == list(range(500, 3001, 500))
