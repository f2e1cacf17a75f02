"""What a run tells its user, without saying how it looks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

logger = logging.getLogger("ppo-train")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One behaviour at a multiple of its `summary_freq`."""

    behavior: str
    step: int
    elapsed_s: float
    mean_reward: float | None  # None: no episode was completed
    std_of_reward: float | None
    is_training: bool
    bottleneck: str | None = None  # where the time since the last summary went; None: told already


@dataclass(frozen=True, slots=True)
class BehaviorProgress:
    """One behaviour now."""

    name: str
    step: int
    max_steps: int
    mean_reward: float | None  # of the last 100 episodes
    mean_length: float | None


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a run was between its last two summaries; None: there was none, or not told."""

    collecting_steps_per_s: float | None
    seconds_per_update: float | None
    decisions_per_pass: float | None
    idle_cores: float | None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The whole run now."""

    behaviors: tuple[BehaviorProgress, ...]
    steps_per_s: float  # over the last seconds
    elapsed_s: float
    left_s: float | None  # None: cannot be said yet
    shares: Mapping[str, float]  # of the time, by part of the loop
    num_simulators: int
    last_checkpoint: str | None
    num_restarts: int  # of simulators
    num_checkpoints: int  # since this start
    is_paused: bool
    learner_share: float | None = None  # of the time, beside the loop; None: it learns in turn
    bottleneck: str | None = None  # between the last two summaries
    speed: Speed | None = None  # likewise


class Reporter:
    """Events go to `logging`; a subclass may show progress too. A context manager."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def info(self, message: str) -> None:
        """Says that something happened."""
        logger.info(message)

    def warning(self, message: str) -> None:
        """Says that the user should look at something."""
        logger.warning(message)

    def error(self, message: str) -> None:
        """Says why the run stops."""
        logger.error(message)

    def summary(self, summary: RunSummary) -> None:
        """Shows a behaviour's statistics; once per `summary_freq`."""

    def progress(self, progress: RunProgress) -> None:
        """Shows how far the run is; a few times per second."""


def shares_line(shares: Mapping[str, float], learner: float | None = None) -> str:
    """Says where the time goes, such as `simulators 61 % · inference 9 % · learning 30 %`.

    Args:
        shares: of the parts of the loop.
        learner: share of the same time in which the learner was busy beside it, if it was.
    """
    line = " · ".join(f"{part} {100 * share:.0f} %" for part, share in shares.items())
    return line if learner is None else f"{line}; beside it the learner, busy {100 * learner:.0f} %"


def clock(seconds: float) -> str:
    """Gives hours, minutes and seconds, such as 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


def status_text(progress: RunProgress) -> str:
    """Says how a run is doing, in a few lines."""
    lines = []
    for behavior in progress.behaviors:
        reward = "no episode has ended yet"
        if behavior.mean_reward is not None:
            reward = f"mean reward {behavior.mean_reward:,.3f} (last 100 episodes)"
        lines.append(f"{behavior.name}: step {behavior.step:,} of {behavior.max_steps:,}; {reward}")
    left = "?" if progress.left_s is None else clock(progress.left_s)
    pace = "paused" if progress.is_paused else f"{progress.steps_per_s:,.0f} steps/s"
    lines += [
        f"{pace}   elapsed {clock(progress.elapsed_s)}   left {left}",
        f"simulators {progress.num_simulators}   restarts {progress.num_restarts}",
        f"checkpoints {progress.num_checkpoints}, the last: {progress.last_checkpoint or 'none'}",
        shares_line(progress.shares, progress.learner_share),
    ]
    if progress.bottleneck is not None:
        lines.append(f"up to the last summary: {progress.bottleneck}")
    return "\n".join(lines)
