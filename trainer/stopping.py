"""Signals that ask a run to end: the loop ends at its next turn, saves, and says so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [signal.SIGINT, signal.SIGTERM] + (
    [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # not on Windows
)


class StopRequest:
    """Remembers the first signal; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 0 if self.signal is None else 128 + self.signal.value

    def _remember(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self.signal is not None:
            signal.signal(received, signal.SIG_DFL)
            signal.raise_signal(received)
        self.signal = received

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Catches the signals inside the block; `nohup` goes on to keep SIGHUP away."""
        before = {
            number: signal.signal(number, self._remember)
            for number in SIGNALS
            if not (number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN)
        }
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
