"""Simulators that die: the run goes on while one is left, and saves when none is."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from trainer_process import Trainer, checkpoint, ppo_train, run_events, tiny_build, tiny_yaml


def killed_simulator(trainer: Trainer, among: list[int]) -> int:
    """Kills one of these with SIGKILL; gives its pid."""
    os.kill(among[0], signal.SIGKILL)
    trainer.wait_for(rf"\(unity, pid {among[0]}, port \d+\) ended in the middle of the run \(exit ")
    return among[0]


def test_run_goes_on_without_a_killed_simulator_and_saves_when_none_is_left(
    tmp_path: Path,
) -> None:
    tiny_build(tmp_path)
    tiny_yaml(tmp_path, max_steps=10_000_000, summary_freq=100)
    words = ("settings.yaml", "--env", "tiny.x86_64", "--num-envs", 2)
    with Trainer(*words, cwd=tmp_path) as trainer:
        trainer.wait_for(r"1D\. Step: 200\. ")
        killed = []
        for number in range(4):  # each is started again once; a second crash within 60 s is final
            living = [pid for pid in trainer.simulators() if pid not in killed]
            killed.append(killed_simulator(trainer, living))
            if number == 3:
                break
            # It has learned from another simulator since.
            step = int(re.findall(r"1D\. Step: (\d+)\. ", trainer.output)[-1])
            trainer.wait_for(rf"1D\. Step: {step + 300}\. ")
            if number < 2:
                trainer.wait_for(rf"(?s)(Connected to Unity environment.*){{{3 + number}}}")
        assert trainer.wait() == 3
        said = trainer.output
    assert said.count("ended in the middle of the run (exit code -9, SIGKILL).") == 4
    assert said.count("Restarting (1 of 10).") == 2
    assert said.count("Given up: it has been restarted once within the last 60 s") == 2
    assert "Simulators that go on: 1." in said
    run = tmp_path / "results" / "ppo"
    losses = [event for event in run_events(run) if event["event"] == "simulator_lost"]
    assert [event["will_restart"] for event in losses].count(True) == 2
    assert all("(exit code -9, SIGKILL)" in event["message"] for event in losses)
    assert {event["simulator"] for event in losses} == {0, 1}
    assert len(losses) == 4
    end = run_events(run)[-1]
    assert (end["exit_code"], end["reason"]) == (3, "no simulator is left")
    step = checkpoint(run, "1D")["step"]
    assert re.search(
        rf"\[INFO\] Exported results/ppo/1D/1D-{step}\.onnx\n"
        rf"\[INFO\] Copied .* to results/ppo/1D\.onnx\.\n"
        r"\[INFO\] Where the time went: .*\n"
        r"\[INFO\] Go on with: \S*ppo-train settings\.yaml --env tiny\.x86_64 --num-envs 2 "
        r"--resume\n"
        r"\[ERROR\] Run 'ppo' ended: no simulator is left\.\n$",
        said,
    ), said


def test_crash_is_told_with_exit_code_and_last_words(tmp_path: Path) -> None:
    tiny_yaml(tmp_path, name="Scripted", max_steps=100_000)
    words = ("--script", "crash-mid-episode", "--at", "40", "--exit-code", "7")
    tiny_build(tmp_path, *words, program="envs.testing.scripted")
    said = ppo_train("settings.yaml", "--env", "scripted.x86_64", cwd=tmp_path, exit_code=3)
    warning = re.search(
        r"\[WARNING\] Simulator 0 \(unity, pid \d+, port \d+\) ended in the middle of the run "
        r"\(exit code 7\)\.\n  Its log ends with:\n    Scripted crash: the simulator's last words\n"
        r"  Log: (\S+)\.\n  Restarting \(1 of 10\)\.",
        said,
    )
    assert warning, said
    assert (tmp_path / warning[1]).exists() or Path(warning[1]).exists()
    assert "[ERROR] Run 'ppo' ended: no simulator is left." in said
    assert checkpoint(tmp_path / "results" / "ppo", "Scripted")["step"] > 0


def test_simulator_that_never_dials_ends_the_run_without_restarting(tmp_path: Path) -> None:
    tiny_yaml(tmp_path)
    build = tiny_build(tmp_path, "--script", "exit-code", program="envs.testing.scripted")
    started = time.monotonic()
    said = ppo_train("settings.yaml", "--env", build, cwd=tmp_path, exit_code=2)
    assert "ended before it dialled the trainer (exit code 3)" in said
    assert "Scripted end before dialling" in said
    assert "Restarting" not in said
    assert "Go on with" not in said  # there is nothing to go on with
    assert time.monotonic() - started < 60  # it did not wait for timeout_wait
    # Nothing was learned, so the next attempt needs neither --force nor --resume; its log is new.
    said = ppo_train("settings.yaml", "--env", build, cwd=tmp_path, exit_code=2)
    assert said.count("Scripted end before dialling") == 1


def test_episodes_with_bad_numbers_are_dropped_counted_and_shown(tmp_path: Path) -> None:
    """Three agents in endless episodes; at its 30th step one of them sends a NaN, for ever."""
    tiny_yaml(tmp_path, name="Scripted", max_steps=600, summary_freq=200)
    words = ("--script", "nan", "--at", "30")
    tiny_build(tmp_path, *words, program="envs.testing.scripted")
    said = ppo_train("settings.yaml", "--env", "scripted.x86_64", cwd=tmp_path)
    warnings = re.findall(
        r"\[WARNING\] Simulator 0 \(unity, pid \d+, port \d+\): behaviour 'Scripted\?team=0', "
        r"agent 21000: sensor 'number' holds nan at index 1, .* The episode is dropped\. After 10 "
        r"such episodes it counts as crashed\.\n  Log: \S+Player-0\.log\.\n",
        said,
    )
    assert len(warnings) == 1, said
    run = tmp_path / "results" / "ppo"
    events = run_events(run)
    (dropped,) = [event for event in events if event["event"] == "episode_dropped"]
    assert (dropped["simulator"], dropped["agent_id"]) == (0, 21000)
    counts = [
        event["values"].get("Environment/Dropped Episodes")
        for event in events
        if event["event"] == "summary"
    ]
    assert counts == [1.0, None, None]  # only where there were any: the tags are ML-Agents'
    assert not [event for event in events if event["event"] == "simulator_lost"]
    assert events[-1]["exit_code"] == 0
