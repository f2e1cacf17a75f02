"""What a tracker gets, with a tracker of the test's own on the far side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainer.trackers.journal import Journal, Point
from trainer.trackers.mirror import Mirror, Notes, flat


@dataclass
class FakeRun:
    id: str
    newest_step: int | None = None
    steps: list[int] = field(default_factory=list)
    ended: list[int | None] = field(default_factory=list)

    def log(self, point: Point) -> None:
        self.steps.append(point.step)
        self.newest_step = point.step

    def finish(self, exit_code: int | None) -> None:
        self.ended.append(exit_code)


@dataclass
class FakeTracker:
    place: str = "here"
    runs: dict[str, FakeRun] = field(default_factory=dict)
    is_closed: bool = False

    def begin(self, behavior: str, parameters: Mapping[str, str]) -> FakeRun:
        assert parameters == {"of": behavior}
        run = FakeRun(f"{behavior}-{len(self.runs)}")
        self.runs[run.id] = run
        return run

    def go_on(self, id: str, behavior: str, newest_step: int | None) -> FakeRun | None:
        assert id.startswith(behavior)
        run = self.runs.get(id)
        assert run is None or run.newest_step == newest_step
        return run

    def close(self) -> None:
        self.is_closed = True


def append(folder: Path, *events: tuple[str, int], pid: int = 1) -> None:
    """Appends lines: start, summary, checkpoint and end, with their steps."""
    with (folder / "events.jsonl").open("a") as file:
        for kind, step in events:
            line = {"time": 5.0, "event": kind, "step": step, "behavior": "Crab", "pid": pid}
            line |= {"values": {"tag": 1.0}, "exit_code": 0, "shown_step": step}
            file.write(json.dumps(line) + "\n")


def mirror_of(folder: Path, tracker: FakeTracker) -> Mirror:
    return Mirror(
        Journal(folder / "events.jsonl"),
        Notes(folder / "tracker-fake.json"),
        tracker,
        lambda behavior: {"of": behavior},
    )


def sent(tracker: FakeTracker) -> dict[str, list[int]]:
    return {id: run.steps for id, run in tracker.runs.items()}


def test_resumed_run_goes_on_in_the_same_tracked_run_without_gap_or_double_point(
    tmp_path: Path,
) -> None:
    tracker = FakeTracker()
    append(tmp_path, ("start", 0), ("summary", 100), ("checkpoint", 100), ("summary", 200))
    mirror_of(tmp_path, tracker).catch_up()  # and is killed, with its trainer
    assert sent(tracker) == {"Crab-0": [100]}
    append(tmp_path, ("start", 100), ("summary", 200), ("summary", 300), ("checkpoint", 300))
    second = mirror_of(tmp_path, tracker)
    second.catch_up()
    append(tmp_path, ("summary", 400), ("checkpoint", 400), ("end", 400))
    second.catch_up()
    second.finish()
    assert sent(tracker) == {"Crab-0": [100, 200, 300, 400]}
    assert tracker.runs["Crab-0"].ended == [0]
    assert tracker.is_closed


def test_tracker_that_was_away_gets_what_it_lacks(tmp_path: Path) -> None:
    tracker = FakeTracker()
    append(tmp_path, ("start", 0), ("summary", 100), ("checkpoint", 100))
    mirror_of(tmp_path, tracker).catch_up()
    append(tmp_path, ("summary", 200), ("summary", 300), ("checkpoint", 300), ("start", 300))
    mirror_of(tmp_path, tracker).catch_up()  # nothing was final since this start
    append(tmp_path, ("summary", 400), ("checkpoint", 400))
    mirror_of(tmp_path, tracker).catch_up()
    assert sent(tracker) == {"Crab-0": [100, 200, 300, 400]}


def test_going_back_behind_what_was_sent_begins_a_new_tracked_run_once(tmp_path: Path) -> None:
    tracker = FakeTracker()
    append(tmp_path, ("start", 0), ("summary", 100), ("checkpoint", 100))
    append(tmp_path, ("summary", 200), ("checkpoint", 200))
    first = mirror_of(tmp_path, tracker)
    first.catch_up()
    append(tmp_path, ("start", 100), ("summary", 150), ("checkpoint", 150))  # --from-step 100
    first.catch_up()
    assert sent(tracker) == {"Crab-0": [100, 200], "Crab-1": [100, 150]}
    assert tracker.runs["Crab-0"].ended == [None]
    append(tmp_path, ("summary", 250), ("checkpoint", 250))
    mirror_of(tmp_path, tracker).catch_up()  # the same, met by a start that was not there then
    assert sent(tracker) == {"Crab-0": [100, 200], "Crab-1": [100, 150, 250]}


def test_other_place_or_lost_tracked_run_gets_all_points(tmp_path: Path) -> None:
    append(tmp_path, ("start", 0), ("summary", 100), ("checkpoint", 100))
    mirror_of(tmp_path, FakeTracker()).catch_up()
    append(tmp_path, ("summary", 200), ("checkpoint", 200))
    elsewhere = FakeTracker(place="there")
    mirror_of(tmp_path, elsewhere).catch_up()
    assert sent(elsewhere) == {"Crab-0": [100, 200]}
    emptied = FakeTracker(place="there")
    mirror_of(tmp_path, emptied).catch_up()
    assert sent(emptied) == {"Crab-0": [100, 200]}


def test_new_run_in_the_folder_of_another_one_has_tracked_runs_of_its_own(tmp_path: Path) -> None:
    tracker = FakeTracker()
    append(tmp_path, ("start", 0), ("summary", 100), ("checkpoint", 100))
    mirror_of(tmp_path, tracker).catch_up()
    (tmp_path / "events.jsonl").unlink()  # --force
    append(tmp_path, ("start", 0), ("summary", 50), ("checkpoint", 50), pid=2)
    mirror_of(tmp_path, tracker).catch_up()
    assert sent(tracker) == {"Crab-0": [100], "Crab-1": [50]}


def test_settings_become_texts_by_dotted_key() -> None:
    assert flat({"a": 1, "b": {"c": None, "d": {}}}) == {"a": "1", "b.c": "None", "b.d": "{}"}
