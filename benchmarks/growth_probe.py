"""Runs ppo-train and says at every update where the time went so far; see `growth.py`.

Same arguments as ppo-train. Nothing that is measured is changed: the run's own timers are read, and
calls of the step log, which these count as part of inference, are timed.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.behavior import Behavior
from trainer.cli.main import main
from trainer.rollout.steplog import StepLog
from trainer.timers import Timers

MARK = "[bench] "
STEP_LOG = ("append", "record", "record_choices", "close", "abandon")
STATUS = ("VmRSS", "VmHWM")


class Probe:
    """Counts the step log's time, and prints everything at the beginning of each update."""

    def __init__(self) -> None:
        self.step_log_s = 0.0
        self.timers: list[Timers] = []

    def install(self) -> None:
        """Puts itself around the methods that it listens to."""
        for name in STEP_LOG:
            setattr(StepLog, name, self._timed(getattr(StepLog, name)))
        self._before(Timers, "__init__", lambda timers: self.timers.append(timers))
        self._before(Behavior, "introduction", self._mark)
        self._before(Behavior, "learn", self._mark)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self.step_log_s += time.perf_counter() - started

        return timed

    def _before(self, owner: type, name: str, hear: Callable[[Any], object]) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def heard(this: Any, *arguments: Any, **named: Any) -> Any:
            hear(this)
            return method(this, *arguments, **named)

        setattr(owner, name, heard)

    def _mark(self, behavior: Behavior) -> None:
        mark = {
            "wall_s": time.perf_counter(),
            "step": behavior.step,
            "step_log_s": self.step_log_s,
            "seconds": self.timers[-1].seconds(),
            "megabytes": {name: resident_mb(name) for name in STATUS},
        }
        print(MARK + json.dumps(mark), flush=True)


def resident_mb(field: str) -> float:
    """Reads what this process has resident, in 1e6 bytes: now (VmRSS), or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    Probe().install()
    sys.exit(main(sys.argv[1:]))
