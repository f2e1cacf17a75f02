"""Ways in which a run may end: what was saved stays, and why it ended is said and written down."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trainer_process import (
    PPO_TRAIN,
    Trainer,
    checkpoint,
    ppo_train,
    run_events,
    tiny_build,
    tiny_yaml,
    write_yaml,
)

from trainer.algos.base import Update
from trainer.algos.ppo import PPO
from trainer.rollout.rollout import Rollout
from trainer.run_storage import RunStorage

InProcess = Callable[..., tuple[int, str, str]]
GAME: dict[str, Any] = {"max_steps": 1_000_000, "summary_freq": 100, "checkpoint_interval": 200}
WORDS = ("settings.yaml", "--env", "tiny.x86_64", "--run-id", "run")


@pytest.fixture
def game(tmp_path: Path) -> Path:
    tiny_build(tmp_path)
    tiny_yaml(tmp_path, **GAME)
    return tmp_path


def require_told(run: Path, code: int, reason: str) -> None:
    end = run_events(run)[-1]
    assert (end["event"], end["exit_code"]) == ("end", code)
    assert re.search(reason, end["reason"]), end["reason"]


def saved_steps(run: Path) -> list[int]:
    return [event["step"] for event in run_events(run) if event["event"] == "checkpoint"]


# Signals and terminals.


@pytest.fixture(autouse=True)
def _hangups_count() -> Iterator[None]:
    """Undoes a `nohup` around the tests themselves: what they start would inherit it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_hangup_saves_and_says_so(game: Path) -> None:
    with Trainer(*WORDS, cwd=game) as trainer:
        trainer.wait_for(r"1D\. Step: 200\. ")
        trainer.signal(signal.SIGHUP)
        assert trainer.wait() == 129
        assert trainer.output.endswith("Run 'run' ended: interrupted by SIGHUP.\n")
    require_told(game / "results/run", 129, "interrupted by SIGHUP")


def test_closed_terminal_saves_though_nobody_can_read_it(game: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PPO_TRAIN, *WORDS],
        cwd=game,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its controlling terminal
    )
    os.close(slave)
    said = b""
    while b"Exported" not in said:  # on a terminal this is the live view
        said += os.read(master, 4096)
    os.close(master)
    assert process.wait(60) == 129
    run = game / "results" / "run"
    require_told(run, 129, "interrupted by SIGHUP")
    assert checkpoint(run, "1D")["step"] == saved_steps(run)[-1]
    assert (run / "1D.onnx").is_file()


def test_nohup_keeps_the_hangup_away(game: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; children inherit it
    try:
        with Trainer(*WORDS, cwd=game) as trainer:
            trainer.wait_for(r"1D\. Step: 100\. ")
            trainer.signal(signal.SIGHUP)
            summaries = trainer.output.count("1D. Step: ")
            trainer.wait_for(rf"(1D\. Step: [\s\S]*){{{summaries + 3}}}")
            trainer.signal(signal.SIGTERM)
            assert trainer.wait() == 143
    finally:
        signal.signal(signal.SIGHUP, before)


def test_reader_that_goes_away_does_not_end_the_run(game: Path) -> None:
    tiny_yaml(game, max_steps=1000, summary_freq=100)
    process = subprocess.Popen(
        [PPO_TRAIN, *WORDS], cwd=game, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(120) == 0
    require_told(game / "results/run", 0, "max_steps")


# Disks.


@pytest.fixture
def small_disk(game: Path) -> Iterator[Path]:
    """A disk of its own for the results, that can be filled."""
    results = game / "results"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(results)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("only root may mount a disk")
    yield results
    subprocess.run(["umount", str(results)], check=True)


def test_full_disk_ends_the_run_and_costs_no_checkpoint(small_disk: Path, game: Path) -> None:
    run = small_disk / "run"
    with Trainer(*WORDS, cwd=game) as trainer:
        trainer.wait_for(r"Exported results/run/1D/1D-\d+\.onnx\n")
        with open(small_disk / "others", "wb") as others:
            with pytest.raises(OSError, match="No space left"):
                while True:
                    others.write(bytes(4096))
                    others.flush()
            assert trainer.wait() == 4
        said = trainer.output
    last = said.splitlines()[-1]
    assert last.startswith("error: results/run"), said
    assert re.search(r"MB free, but the checkpoint|No space left on device", last)
    assert "Traceback" not in said
    require_told(run, 4, "MB free|No space left on device")
    (small_disk / "others").unlink()
    step = checkpoint(run, "1D")["step"]
    assert step == saved_steps(run)[-1]
    with Trainer(*WORDS, "--resume", cwd=game) as trainer:
        trainer.wait_for(rf"Resuming training from step {step}\.")
        trainer.wait_for(rf"Exported results/run/1D/1D-(?!{step}\b)\d+")
        trainer.signal(signal.SIGTERM)
        assert trainer.wait() == 143


def test_disk_that_turns_read_only_ends_the_run(
    game: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = game / "results" / "run"
    replace = os.replace

    def refused(old: Path, new: Path) -> None:
        if (run / "1D" / "manifest.json").exists() and len(saved_steps(run)) == 2:
            raise OSError(30, "Read-only file system", str(old))
        replace(old, new)

    monkeypatch.setattr(os, "replace", refused)
    code, _, errors = in_process(*WORDS, cwd=game)
    assert code == 4
    assert re.search(r"error: results/run\S+ cannot be written: Read-only file system\. ", errors)
    require_told(run, 4, "Read-only file system")
    assert checkpoint(run, "1D")["step"] == saved_steps(run)[-1]


def test_results_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_build(tmp_path)
    tiny_yaml(tmp_path)
    (tmp_path / "results").mkdir()
    if os.getuid() == 0:  # root may write anywhere

        def refused(path: Path, *args: object, **more: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "mkdir", refused)
    else:
        (tmp_path / "results").chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, _, errors = in_process(*WORDS, cwd=tmp_path)
    assert code == 4
    assert re.fullmatch(
        r"error: results/run\S* cannot be written: Permission denied\. .*Check the disk and the "
        r"permissions, then go on with --resume\.\n",
        errors,
    ), errors


# Failures of the trainer itself.


def failing_at(number: int, error: BaseException) -> Callable[[PPO, Rollout, int], Update]:
    """An update that fails the `number`th time, in its middle: the weights have changed by then."""
    update, count = PPO.update, 0

    def replaced(self: PPO, rollout: Rollout, step: int) -> Update:
        nonlocal count
        count += 1
        done = update(self, rollout, step)
        if count == number:
            with torch.no_grad():
                for weights in self.policy.parameters():
                    weights.fill_(123.0)
            raise error
        return done

    return replaced


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ZeroDivisionError("a mistake of ours"), 1, "^a mistake of ours$"),
        (MemoryError(), 6, r"^There is not enough memory \(MemoryError\)\. "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 6, "CPUAlloc"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 6, "2 GiB"),
        (OSError(28, "No space left on device"), 4, "^results/run cannot be written: No space"),
    ],
    ids=["defect", "memory", "torch's memory", "device memory", "disk"],
)
@pytest.mark.parametrize("is_threaded", [False, True], ids=["in turn", "threaded"])
def test_failure_in_an_update_costs_only_that_update(
    game: Path,
    in_process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    reason: str,
    is_threaded: bool,
) -> None:
    tiny_yaml(game, **GAME, threaded=is_threaded)
    # After two checkpoints; the third is of the weights before the update that failed.
    monkeypatch.setattr(PPO, "update", failing_at(9, error))
    if code == 1:
        with pytest.raises(ZeroDivisionError):
            in_process(*WORDS, cwd=game)
    else:
        found, said, errors = in_process(*WORDS, cwd=game)
        assert found == code, said + errors
        assert errors.splitlines()[-1].startswith("error: ")
    run = game / "results" / "run"
    require_told(run, code, reason)
    steps = saved_steps(run)
    assert len(steps) == 3
    state = checkpoint(run, "1D")
    assert (state["step"], state["num_updates"]) == (steps[-1], 8)
    assert not any((t == 123.0).any() for t in state["policy"].values() if t.is_floating_point())


def test_failure_outside_an_update_saves_what_was_learnt(
    game: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, count = RunStorage.tell, 0

    def failing(self: RunStorage, event: str, step: int, **fields: object) -> None:
        nonlocal count
        count += event == "summary"
        if event == "summary" and count == 5:
            raise ZeroDivisionError("told too much")
        tell(self, event, step, **fields)

    monkeypatch.setattr(RunStorage, "tell", failing)
    with pytest.raises(ZeroDivisionError):
        in_process(*WORDS, cwd=game)
    run = game / "results" / "run"
    require_told(run, 1, "told too much")
    assert saved_steps(run)[-1] > 400
    assert checkpoint(run, "1D")["step"] == saved_steps(run)[-1]


@pytest.mark.parametrize("is_threaded", [False, True], ids=["in turn", "threaded"])
def test_learning_that_diverges_twice_ends_with_the_good_weights(
    game: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, is_threaded: bool
) -> None:
    tiny_yaml(game, **GAME, threaded=is_threaded)
    update, count = PPO.update, 0

    def broken(self: PPO, rollout: Rollout, step: int) -> Update:
        nonlocal count
        count += 1
        done = update(self, rollout, step)
        if count in (4, 8):
            with torch.no_grad():
                self.policy.value_head.bias[0] = float("nan")
        return done

    monkeypatch.setattr(PPO, "update", broken)
    code, said, errors = in_process(*WORDS, cwd=game)
    assert code == 5
    run = game / "results" / "run"
    require_told(run, 5, "diverged for the second time")
    assert "Behavior '1D' diverged: after update 4" in said
    assert "Going on with learning rate 0.0005; a second time ends the run." in said
    assert errors.splitlines()[-1].startswith("error: Behavior '1D' diverged for the second time")
    (told,) = [event for event in run_events(run) if event["event"] == "diverged"]
    assert (told["update"], told["learning_rate"]) == (4, 0.0005)
    assert (game / told["dump"]).is_file()
    state = checkpoint(run, "1D")
    assert (state["num_updates"], saved_steps(run)[-1]) == (6, state["step"])
    assert all(t.isfinite().all() for t in state["policy"].values())


# What is saved, and what stays.


def test_checkpoints_by_the_clock_milestones_and_the_best(game: Path) -> None:
    path = tiny_yaml(game, max_steps=10_000_000, keep_checkpoints=1)  # by steps: at 500,000
    chosen = {"checkpoint_interval_s": 0.2, "milestone_interval": 1000, "best_min_episodes": 2}
    write_yaml(path, {**yaml.safe_load(path.read_text()), "checkpoint_settings": chosen})
    with Trainer(*WORDS, cwd=game) as trainer:
        trainer.wait_for(r"1D\. Step: 2500\. ")
        trainer.signal(signal.SIGTERM)
        assert trainer.wait() == 143
    run = game / "results" / "run"
    told = [event for event in run_events(run) if event["event"] == "checkpoint"]
    assert len(told) >= 4  # two milestones, the last, and at least one by the clock
    milestones = [event["step"] for event in told if event["is_milestone"]]
    assert [step // 1000 for step in milestones] == [1, 2]
    manifest = json.loads((run / "1D" / "manifest.json").read_text())
    newest = {event["step"]: event for event in told}  # at the end a step may be saved again
    scored = [event for event in newest.values() if event["score"] is not None]
    best = max(reversed(scored), key=lambda event: event["score"])  # of equals the later
    assert manifest["best"] == best["step"]
    assert (run / "1D" / "best.pt").read_bytes() == (game / best["path"]).read_bytes()
    kept = {entry["step"] for entry in manifest["checkpoints"]}
    # The newest may be the best, and stays as that; the one before it is then the newest other one.
    before, newest = sorted({event["step"] for event in told})[-2:]
    assert kept == {*milestones, best["step"], newest} | (kept & {before})
    assert {int(path.stem[3:]) for path in (run / "1D").glob("1D-*.onnx")} == kept


# The same command line again.


def test_resume_or_start_starts_then_goes_on(game: Path) -> None:
    tiny_yaml(game, max_steps=400, summary_freq=100, checkpoint_interval=200)
    said = ppo_train(*WORDS, "--resume-or-start", cwd=game)
    assert "Starting training from step 0" in said
    step = checkpoint(game / "results" / "run", "1D")["step"]
    tiny_yaml(game, max_steps=700, summary_freq=100, checkpoint_interval=200)
    said = ppo_train(*WORDS, "--resume-or-start", cwd=game)
    assert f"Resuming training from step {step}." in said
    starts = [e for e in run_events(game / "results" / "run") if e["event"] == "start"]
    assert [event["resume"] for event in starts] == [False, True]


def test_resume_or_start_goes_with_neither_force_nor_a_step(
    game: Path, in_process: InProcess
) -> None:
    code, _, errors = in_process(*WORDS, "--resume-or-start", "--force", cwd=game)
    assert code == 2
    assert "resume_or_start is true and goes on with an existing run, but force is true" in errors
    code, _, errors = in_process(*WORDS, "--resume-or-start", "--from-step", "100", cwd=game)
    assert code == 2
    assert "Go back once, with --resume --from-step 100." in errors
    assert not (game / "results").exists()
