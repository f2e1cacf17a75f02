"""The gRPC side of one simulator: a port, and calls that wait for an answer.

The simulator calls Exchange; the server hands on the raw bytes, and whoever took the call answers
when it likes: the simulator is blocked until then. No protobuf class is in the way, and no thread:
all happens in the event loop of whoever waits for calls.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EADDRINUSE
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import DecodeError

from envs.bridge.event_loop import READABLE, WRITABLE, EventLoop
from envs.bridge.http2 import RECEIVE_BYTES
from envs.bridge.http2_server import (
    Cancelled,
    ErrorCode,
    Http2Error,
    Request,
    ServerConnection,
    Status,
)
from envs.bridge.proto import columns_pb2
from envs.bridge.protocol import EXCHANGE, STATUS_CLOSING
from envs.errors import SimulatorDidNotStartError
from envs.tls import LOOPBACK, address_words

NUM_WAITING_DIALLERS = 8
MOST_DIALLERS = 32  # per port, where one is expected; beyond them the oldest idle one is hung up
GIVEN_UP = "The trainer has given this simulator up."
GOODBYE = columns_pb2.Message(header={"status": STATUS_CLOSING}).SerializeToString()


class Call:
    """One Exchange of one simulator that waits for its answer."""

    __slots__ = ("_answer", "data", "generation")

    def __init__(self, data: bytes, generation: int, answer: Callable[[Call, bytes], None]) -> None:
        self.data = data
        self.generation = generation
        self._answer = answer

    def answer(self, data: bytes) -> None:
        """Lets the simulator go on; never blocks. Nothing happens when it has hung up."""
        self._answer(self, data)


class ConnectionLost(NamedTuple):
    """The simulator hung up while it waited for the answer to this call."""

    call: Call


class SimulatorServer:
    """Listens on one port for one simulator, from the fleet's start to its end.

    Args:
        port: 0 = the operating system picks one.
        loop: serves the port; all methods belong to its thread.
        deliver: gets every Call and ConnectionLost; must not block.
        host: where to listen; elsewhere than on loopback only `GuardedServer` should.

    Raises:
        SimulatorDidNotStartError: the port is in use, or not ours to use.
    """

    def __init__(
        self,
        port: int,
        loop: EventLoop[Any],
        deliver: Callable[[Call | ConnectionLost], None],
        host: str = LOOPBACK,
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self.generation = 0  # how many simulators have been forgotten; stale calls bear a lower one
        self._dialers: dict[Dialer, None] = {}  # in order of arrival
        self._peer: Dialer | None = None  # the simulator
        self._pending: tuple[Call, Dialer, int] | None = None  # with its stream
        self._is_closing = False
        self.last_heard_s = 0.0  # when the simulator has last sent anything, by time.monotonic
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server(
                (host, port), family=family, backlog=NUM_WAITING_DIALLERS
            )
        except OSError as error:
            words = _in_use(host, port) if error.errno == EADDRINUSE else _not_ours(host, error)
            raise SimulatorDidNotStartError(words) from error
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        loop.watch(self._listener, READABLE, self._accept)

    @property
    def is_connected(self) -> bool:
        """Whether somebody has dialled and not hung up."""
        return bool(self._dialers)

    def forget_peer(self) -> None:
        """Makes the next program that dials this port the simulator; ends a call that waits."""
        self.generation += 1
        self._peer = None
        for dialer in self._dialers:
            dialer.is_forgotten = True
        if self._pending is not None:
            (_, dialer, stream), self._pending = self._pending, None
            dialer.refuse(stream, GIVEN_UP)

    def say_goodbye(self) -> None:
        """Answers this and every later call with status 400, which makes the simulator quit."""
        self._is_closing = True
        if self._pending is not None:
            self._answer(self._pending[0], GOODBYE)

    def close(self) -> None:
        """Stops listening and hangs up."""
        self._loop.forget(self._listener)
        self._listener.close()
        for dialer in list(self._dialers):
            dialer.say_that_all_is_over()

    def _accept(self, ready: int) -> None:
        with suppress(OSError):  # it has hung up already
            wire, _ = self._listener.accept()
            self._admit(wire, ServerConnection(EXCHANGE))

    def _admit(self, wire: Wire, connection: ServerConnection) -> Dialer:
        """Serves a dialler, in the place of another one if there are too many."""
        if len(self._dialers) >= MOST_DIALLERS:
            next(dialer for dialer in self._dialers if dialer is not self._peer).hang_up()
        dialer = Dialer(wire, connection, self._loop, self._take, self._lose, self._hear)
        self._dialers[dialer] = None
        return dialer

    def _hear(self, dialer: Dialer) -> None:
        if dialer is self._peer:
            self.last_heard_s = time.monotonic()

    def _take(self, dialer: Dialer, request: Request) -> None:
        """Takes a call, or refuses it."""
        stream, data = request
        if self._is_closing:
            dialer.answer(stream, GOODBYE)
            return
        refusal = self._refusal(dialer, data)
        if refusal is not None:
            dialer.refuse(stream, refusal)
            return
        call = Call(data, self.generation, self._answer)
        dialer.is_forgotten = False
        self._peer, self._pending = dialer, (call, dialer, stream)
        self._deliver(call)

    def _lose(self, dialer: Dialer, stream: int | None) -> None:
        """Hears that a call was given up by its simulator; None: everything was."""
        if stream is None:
            self._dialers.pop(dialer, None)
        if self._pending is None:
            return
        call, waiting, pending_stream = self._pending
        if waiting is dialer and stream in (None, pending_stream):
            self._pending = None
            self._deliver(ConnectionLost(call))

    def _answer(self, call: Call, data: bytes) -> None:
        if self._pending is None or self._pending[0] is not call:
            return
        (_, dialer, stream), self._pending = self._pending, None
        dialer.answer(stream, data)

    def _refusal(self, dialer: Dialer, data: bytes) -> str | None:
        """Gives why a call cannot be taken, None when it can."""
        if dialer.is_forgotten and not _opens_a_session(data):
            return GIVEN_UP
        if self._peer is None:
            return None
        if dialer is not self._peer and (self._pending is not None or _opens_a_session(data)):
            return (
                f"Port {self.port} already serves the simulator at {self._peer.address}. Every "
                "simulator needs a port of its own: start this one with another --mlagents-port, "
                "or end the other one first."
            )
        if self._pending is not None:
            return "This simulator's previous call still waits for its answer."
        return None


class Wire(Protocol):
    """What a dialler needs of a socket, and `TlsWire` has too."""

    def setblocking(self, flag: bool, /) -> None:
        """As a socket's."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """As a socket's."""

    def getpeername(self) -> Any:
        """As a socket's."""

    def fileno(self) -> int:
        """As a socket's."""

    def recv(self, num_bytes: int, /) -> bytes:
        """As a socket's."""

    def send(self, data: bytearray, /) -> int:
        """As a socket's."""

    def close(self) -> None:
        """As a socket's."""


class Dialer:
    """Whoever has dialled a port: its socket, and what it says."""

    def __init__(
        self,
        wire: Wire,
        connection: ServerConnection,
        loop: EventLoop[Any],
        take: Callable[[Dialer, Request], None],
        lose: Callable[[Dialer, int | None], None],
        hear: Callable[[Dialer], None],
    ) -> None:
        self.is_forgotten = False  # its simulator was given up
        self.on_end: Callable[[], None] | None = None  # called before the connection is closed
        self._wire = wire
        self._loop = loop
        self._take = take
        self._lose = lose
        self._hear = hear
        self._connection = connection
        wire.setblocking(False)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = address_words(*wire.getpeername()[:2])
        loop.watch(wire, READABLE, self._serve)

    def answer(self, stream: int, message: bytes) -> None:
        """Answers a call of this connection."""
        self._connection.answer(stream, message)
        self._send()

    def refuse(self, stream: int, why: str) -> None:
        """Ends a call of this connection with an error."""
        self._connection.refuse(stream, Status.FAILED_PRECONDITION, why)
        self._send()

    def say_that_all_is_over(self) -> None:
        """Sends what can be sent at once, and hangs up."""
        self._connection.go_away(ErrorCode.NO_ERROR, "The trainer has ended.")
        self._send()
        self.hang_up()

    def _serve(self, ready: int) -> None:
        if self._wire.fileno() < 0:
            return  # lost its place to a newcomer that was found ready at the same moment
        if ready & WRITABLE:
            self._send()
        if not ready & READABLE:
            return
        try:
            data = self._wire.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up()
            return
        self._hear(self)
        try:
            news = self._connection.receive(data)
        except Http2Error:
            self._send()
            self.hang_up()
            return
        self._send()
        for what in news:
            if isinstance(what, Cancelled):
                self._lose(self, what.stream)
            else:
                self._take(self, what)

    def _send(self) -> None:
        """Sends what can be sent without waiting; the loop sends the rest."""
        outgoing = self._connection.outgoing
        if not outgoing or self._wire.fileno() < 0:
            return
        try:
            sent = self._wire.send(outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:  # reading will tell that it has hung up
            outgoing.clear()
            return
        del outgoing[:sent]
        self._loop.watch_for(self._wire, READABLE | WRITABLE if outgoing else READABLE)

    @property
    def is_known(self) -> bool:
        """Whether it has made a call that was taken."""
        return self._connection.is_known

    def hang_up(self) -> None:
        """Ends the connection; what was to be sent is not."""
        if self.on_end is not None:
            self.on_end()
        self._loop.forget(self._wire)
        self._wire.close()
        self._lose(self, None)


def _opens_a_session(data: bytes) -> bool:
    """Tells whether a message is a simulator's first."""
    try:
        output = columns_pb2.Message.FromString(data).unity_output
    except DecodeError:
        return False
    return output.HasField("rl_initialization_output") and not output.HasField("rl_output")


def _not_ours(host: str, error: OSError) -> str:
    return (
        f"nothing can listen on {host}: {error.strerror or error}. listen_settings.host (--host) "
        "is an address of this machine, or 0.0.0.0 for all of them; ports below 1024 are the "
        "system's."
    )


def _in_use(host: str, port: int) -> str:
    user = _listener(port)
    return (
        f"port {port} on {host} is in use{f' by {user}' if user else ''}; the trainer needs it "
        "to talk to a simulator. End that program (perhaps another training run, or one left from "
        "before), or choose other ports with --base-port. Builds need no --base-port: without it "
        "free ports are picked."
    )


def _listener(port: int) -> str | None:
    """Gives the program that listens on a port, where Linux tells us; None otherwise."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[1].endswith(f":{port:04X}") and columns[3] == "0A":  # 0A = LISTEN
                inodes.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if inodes.intersection(_open_files(process)):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:  # not ours to look into, or gone meanwhile
            continue
    return None


def _open_files(process: Path) -> Iterator[str]:
    """Gives what a process's file descriptors stand for; they come and go while we look."""
    for link in (process / "fd").iterdir():
        with suppress(OSError):
            yield str(link.readlink())
