"""Which points of events.jsonl are final, and that none is lost or comes twice."""

from __future__ import annotations

import json
import math
from pathlib import Path

from trainer.event_log import EventLog
from trainer.trackers.journal import Journal, Point


def told(points: list[Point]) -> list[tuple[str, int, float]]:
    return [(point.behavior, point.step, point.scalars["tag"]) for point in points]


class Run:
    """Writes the lines of a run through the real log."""

    def __init__(self, path: Path, *, goes_on: bool = False) -> None:
        self.log = EventLog(path, goes_on=goes_on)
        self.log.write("start", step=0, pid=7)

    def summary(self, step: int, value: float, behavior: str = "Crab") -> None:
        self.log.write("summary", step=step, behavior=behavior, values={"tag": value})

    def checkpoint(self, step: int, behavior: str = "Crab", shown: int | None = None) -> None:
        shown_step = step if shown is None else shown
        self.log.write("checkpoint", step=step, behavior=behavior, shown_step=shown_step)


def test_points_wait_for_a_checkpoint_of_their_own_behavior(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    assert list(journal.read()) == []  # the file is not there yet
    run = Run(path)
    run.summary(100, 1.0)
    run.summary(100, 2.0, "Fish")
    assert list(journal.read()) == []
    run.checkpoint(90, shown=100)
    assert told(list(journal.read())) == [("Crab", 100, 1.0)]
    run.summary(200, 3.0)
    run.checkpoint(90, "Fish", shown=100)
    run.checkpoint(200)
    assert told(list(journal.read())) == [("Fish", 100, 2.0), ("Crab", 200, 3.0)]
    assert list(journal.read()) == []


def test_what_a_kill_takes_back_is_never_final(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = Run(path)
    first.summary(100, 1.0)
    first.checkpoint(100)
    first.summary(200, 2.0)
    first.summary(300, 3.0)
    first.log.close()
    second = Run(path, goes_on=True)
    second.summary(200, 20.0)
    second.checkpoint(200)
    second.summary(300, 30.0)
    second.checkpoint(300)
    expected = [("Crab", 100, 1.0), ("Crab", 200, 20.0), ("Crab", 300, 30.0)]
    assert told(list(Journal(path).read())) == expected


def test_checkpoint_whose_line_was_not_written_any_more_costs_no_point(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = Run(path)
    first.summary(100, 1.0)
    first.log.close()  # killed between the checkpoint of step 100 and its line
    second = Run(path, goes_on=True)
    second.summary(200, 2.0)
    second.checkpoint(200)
    assert told(list(Journal(path).read())) == [("Crab", 100, 1.0), ("Crab", 200, 2.0)]


def test_summary_that_came_while_the_checkpoint_was_written_waits_for_the_next(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    run = Run(path)
    run.summary(100, 1.0)
    run.summary(200, 2.0)
    run.checkpoint(90, shown=100)
    assert told(list(journal.read())) == [("Crab", 100, 1.0)]
    run.checkpoint(200)
    assert told(list(journal.read())) == [("Crab", 200, 2.0)]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    run = Run(path)
    run.summary(100, 1.0)
    journal = Journal(path)
    event = {"event": "checkpoint", "step": 100, "behavior": "Crab", "shown_step": 100}
    line = json.dumps({**event, "time": 1.0})
    with path.open("a") as file:
        file.write(line[:20])
        file.flush()
        assert list(journal.read()) == []
        file.write(line[20:] + "\n")
    assert told(list(journal.read())) == [("Crab", 100, 1.0)]


def test_nan_and_infinities_are_numbers_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    run = Run(path)
    for step, value in ((1, math.inf), (2, -math.inf), (3, math.nan)):
        run.summary(step, value)
    run.checkpoint(3)
    values = [point.scalars["tag"] for point in Journal(path).read()]
    assert values[:2] == [math.inf, -math.inf]
    assert math.isnan(values[2])


def test_end_and_another_beginning_are_seen(tmp_path: Path) -> None:
    def seen(journal: Journal) -> tuple[int | None, str | None]:
        assert list(journal.read()) == []
        return journal.exit_code, journal.began

    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    Run(path).log.write("end", step=0, exit_code=143)
    exit_code, began = seen(journal)
    assert exit_code == 143
    Run(path, goes_on=True)
    assert seen(journal) == (None, began)
