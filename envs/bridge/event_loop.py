"""Waits for sockets and for other threads at once, in the thread that asks."""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

E = TypeVar("E")


class Watchable(Protocol):
    """A socket, or what stands for one."""

    def fileno(self) -> int:
        """As a socket's."""


READABLE, WRITABLE = selectors.EVENT_READ, selectors.EVENT_WRITE


class EventLoop(Generic[E]):
    """A queue of events; whoever takes from it serves the sockets meanwhile.

    `put` and `wake` may be called by any thread, all else by the one that takes.
    """

    def __init__(self) -> None:
        self._events: SimpleQueue[E] = SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wake_up, self._alarm = socket.socketpair()
        self._wake_up.setblocking(False)
        self._alarm.setblocking(False)
        self.watch(self._alarm, READABLE, self._silence)

    def watch(self, wire: Watchable, what: int, on_ready: Callable[[int], None]) -> None:
        """Calls `on_ready` with READABLE, WRITABLE or both whenever a socket is so."""
        self._selector.register(wire, what, on_ready)

    def watch_for(self, wire: Watchable, what: int) -> None:
        """Changes what a socket is watched for."""
        key = self._selector.get_key(wire)
        if key.events != what:
            self._selector.modify(wire, what, key.data)

    def forget(self, wire: Watchable) -> None:
        """No longer watches a socket."""
        with suppress(KeyError):
            self._selector.unregister(wire)

    def put(self, event: E) -> None:
        """Adds an event, from this thread or another."""
        self._events.put(event)

    def put_from_another_thread(self, event: E) -> None:
        """Adds an event and ends a wait."""
        self._events.put(event)
        with suppress(OSError):  # full: it will wake anyway; closed: nobody is there to wake
            self._wake_up.send(b"!")

    def serve(self, timeout_s: float | None) -> None:
        """Serves sockets that are ready; waits for the first up to `timeout_s`, None = for ever."""
        for key, ready in self._selector.select(timeout_s):
            key.data(ready)

    def take(self) -> E:
        """Gives an event that is there.

        Raises:
            Empty: there is none; sockets were not asked.
        """
        return self._events.get_nowait()

    def wait(self, timeout_s: float | None) -> E:
        """Gives the next event, serving sockets until it comes.

        Raises:
            Empty: none came within `timeout_s`; None = wait for ever.
        """
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with suppress(Empty):
                return self._events.get_nowait()
            left_s = None if limit is None else limit - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise Empty
            self.serve(left_s)

    def close(self) -> None:
        """Ends the loop; sockets that it watched stay open. No harm when it has ended."""
        self._selector.close()
        self._wake_up.close()
        self._alarm.close()

    def _silence(self, ready: int) -> None:
        with suppress(BlockingIOError):
            self._alarm.recv(4096)


class TimedEventLoop(EventLoop[E]):
    """An event loop that also does things at their time.

    A class of its own, since a loop that serves this machine's own simulators needs no clock, and
    looks at none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._number = count()  # so that equal moments need no order among what is to be done
        self._due: list[tuple[float, int, Callable[[], None]]] = []  # a heap

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Calls `act` in `delay_s` seconds, or as soon as the loop is served after that."""
        heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._number), act))

    def serve(self, timeout_s: float | None) -> None:
        """Serves sockets and what is due; waits for the first of them up to `timeout_s`."""
        if self._due:
            left_s = max(0.0, self._due[0][0] - time.monotonic())
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        super().serve(timeout_s)
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
