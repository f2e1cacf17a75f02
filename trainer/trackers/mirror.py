"""A program beside the trainer: brings a run's curves to one tracker.

    python -m trainer.trackers.mirror mlflow results/walker2d

It follows the run's `events.jsonl` until its standard input ends, which it does with the trainer,
however that ends. A tracker that hangs, breaks, prints or fills its memory does so here. By hand
(`< /dev/null`) it brings what a finished run has and the tracker has not.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainer.atomic_file import atomic_write
from trainer.config.load import load_run
from trainer.config.settings import RunSettings
from trainer.run_lock import take_lock
from trainer.trackers.base import TrackedRun, Tracker
from trainer.trackers.journal import Journal, Point

POLL_S = 1.0
END_LIMIT_S = 60.0  # for what is left to send when the run is over


@dataclass(frozen=True, slots=True)
class Note:
    """What the next start has to know of a tracked run."""

    id: str
    place: str
    num_rewinds: int  # of the history, when it was begun
    step: int | None  # of the newest point


@dataclass
class History:
    """All final points of one behaviour, in the order of their steps."""

    points: list[Point] = field(default_factory=list)
    num_rewinds: int = 0
    """How often the run has gone back behind a final point, which only --from-step does."""

    def add(self, point: Point) -> None:
        """Takes a point; those of its step and behind it were taken back."""
        if self.points and self.points[-1].step >= point.step:
            self.points = [other for other in self.points if other.step < point.step]
            self.num_rewinds += 1
        self.points.append(point)


@dataclass
class Notes:
    """`run_logs/tracker-<name>.json`: which tracked runs belong to the run; one writer."""

    path: Path
    began: str | None = None
    by_behavior: dict[str, Note] = field(default_factory=dict)

    def read(self, began: str | None) -> None:
        """Reads what is known of the run that began then; nothing, if that was another one."""
        self.began, self.by_behavior = began, {}
        try:
            document = json.loads(self.path.read_bytes())
            if document["began"] == began:
                runs = document["runs"].items()
                self.by_behavior = {name: Note(**note) for name, note in runs}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # the tracker gets a new tracked run, with all points there are

    def write(self, behavior: str, note: Note) -> None:
        """Replaces the file in one piece."""
        self.by_behavior[behavior] = note
        runs = {name: asdict(known) for name, known in self.by_behavior.items()}
        document = {"began": self.began, "runs": runs}
        atomic_write(self.path, json.dumps(document, indent=2).encode())


class Mirror:
    """Sends every final point once, to the tracked run of its behaviour."""

    def __init__(
        self,
        journal: Journal,
        notes: Notes,
        tracker: Tracker,
        parameters: Callable[[str], Mapping[str, str]],
    ) -> None:
        """Sends nothing yet.

        Args:
            journal: of the run.
            notes: which tracked runs there are already.
            tracker: where to.
            parameters: gives the settings of a behaviour.
        """
        self._journal = journal
        self._notes = notes
        self._tracker = tracker
        self._parameters = parameters
        self._runs: dict[str, TrackedRun] = {}
        self._histories: dict[str, History] = {}

    def catch_up(self) -> None:
        """Sends what has become final since the last call, and at first what was never sent."""
        is_first = self._journal.began is None
        points = list(self._journal.read())
        if is_first:
            self._notes.read(self._journal.began)
        for point in points:
            self._histories.setdefault(point.behavior, History()).add(point)
        for behavior in dict.fromkeys(point.behavior for point in points):
            self._send(behavior, self._histories[behavior])

    def finish(self) -> None:
        """Says how the run ended; everything was sent before."""
        for run in self._runs.values():
            run.finish(self._journal.exit_code)
        self._tracker.close()

    def _send(self, behavior: str, history: History) -> None:
        run = self._tracked_run(behavior, history.num_rewinds)
        newest = -1 if run.newest_step is None else run.newest_step
        for point in history.points:
            if point.step > newest:
                run.log(point)
                self._note(behavior, history.num_rewinds)

    def _tracked_run(self, behavior: str, num_rewinds: int) -> TrackedRun:
        """Gives the tracked run to go on with; a new one where the old shows what is no more."""
        note, run = self._notes.by_behavior.get(behavior), self._runs.get(behavior)
        if note is not None and (note.place, note.num_rewinds) != (
            self._tracker.place,
            num_rewinds,
        ):
            note = None
            if run is not None:
                run.finish(None)
                run = None
        if run is None and note is not None:
            run = self._tracker.go_on(note.id, behavior, note.step)
        if run is None:
            run = self._tracker.begin(behavior, self._parameters(behavior))
        self._runs[behavior] = run
        self._note(behavior, num_rewinds)
        return run

    def _note(self, behavior: str, num_rewinds: int) -> None:
        run = self._runs[behavior]
        note = Note(run.id, self._tracker.place, num_rewinds, run.newest_step)
        self._notes.write(behavior, note)


def flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Gives nested settings as texts by dotted key."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def open_tracker(name: str, settings: RunSettings, logs: Path) -> Tracker:
    """Connects to a tracker; only now its package is imported."""
    run_id, chosen = settings.checkpoint_settings.run_id, settings.trackers
    if name == "mlflow":
        from trainer.trackers.mlflow_tracker import MlflowTracker

        assert chosen.mlflow is not None
        return MlflowTracker(chosen.mlflow, run_id)
    from trainer.trackers.wandb_tracker import WandbTracker

    assert name == "wandb"
    assert chosen.wandb is not None
    return WandbTracker(chosen.wandb, run_id, logs)


@contextmanager
def only_mirror(path: Path) -> Iterator[None]:
    """Waits until a mirror of an earlier start, whose trainer was killed, has sent its last."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + END_LIMIT_S
        while not take_lock(file):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process holds {path}")
            time.sleep(POLL_S)
        yield
    finally:
        os.close(file)


def follow(name: str, run: Path, is_over: threading.Event) -> None:
    """Mirrors the run in the folder `run` until it is over, and then what is left."""
    settings = load_run(run / "configuration.yaml")
    logs = run / "run_logs"
    with only_mirror(logs / f"tracker-{name}.lock"):
        mirror = Mirror(
            Journal(logs / "events.jsonl"),
            Notes(logs / f"tracker-{name}.json"),
            open_tracker(name, settings, logs),
            lambda behavior: flat(settings.for_behavior(behavior).model_dump()),
        )
        while not is_over.wait(POLL_S):
            mirror.catch_up()
        mirror.catch_up()
        mirror.finish()


def watch_stdin(is_over: threading.Event) -> None:
    """Waits for the end of the trainer; what is sent then may not take forever."""
    while os.read(0, 1 << 12):
        pass
    is_over.set()
    threading.Event().wait(END_LIMIT_S)
    print(f"not everything was sent within {END_LIMIT_S:.0f} s", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> int:
    """Mirrors a run; gives the exit code, 1 with the reason on the last line."""
    name, run = sys.argv[1:]
    is_over = threading.Event()
    threading.Thread(target=watch_stdin, args=(is_over,), daemon=True).start()
    try:
        follow(name, Path(run), is_over)
    except Exception as error:
        text = " ".join(str(error).split())
        print(f"{type(error).__name__}: {text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    os._exit(exit_code)  # what the packages do at exit may wait for a network for ever
