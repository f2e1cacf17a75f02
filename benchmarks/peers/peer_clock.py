"""What all runners of peers share: their arguments, and how steps per second are counted.

Whole cycles of collecting and updating count, from the end of the first update to the end of the
last. The runners are scripts of the peer's own venv; they print one line of JSON as their last.
"""

from __future__ import annotations

import argparse
import json
import time


def parse(parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """Reads the work: the same words for every peer."""
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--env", required=True, help="a Gymnasium id")
    parser.add_argument("--updates", type=int, required=True, help="that are measured")
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=256, help="of each environment, per update")
    parser.add_argument("--batch", type=int, default=64, help="rows of a minibatch")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64)
    return parser.parse_args()


class Clock:
    """Remembers when each update ended."""

    def __init__(self, steps_per_update: int) -> None:
        self._steps_per_update = steps_per_update
        self._ended_s: list[float] = []

    def update_ended(self) -> None:
        """To be called at the end of every update."""
        self._ended_s.append(time.perf_counter())

    def print_result(self) -> None:
        """Prints steps per second, and over how many updates.

        Raises:
            RuntimeError: fewer than two updates were heard of.
        """
        num_updates = len(self._ended_s) - 1
        if num_updates < 1:
            raise RuntimeError(f"{len(self._ended_s)} updates were heard of, 2 or more expected")
        seconds = self._ended_s[-1] - self._ended_s[0]
        rate = num_updates * self._steps_per_update / seconds
        print(json.dumps({"steps_per_s": round(rate, 1), "updates": num_updates}))
