"""The gRPC side of one simulator: a port, and calls that wait for an answer.

The simulator calls Exchange; a handler thread puts the raw bytes on the fleet's queue and waits.
No protobuf class is in the way, and whoever takes the call from the queue answers when it likes:
the simulator is blocked until then.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

import grpc
from google.protobuf.message import DecodeError

from envs.bridge.proto import columns_pb2
from envs.bridge.protocol import CHANNEL_OPTIONS, METHOD, SERVICE, STATUS_CLOSING
from envs.errors import SimulatorDidNotStartError

P = ParamSpec("P")
T = TypeVar("T")

LOOPBACK = "127.0.0.1"
# One call waits for the trainer; the others are there to refuse whoever else dials the port.
NUM_HANDLERS = 3
GIVEN_UP = "The trainer has given this simulator up."
GOODBYE = columns_pb2.Message(header={"status": STATUS_CLOSING}).SerializeToString()


class Call:
    """One Exchange of one simulator that waits for its answer."""

    __slots__ = ("_answer", "data", "generation")

    def __init__(self, data: bytes, generation: int) -> None:
        self.data = data
        self.generation = generation
        self._answer: SimpleQueue[bytes | None] = SimpleQueue()

    def answer(self, data: bytes) -> None:
        """Lets the simulator go on; never blocks."""
        self._answer.put(data)

    def abandon(self) -> None:
        """Ends the call without an answer, because nobody is there to hear it."""
        self._answer.put(None)

    def wait(self) -> bytes | None:
        """Waits for the answer; None when the call was abandoned."""
        return self._answer.get()


class DaemonThreads(Executor):
    """Threads that wait for calls, and that never keep the interpreter from ending.

    Those of ThreadPoolExecutor are joined at exit, which would hang a trainer that fails without
    closing its fleet while a simulator waits for an answer.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._num_threads = num_threads
        for number in range(num_threads):
            Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Lets the next free thread call a function."""
        future: Future[T] = Future()
        self._work.put((future, partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the threads when they have done their work; waits for nobody."""
        for _ in range(self._num_threads):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # handed on to whoever holds the future
                    future.set_exception(error)


class ConnectionLost(NamedTuple):
    """The simulator hung up while it waited for the answer to this call."""

    call: Call


class SimulatorServer:
    """Listens on one loopback port for one simulator, from the fleet's start to its end.

    Args:
        port: 0 = the operating system picks one.
        deliver: gets every Call and ConnectionLost, in handler threads; must not block.

    Raises:
        SimulatorDidNotStartError: the port is in use.
    """

    def __init__(self, port: int, deliver: Callable[[Call | ConnectionLost], None]) -> None:
        self._deliver = deliver
        self._lock = Lock()
        self.generation = 0  # how many simulators have been forgotten; stale calls bear a lower one
        self._peer: str | None = None
        self._forgotten: str | None = None  # the peer before; calls of it may still be under way
        self._pending: Call | None = None
        self._is_closing = False
        if port:
            _require_free(port)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._exchange
        )
        self._threads = DaemonThreads(NUM_HANDLERS, f"exchange-{port}")
        self._server = grpc.server(
            self._threads,  # type: ignore[arg-type]  # gRPC calls nothing of it but submit
            handlers=[grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})],
            options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)],
        )
        try:
            self.port = self._server.add_insecure_port(f"{LOOPBACK}:{port}")
        except RuntimeError as error:
            raise SimulatorDidNotStartError(_in_use(port)) from error
        self._server.start()

    def forget_peer(self) -> None:
        """Makes the next program that dials this port the simulator; ends a call that waits."""
        with self._lock:
            self.generation += 1
            self._forgotten, self._peer = self._peer or self._forgotten, None
            pending, self._pending = self._pending, None
        if pending is not None:
            pending.abandon()

    def say_goodbye(self) -> None:
        """Answers this and every later call with status 400, which makes the simulator quit."""
        with self._lock:
            self._is_closing = True
            pending = self._pending
        if pending is not None:
            pending.answer(GOODBYE)

    def stop(self, grace_s: float) -> Event:
        """Stops listening; the event comes when answers are out, after `grace_s` at the latest."""
        stopped = self._server.stop(grace_s)
        self._threads.shutdown(wait=False)
        return stopped

    def _exchange(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Serves one call, in a thread of its own; waits for the trainer's answer."""
        peer = context.peer()
        with self._lock:
            call = Call(data, self.generation)
            refusal = self._refusal(peer, data)
            if refusal is None:
                self._peer, self._pending = peer, call
            is_closing = self._is_closing
        if is_closing:
            return GOODBYE
        if refusal is not None:
            _refuse(context, refusal)

        def ended() -> None:
            with self._lock:
                is_broken = self._pending is call
                if is_broken:
                    self._pending = None
            if is_broken:
                call.abandon()
                self._deliver(ConnectionLost(call))

        # The call goes first, so that whoever reads the queue knows it before it hears of its end.
        self._deliver(call)
        if not context.add_callback(ended):
            ended()
        answer = call.wait()
        with self._lock:
            if self._pending is call:
                self._pending = None
        if answer is None:
            _refuse(context, GIVEN_UP)
        return answer

    def _refusal(self, peer: str, data: bytes) -> str | None:
        """Gives why a call cannot be taken, None when it can."""
        if self._is_closing:
            return None
        if peer == self._forgotten != self._peer and not _opens_a_session(data):
            return GIVEN_UP  # a successor that happens to dial from the same port introduces itself
        if self._peer is None:
            return None
        if peer != self._peer and (self._pending is not None or _opens_a_session(data)):
            return (
                f"Port {self.port} already serves the simulator at {self._peer}. Every simulator "
                "needs a port of its own: start this one with another --mlagents-port, or end the "
                "other one first."
            )
        if self._pending is not None:
            return "This simulator's previous call still waits for its answer."
        return None


def _refuse(context: grpc.ServicerContext, why: str) -> NoReturn:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)
    raise AssertionError("abort always raises")


def _opens_a_session(data: bytes) -> bool:
    """Tells whether a message is a simulator's first."""
    try:
        output = columns_pb2.Message.FromString(data).unity_output
    except DecodeError:
        return False
    return output.HasField("rl_initialization_output") and not output.HasField("rl_output")


def _require_free(port: int) -> None:
    """Raises SimulatorDidNotStartError when another program listens on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise SimulatorDidNotStartError(_in_use(port)) from error


def _in_use(port: int) -> str:
    user = _listener(port)
    return (
        f"port {port} on {LOOPBACK} is in use{f' by {user}' if user else ''}; the trainer needs it "
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
