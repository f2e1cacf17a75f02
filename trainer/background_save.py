"""Writes in a thread while the loop goes on: checkpoints wait for disks, simulators need not.

Only the writing happens there. What is written was copied before, and what follows from it (events,
messages, the next plans) happens in the loop, once it asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(slots=True)
class _Job:
    write: Callable[[], Any]
    then: Callable[[Any], None]
    result: Any = None
    error: BaseException | None = None


class BackgroundWriter:
    """Carries out jobs one after the other. All methods belong to one thread, the loop's."""

    def __init__(self) -> None:
        self._waiting: list[_Job] = []
        self._current: _Job | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there is something whose end the loop has not taken note of."""
        return self._current is not None or bool(self._waiting)

    def start(self, write: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Begins a job, or puts it behind those that were begun.

        Args:
            write: is called in the thread; must not touch what the loop changes.
            then: is called with its result by `collect` or `wait`.
        """
        self._waiting.append(_Job(write, then))
        self._start_next()

    def collect(self) -> None:
        """Takes note of a job that has ended; never waits.

        Raises:
            Exception: whatever the job raised.
        """
        job, thread = self._current, self._thread
        if job is None or thread is None or thread.is_alive():
            return
        thread.join()
        self._current = self._thread = None
        self._start_next()
        if job.error is not None:
            raise job.error
        job.then(job.result)

    def wait(self) -> None:
        """Waits until all jobs have ended.

        Raises:
            Exception: the first that a job raised; the others were carried out all the same.
        """
        failures: list[BaseException] = []
        while self.is_busy:
            if self._thread is not None:
                self._thread.join()
            try:
                self.collect()
            except Exception as failure:  # raised below, once the others are safe
                failures.append(failure)
        if failures:
            raise failures[0]

    def _start_next(self) -> None:
        if self._current is None and self._waiting:
            job = self._current = self._waiting.pop(0)
            # Not a daemon: the interpreter does not end in the middle of a checkpoint.
            self._thread = threading.Thread(target=_carry_out, args=(job,), name="save")
            self._thread.start()


def _carry_out(job: _Job) -> None:
    try:
        job.result = job.write()
    except BaseException as error:  # raised in the loop
        job.error = error


def copied(value: Any) -> Any:
    """Gives a state with tensors of its own, which nobody else changes; (…) -> (…) each."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
