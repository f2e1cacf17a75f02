"""What a run says: a live view on a terminal, one plain line per event elsewhere.

The plain lines are ML-Agents', so that programs that read them go on working.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.live import Live
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from trainer.reporter import Reporter, RunProgress, RunSummary, clock, shares_line

PLAIN_FORMAT = "[%(levelname)s] %(message)s"
DEBUG_FORMAT = "%(asctime)s %(levelname)s [%(filename)s:%(lineno)d] %(message)s"


def summary_line(summary: RunSummary) -> str:
    """Gives ML-Agents' console line for one summary."""
    state = "Training." if summary.is_training else "Not Training."
    start = f"{summary.behavior}. Step: {summary.step}. Time Elapsed: {summary.elapsed_s:.3f} s. "
    if summary.mean_reward is None or summary.std_of_reward is None:
        return f"{start}No episode was completed since last summary. {state}"
    return (
        f"{start}Mean Reward: {summary.mean_reward:.3f}. "
        f"Std of Reward: {summary.std_of_reward:.3f}. {state}"
    )


class PlainReporter(Reporter):
    """One line per event on standard output, through `logging`."""

    def __init__(self, debug: bool = False) -> None:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(DEBUG_FORMAT if debug else PLAIN_FORMAT))
        _install(handler, debug)

    def summary(self, summary: RunSummary) -> None:
        """Writes ML-Agents' line, and one about where the time went."""
        _tell(self, summary)


class LiveReporter(Reporter):
    """A table at the foot of the terminal that follows the run; events scroll above it."""

    def __init__(self, debug: bool = False) -> None:
        self._console = Console()
        self._bars = Progress(
            TextColumn("[bold]{task.fields[label]}"),
            BarColumn(bar_width=None),
            TextColumn(
                "{task.fields[percent]:.1f} %  step {task.fields[step]:,} of "
                "{task.fields[max_steps]:,}"
            ),
            console=self._console,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        handler = RichHandler(
            console=self._console,
            show_path=debug,
            show_time=False,
            markup=False,
            highlighter=NullHighlighter(),  # None would be the default one
            rich_tracebacks=False,
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
        _install(handler, debug)

    def __enter__(self) -> LiveReporter:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def summary(self, summary: RunSummary) -> None:
        """Writes ML-Agents' line, and one about where the time went, above the table."""
        _tell(self, summary)

    def progress(self, progress: RunProgress) -> None:
        """Redraws the table."""
        table = Table.grid(padding=(0, 2), expand=True)
        for behavior in progress.behaviors:
            fields: dict[str, Any] = {
                "label": behavior.name,
                "percent": 100 * behavior.step / behavior.max_steps,
                "step": behavior.step,
                "max_steps": behavior.max_steps,
            }
            if behavior.name not in self._tasks:
                task = self._bars.add_task("", total=behavior.max_steps, **fields)
                self._tasks[behavior.name] = task
            self._bars.update(self._tasks[behavior.name], completed=behavior.step, **fields)
        table.add_row(self._bars)
        for behavior in progress.behaviors:
            table.add_row(_behavior_row(behavior.name, behavior.mean_reward, behavior.mean_length))
        left = "?" if progress.left_s is None else clock(progress.left_s)
        pace = "paused" if progress.is_paused else f"{progress.steps_per_s:,.0f} steps/s"
        simulators = f"simulators {progress.num_simulators}"
        table.add_row(f"{pace}   elapsed {clock(progress.elapsed_s)}   left {left}   {simulators}")
        table.add_row(shares_line(progress.shares, progress.learner_share))
        if progress.bottleneck is not None:
            table.add_row(f"up to the last summary: {progress.bottleneck}")
        table.add_row(f"last checkpoint: {progress.last_checkpoint or 'none yet'}")
        self._live.update(table)


def _tell(reporter: Reporter, summary: RunSummary) -> None:
    reporter.info(summary_line(summary))
    if summary.bottleneck is not None:
        reporter.info(summary.bottleneck)


def _behavior_row(name: str, mean_reward: float | None, mean_length: float | None) -> str:
    if mean_reward is None or mean_length is None:
        return f"{name}: no episode has ended yet"
    return f"{name}: mean reward {mean_reward:,.2f}   mean length {mean_length:,.0f}   (last 100)"


def _install(handler: logging.Handler, debug: bool) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    for noisy in ("matplotlib", "PIL", "hpack"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def make_reporter(debug: bool) -> Reporter:
    """Gives the live view on a terminal, plain lines elsewhere and when debugging."""
    if sys.stdout.isatty() and not debug:
        return LiveReporter()
    return PlainReporter(debug)
