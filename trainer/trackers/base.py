"""What a tracker has to offer. Everything in it may wait for a network, and may raise anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trainer.trackers.journal import Point


class TrackedRun(Protocol):
    """One behaviour's curves at one tracker."""

    newest_step: int | None
    """Of what the tracker has already; None: nothing."""

    @property
    def id(self) -> str:
        """By which the tracker finds it again."""
        ...

    def log(self, point: Point) -> None:
        """Sends a point; one that arrived before is not sent again."""
        ...

    def finish(self, exit_code: int | None) -> None:
        """Says how the run ended; None: it was killed."""
        ...


class Tracker(Protocol):
    """Somewhere that tracked runs are kept."""

    @property
    def place(self) -> str:
        """Where: tracked runs of another place cannot go on here."""
        ...

    def begin(self, behavior: str, parameters: Mapping[str, str]) -> TrackedRun:
        """Makes a new tracked run; `parameters` are shown beside its curves."""
        ...

    def go_on(self, id: str, behavior: str, newest_step: int | None) -> TrackedRun | None:
        """Gives a tracked run back; None: the tracker has it no more.

        Args:
            id: of the tracked run.
            behavior: whose it is.
            newest_step: that was noted here; a tracker that can be asked knows it better.
        """
        ...

    def close(self) -> None:
        """Ends everything that the tracker has running; tracked runs are finished before."""
        ...
