"""`ppo-train profile`: a real run's trace, read back and checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from trainer_process import tiny_build, tiny_yaml

from trainer.span_trace import SpanTrace

InProcess = Callable[..., tuple[int, str, str]]
NUM_UPDATES = 3


def spans_of(document: dict[str, Any], track: str) -> list[dict[str, Any]]:
    """Gives the spans of a track, in the order of the file."""
    (tid,) = [
        event["tid"]
        for event in document["traceEvents"]
        if event["name"] == "thread_name" and event["args"] == {"name": track}
    ]
    events = document["traceEvents"]
    return [event for event in events if event["ph"] == "X" and event["tid"] == tid]


def nested(spans: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Gives for each span the names it lies in, itself last; no two may overlap in part."""
    open_spans: list[dict[str, Any]] = []
    found = []
    for span in sorted(spans, key=lambda one: (one["ts"], -one["dur"])):
        while open_spans and open_spans[-1]["ts"] + open_spans[-1]["dur"] <= span["ts"] + 0.002:
            open_spans.pop()
        if open_spans:
            end = open_spans[-1]["ts"] + open_spans[-1]["dur"]
            assert span["ts"] + span["dur"] <= end + 0.002, (open_spans[-1], span)  # microseconds
        open_spans.append(span)
        found.append(tuple(one["name"] for one in open_spans))
    return found


def test_trace_of_a_real_run_opens_nests_and_names_its_parts(
    tmp_path: Path, in_process: InProcess
) -> None:
    build = tiny_build(tmp_path, "--actions", "1,1")
    settings = tiny_yaml(tmp_path, max_steps=50_000, hyperparameters__num_epoch=2)
    words = (settings.name, "--env", build.name, "--num-envs", 2, "--updates", NUM_UPDATES)
    code, output, errors = in_process("profile", *words, "--torch", cwd=tmp_path)
    assert code == 0, errors
    assert not (tmp_path / "results").exists()
    document = json.loads((tmp_path / "trace.json").read_text())
    loop = spans_of(document, "loop")
    places = nested(loop)
    for expected, count in {
        ("run",): 1,
        ("run", "answer", "build"): 1,
        ("run", "learn"): NUM_UPDATES,
        ("run", "learn", "take"): NUM_UPDATES,
        ("run", "learn", "update"): NUM_UPDATES,
        ("run", "learn", "update", "epoch"): 2 * NUM_UPDATES,
        ("run", "learn", "normalizer"): NUM_UPDATES,
    }.items():
        assert places.count(expected) == count, expected
    for expected in (("run", "recv", "decode"), ("run", "save")):
        assert expected in places
    # Two agents of two simulators, 64 decisions per update.
    assert places.count(("run", "answer", "inference")) >= NUM_UPDATES * 64 / 2
    assert places.count(("run", "answer", "encode and send")) >= NUM_UPDATES * 64

    # While the loop turns, it is in one of its parts.
    first = min(span["ts"] for span in loop if span["name"] == "recv")
    last = max(span["ts"] + span["dur"] for span in loop if span["name"] in ("learn", "save"))
    parts = sum(span["dur"] for span in loop if span["name"] in ("recv", "answer", "learn", "save"))
    assert parts / (last - first) > 0.7

    for number in (0, 1):
        spans = spans_of(document, f"simulator {number}")
        assert {span["name"] for span in spans} == {"stepping", "waiting"}
        assert all(before["name"] != after["name"] for before, after in pairwise(spans))
        for before, after in pairwise(spans):
            assert after["ts"] == pytest.approx(before["ts"] + before["dur"], abs=0.01)

    counted = [event for event in document["traceEvents"] if event["ph"] == "C"]
    steps = [event["args"]["steps"] for event in counted if event["name"] == "steps"]
    assert steps == sorted(steps)
    assert steps[-1] > 64

    table = output[output.index("calls") :]
    for name in ("recv", "decode", "answer", "inference", "learn", "update", "epoch", "save"):
        assert f"{name} " in table
    assert "Ended: 3 updates are profiled." in table
    assert "Trace: trace.json" in table
    inner = json.loads((tmp_path / "trace.torch.json").read_text())
    assert any("aten::" in event.get("name", "") for event in inner["traceEvents"])


def test_runs_are_not_disturbed_and_results_can_be_kept(
    tmp_path: Path, in_process: InProcess, refused: Callable[..., str]
) -> None:
    build = tiny_build(tmp_path, "--actions", "1,0")
    settings = tiny_yaml(tmp_path, max_steps=50_000)
    words = (settings.name, "--env", build.name, "--updates", 1, "--resume", "--run-id", "old")
    kept = ("--folder", "kept", "--out", "deep/a.json")
    code, _, errors = in_process("profile", *words, *kept, cwd=tmp_path)
    assert code == 0, errors
    assert (tmp_path / "deep" / "a.json").exists()
    assert not (tmp_path / "deep" / "a.torch.json").exists()
    assert (tmp_path / "kept" / "profile" / "1D" / "checkpoint.pt").exists()
    assert not (tmp_path / "results").exists()
    told = refused("profile", settings.name, "--updates", 0, cwd=tmp_path)
    assert "--updates is 0; at least one update" in told
    assert "learns nothing" in refused("profile", settings.name, "--inference", cwd=tmp_path)


def test_full_trace_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("trainer.span_trace.MOST_EVENTS", 3)
    trace = SpanTrace()
    trace.began_s = 0.0
    for number in range(5):
        trace.add("a", 0, trace.began_s + number, trace.began_s + number + 0.25)
    trace.count("b", 1.0)
    assert trace.num_left_out == 2
    assert trace.totals(0) == {"a": (3, 0.75)}
    trace.write(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert [(e["ts"], e["dur"]) for e in events] == [(0, 25e4), (1e6, 25e4), (2e6, 25e4)]
