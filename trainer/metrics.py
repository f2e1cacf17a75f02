"""Statistics of one behaviour between two summaries, and their way to TensorBoard.

Tags and their meaning are ML-Agents'.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from trainer.config.settings import BehaviorSettings


class Metrics:
    """Collects values until `write`, then writes their means at one step and starts afresh.

    Tensors are kept as they are: nobody waits for a device before the summary.
    """

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        """Opens the behaviour's event file.

        Args:
            folder: `<results>/<run>/<behaviour>`; old event files go, unless resuming.
            resume_step: the step that a resumed run goes on from; points after it are taken back.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if resume_step is None:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        purge_step = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)
        self._values: dict[str, list[float | Tensor]] = defaultdict(list)
        self._sums: dict[str, float] = defaultdict(float)
        self._latest: dict[str, float] = {}
        self._largest: dict[str, float] = {}
        self._histograms: dict[str, list[float]] = defaultdict(list)
        self.lesson_numbers: Mapping[str, int] = {}
        """Of environment parameters; every summary shows them."""

    def add(self, statistics: Mapping[str, float | Tensor]) -> None:
        """Takes one value per tag; the summary shows their mean."""
        for tag, value in statistics.items():
            self._values[tag].append(value)

    def add_largest(self, tag: str, value: float) -> None:
        """Takes a value; the summary shows the largest."""
        self._largest[tag] = max(value, self._largest.get(tag, value))

    def add_user_stat(self, tag: str, value: float, aggregation: str, simulator: int) -> None:
        """Takes a value that the simulator recorded (Unity's StatsRecorder).

        Args:
            tag: the user's key.
            value: as sent.
            aggregation: AVERAGE, MOST_RECENT, SUM or HISTOGRAM.
            simulator: MOST_RECENT is taken from simulator 0 only, as in ML-Agents.
        """
        if aggregation == "SUM":
            self._sums[tag] += value
        elif aggregation == "HISTOGRAM":
            self.add_to_histogram(tag, value)
        elif aggregation == "AVERAGE":
            self._values[tag].append(value)
        elif simulator == 0:
            self._latest[tag] = value

    def add_to_histogram(self, tag: str, value: float) -> None:
        """Takes a value of which the summary shows the mean, and the distribution."""
        self._values[tag].append(value)
        self._histograms[tag].append(value)

    def add_episodes(self, returns: NDArray[np.float64], lengths: NDArray[np.int64]) -> None:
        """Takes returns and lengths (in transitions) of episodes that have ended."""
        if not len(returns):
            return
        for value in returns.tolist():
            self.add_to_histogram("Environment/Cumulative Reward", value)
        # ML-Agents does not count the terminal transition; curves stay comparable.
        self._values["Environment/Episode Length"].extend((lengths - 1).tolist())

    def write(self, step: int) -> dict[str, float]:
        """Writes everything collected at `step`, and gives the scalars that were written."""
        scalars = {tag: _mean(values) for tag, values in self._values.items()}
        scalars |= self._sums
        scalars |= self._latest
        scalars |= self._largest
        lessons = self.lesson_numbers.items()
        scalars |= {f"Environment/Lesson Number/{name}": float(n) for name, n in lessons}
        for tag, scalar in scalars.items():
            self._writer.add_scalar(tag, scalar, step)
        for tag, drawn in self._histograms.items():
            self._writer.add_histogram(f"{tag}_hist", np.asarray(drawn), step)
        self._values.clear()
        self._sums.clear()
        self._latest.clear()
        self._largest.clear()
        self._histograms.clear()
        return scalars

    def write_settings(self, settings: BehaviorSettings, step: int) -> None:
        """Writes the behaviour's settings as text, where ML-Agents has them."""
        lines = [f"    {line}" for line in settings.model_dump_json(indent=2).splitlines()]
        self._writer.add_text("Hyperparameters", "\n".join(lines), step)

    def flush(self) -> None:
        """Makes everything written visible to TensorBoard."""
        self._writer.flush()

    def close(self) -> None:
        """Ends the event file."""
        self._writer.close()


def _mean(values: list[float | Tensor]) -> float:
    return float(np.mean([float(value) for value in values]))


def print_no_writer_errors() -> None:
    """Leaves an error of TensorBoard's writer thread to whoever writes or closes next.

    The writer raises it there, and in its own thread too, where Python would print a trace of it:
    a full disk is one message, not two. For programs; it changes a hook of the whole process.
    """
    before = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith("tensorboard."):
            before(error)

    threading.excepthook = hook
