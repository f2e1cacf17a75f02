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


@dataclass(frozen=True, slots=True)
class BehaviorProgress:
    """One behaviour now."""

    name: str
    step: int
    max_steps: int
    mean_reward: float | None  # of the last 100 episodes
    mean_length: float | None


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


def shares_line(shares: Mapping[str, float]) -> str:
    """Says where the time goes, such as `simulators 61 % · inference 9 % · learning 30 %`."""
    return " · ".join(f"{part} {100 * share:.0f} %" for part, share in shares.items())
