"""Signals, kill -9, and what `--resume` makes of it."""

from __future__ import annotations

import json
import re
import signal
from itertools import pairwise
from pathlib import Path

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
)

from trainer.config.load import load_run

WORDS = ("settings.yaml", "--env", "tiny.x86_64", "--num-envs", 2, "--run-id", "run")


def saved_step(run: Path) -> int:
    step = checkpoint(run, "1D")["step"]
    assert isinstance(step, int)
    return step


def test_signals_save_say_where_and_resume_goes_on(tmp_path: Path) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=100, checkpoint_interval=500)
    run = tmp_path / "results" / "run"
    before, shown = 0, 0
    saved: set[int] = set()
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        resume = ("--resume",) if before else ()
        with Trainer(*WORDS, *resume, cwd=tmp_path) as trainer:
            if resume:
                trainer.wait_for(rf"Resuming training from step {before}\.")
            summary = trainer.wait_for(r"1D\. Step: (\d+)\. .*\n.*\n.*1D\. Step: (\d+)\. ")
            assert int(summary[1]) == shown + 100
            require_told_already(run, before)
            trainer.signal(number)
            assert trainer.wait() == code
            step = saved_step(run)
            # What no update has learned from is collected anew: at most a buffer, and a message.
            assert step > int(summary[2]) - 64 - 2
            assert step > before
            assert re.search(
                r"\[INFO\] Learning was interrupted\. Please wait while the graph is generated\.\n"
                rf"\[INFO\] Exported results/run/1D/1D-{step}\.onnx\n"
                rf"\[INFO\] Copied results/run/1D/1D-{step}\.onnx to results/run/1D\.onnx\.\n"
                r"\[INFO\] Where the time went: .*\n"
                r"\[INFO\] Go on with: \S*ppo-train settings\.yaml --env tiny\.x86_64 --num-envs 2 "
                r"--run-id run --resume\n"
                rf"\[INFO\] Run 'run' ended: interrupted by {number.name}\.\n$",
                trainer.output,
            ), trainer.output
            saved |= {step, *map(int, re.findall(r"Exported \S+-(\d+)\.onnx", trainer.output))}
            expected = tree_of("1D", sorted(saved)[-5:], num_simulators=2)
            best = {"1D/best.pt", "1D/best.onnx"}  # once there have been enough episodes
            assert tree(run) >= expected - best
            before = step
            shown = int(re.findall(r"1D\. Step: (\d+)\. ", trainer.output)[-1])
    # kill -9 behind a checkpoint takes summaries with it that TensorBoard has already shown.
    with Trainer(*WORDS, "--resume", cwd=tmp_path) as trainer:
        checkpointed = int(trainer.wait_for(r"Exported results/run/1D/1D-(\d+)\.onnx")[1])
        later = checkpointed // 100 * 100 + 200
        trainer.wait_for(rf"1D\. Step: {later}\. ")
        trainer.signal(signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL
    before = saved_step(run)
    assert before >= checkpointed

    end = before + 1000
    tiny_yaml(tmp_path, max_steps=end, summary_freq=100, checkpoint_interval=500)
    ppo_train(*WORDS, "--resume", cwd=tmp_path)
    assert end <= saved_step(run) < end + 4
    # No summary twice and none left out, over four processes.
    assert event_steps(run / "1D") == list(range(100, end + 1, 100))
    require_one_log_of_all(run, end)


def require_told_already(run: Path, resumed_step: int) -> None:
    """What a kill must not take: the files are there while the run goes on, each complete."""
    assert load_run(run / "configuration.yaml").checkpoint_settings.run_id == "run"
    status = json.loads((run / "run_logs" / "training_status.json").read_text())
    assert status["metadata"]["stats_format_version"] == "0.3.0"
    assert ("1D" in status) == (resumed_step > 0)
    timers = json.loads((run / "run_logs" / "timers.json").read_text())
    assert timers["children"].keys() >= {"simulators", "inference", "learning"}


def require_one_log_of_all(run: Path, end: int) -> None:
    """Four processes have written it: stopped by two signals, killed, and finished."""
    events = run_events(run)
    starts = [event for event in events if event["event"] == "start"]
    assert [event["resume"] for event in starts] == [False, True, True, True]
    assert starts[0]["step"] == 0
    assert all(a["step"] < b["step"] for a, b in pairwise(starts))
    told = [(event["event"], event.get("signal")) for event in events]
    assert [signal for event, signal in told if event == "signal"] == ["SIGINT", "SIGTERM"]
    ends = [(event["exit_code"], event["reason"]) for event in events if event["event"] == "end"]
    assert ends == [
        (130, "interrupted by SIGINT"),
        (143, "interrupted by SIGTERM"),
        (0, "all behaviors have reached max_steps"),
    ]
    # What kill -9 took back is told twice: the log is what happened, not what counts.
    summaries = [event["step"] for event in events if event["event"] == "summary"]
    assert sorted(set(summaries)) == list(range(100, end + 1, 100))


def test_signal_before_a_simulator_has_dialled_ends_the_run(tmp_path: Path) -> None:
    tiny_yaml(tmp_path)
    tiny_build(
        tmp_path, "--script", "slow-start", "--delay-s", "60", program="envs.testing.scripted"
    )
    with Trainer("settings.yaml", "--env", "scripted.x86_64", cwd=tmp_path) as trainer:
        trainer.wait_for("Watch the curves")
        trainer.signal(signal.SIGINT)
        assert trainer.wait() == 130
        assert "ended: interrupted by SIGINT." in trainer.output
