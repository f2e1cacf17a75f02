from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.event_log import EventLog


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run_logs" / "events.jsonl"


def test_line_has_time_event_step_and_what_else_is_known(path: Path) -> None:
    before = time.time()
    log = EventLog(path, goes_on=False)
    log.write("summary", step=500, behavior="Krebs ü", values={"Policy/Entropy": 1.5}, mean=None)
    (line,) = read(path)  # it is there at once, while the file is open
    log.close()
    assert before - 0.001 <= line.pop("time") <= time.time() + 0.001
    assert line == {
        "event": "summary",
        "step": 500,
        "behavior": "Krebs ü",
        "values": {"Policy/Entropy": 1.5},
        "mean": None,
    }


def test_numbers_that_json_lacks_are_texts(path: Path) -> None:
    log = EventLog(path, goes_on=False)
    log.write("summary", step=1, values={"a": float("nan"), "b": [float("-inf")], "c": 1e300})
    log.close()
    text = path.read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["values"] == {"a": "nan", "b": ["-inf"], "c": 1e300}


def test_resumed_log_goes_on_and_another_run_begins_anew(path: Path) -> None:
    for goes_on, expected in ((False, [1]), (True, [1, 2]), (True, [1, 2, 3]), (False, [4])):
        log = EventLog(path, goes_on=goes_on)
        log.write("start", step=expected[-1])
        log.close()
        assert [line["step"] for line in read(path)] == expected


@pytest.mark.parametrize("length", [1, 30, 200_000])
def test_torn_last_line_is_taken_away(path: Path, length: int) -> None:
    log = EventLog(path, goes_on=False)
    log.write("summary", step=1)
    log.close()
    line = json.dumps({"time": 1.0, "event": "x" * 300_000, "step": 2}).encode()
    with path.open("ab") as file:
        file.write(line[:length])
    resumed = EventLog(path, goes_on=True)
    assert resumed.torn_bytes == length
    resumed.write("start", step=3)
    resumed.close()
    assert [line["step"] for line in read(path)] == [1, 3]


def test_last_line_that_lacks_only_its_end_is_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    log = EventLog(path, goes_on=True)
    assert log.torn_bytes == 0
    log.write("start", step=3)
    log.close()
    assert [line["step"] for line in read(path)] == [1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"12", b"\0\0\0", b'{"step": 1', b'\n{"s'])
def test_file_of_rubbish_only_is_repaired(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    log = EventLog(path, goes_on=True)
    log.write("start", step=3)
    log.close()
    lines = path.read_text().strip("\n").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3]


def test_what_was_written_survives_kill_9(path: Path) -> None:
    code = f"""
from pathlib import Path
from trainer.event_log import EventLog
log = EventLog(Path({str(path)!r}), goes_on=False)
for step in range(100):
    log.write("summary", step=step)
print("written", flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [line["step"] for line in read(path)] == list(range(100))
