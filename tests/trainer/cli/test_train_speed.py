"""What a real run tells of its speed: a line, curves, events, metrics."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import FinishedRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainer_process import Trainer, run_events, tiny_build, tiny_yaml

from trainer.control_client import COMMAND_WAIT_S, read_address

PARTS = ("simulators", "bridge", "inference", "learning", "saving")
BOTTLENECK = re.compile(
    r"\[INFO\] (?P<parts>(?:\w+ \d+ %(?:, )?)+): (?P<verdict>\w+-bound|balanced)"
    r"(?:, (?P<idle>no|\d+) cores? idle)?(?:, (?P<advice>.*))?"
)


def test_every_summary_has_a_line_about_the_bottleneck(finished_run: FinishedRun) -> None:
    lines = finished_run.output.splitlines()
    at = [number for number, text in enumerate(lines) if "Time Elapsed:" in text]
    told = [BOTTLENECK.fullmatch(lines[number + 1]) for number in at]
    assert len(told) == 6
    summaries = [e for e in run_events(finished_run.folder) if e["event"] == "summary"]
    for found, event in zip(told, summaries, strict=True):
        assert found is not None, lines
        assert found[0] == f"[INFO] {event['bottleneck']}"
        shares = dict(part.split(" ", 1) for part in found["parts"].split(", "))
        assert set(shares) <= set(PARTS)
        percent = {part: int(share.removesuffix(" %")) for part, share in shares.items()}
        assert 97 <= sum(percent.values()) <= 102
        for part, share in percent.items():  # of the same interval
            assert share == pytest.approx(
                100 * event["values"][f"Speed/{part.capitalize()} Share"], abs=0.51
            )


def test_speed_curves_hang_together(finished_run: FinishedRun) -> None:
    events = run_events(finished_run.folder)
    summaries = [event for event in events if event["event"] == "summary"]
    for before, event in pairwise(summaries):
        values = event["values"]
        assert values["Speed/Simulators Alive"] == 2
        assert sum(values[f"Speed/{part.capitalize()} Share"] for part in PARTS) == pytest.approx(1)
        # Two simulators of one agent: a pass answers one or both.
        assert 1 <= values["Speed/Decisions per Forward Pass"] <= 2
        # 500 steps, give or take an agent's, between two moments that the log tells, too.
        seconds = event["elapsed_s"] - before["elapsed_s"]
        assert values["Speed/Steps per Second"] * seconds == pytest.approx(500, rel=0.1)
        # What is not collecting is learning and saving: of each update there are 64 steps.
        collecting_s = 500 / values["Speed/Collecting Steps per Second"]
        learning_s = values["Speed/Seconds per Update"] * 500 / 64
        shares = collecting_s / (1 - values["Speed/Learning Share"] - values["Speed/Saving Share"])
        assert learning_s / shares == pytest.approx(values["Speed/Learning Share"], rel=0.2)
        assert shares <= seconds * 1.05
    shown = EventAccumulator(str(finished_run.folder / "1D"))
    shown.Reload()
    assert {tag for tag in shown.Tags()["scalars"] if tag.startswith("Speed/")} >= {
        "Speed/Steps per Second",
        "Speed/Collecting Steps per Second",
        "Speed/Seconds per Update",
        "Speed/Decisions per Forward Pass",
        "Speed/Simulators Alive",
        *(f"Speed/{part.capitalize()} Share" for part in PARTS),
    }


def test_a_running_run_tells_its_bottleneck(tmp_path: Path) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=2_000)
    words = ("settings.yaml", "--env", "tiny.x86_64", "--run-id", "run", "--control")
    with Trainer(*words, cwd=tmp_path) as trainer:
        for step in (2_000, 4_000):
            trainer.wait_for(rf"1D\. Step: {step}\. .*\n\[INFO\] .*: (\w+-bound|balanced)")
        address = read_address(tmp_path / "results" / "run" / "run_logs" / "control.json")
        assert address is not None
        _, metrics = address.request("GET", "/metrics", timeout_s=COMMAND_WAIT_S)
        for name in ("collecting_steps_per_second", "update_seconds", "decisions_per_forward_pass"):
            value = re.search(rf"^ppo_train_{name} (\S+)$", metrics, re.MULTILINE)
            assert value is not None and float(value[1]) > 0, metrics
        _, status = address.request("POST", "/commands/status", {}, timeout_s=COMMAND_WAIT_S)
        assert re.search(r"up to the last summary: .*learning \d+ %.*: ", status)
        address.request("POST", "/commands/stop", {}, timeout_s=COMMAND_WAIT_S)
        assert trainer.wait() == 0
