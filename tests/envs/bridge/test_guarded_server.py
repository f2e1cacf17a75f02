"""A port for other machines: grpcio's own client dials it, and ours, with and without the token."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty
from typing import TypeVar

import grpc
import pytest
from doors import OTHER_TOKEN, TOKEN, SecureClient, door
from scripted_client import PATIENCE_S, Future, ScriptedClient, bare, greeting

from envs.bridge.event_loop import EventLoop, TimedEventLoop
from envs.bridge.guarded_server import STRANGER_BYTES, GuardedServer
from envs.bridge.http2 import PREFACE, Flag, Frame, frame, settings_frame
from envs.bridge.http2_client import CallError, UnaryConnection, UnauthenticatedError
from envs.bridge.protocol import EXCHANGE
from envs.bridge.server import MOST_DIALLERS, Call, ConnectionLost, SimulatorServer
from envs.bridge.tls_wire import TlsWire
from envs.tls import DoorError, Trust

T = TypeVar("T")
RIGHT = f"Bearer {TOKEN}"


class GuardedPort:
    """A guarded server and the loop that serves it, in the test's own thread."""

    def __init__(self, folder: Path, handshake_timeout_s: float = 20.0) -> None:
        self.loop: TimedEventLoop[Call | ConnectionLost] = TimedEventLoop()
        self.door = door(folder, handshake_timeout_s)
        self.certificate = folder / "cert.pem"
        self.server = GuardedServer(0, self.loop, self.loop.put, self.door)

    def serve_until(self, is_over: Callable[[], bool]) -> None:
        limit = time.monotonic() + PATIENCE_S
        while not is_over():
            assert time.monotonic() < limit
            self.loop.serve(0.01)

    def refusal(self, future: Future) -> grpc.RpcError:
        self.serve_until(future.done)
        error = future.exception(timeout=0)
        assert isinstance(error, grpc.RpcError)
        return error

    def while_serving(self, act: Callable[[], T]) -> T | Exception:
        """Does something that waits, in another thread; gives its result or error."""
        found: list[T | Exception] = []

        def run() -> None:
            try:
                found.append(act())
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.serve_until(lambda: not thread.is_alive())
        return found[0]

    def dialled(self, trust: Trust | None, token: str | None) -> UnaryConnection:
        return UnaryConnection(
            "127.0.0.1", self.server.port, EXCHANGE, 10, trust=trust, token=token
        )

    def called(self, trust: Trust | None, token: str | None) -> bytes:
        return self.dialled(trust, token).call(b"?")

    def close(self) -> None:
        self.server.close()
        self.loop.close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[GuardedPort]:
    port = GuardedPort(tmp_path)
    yield port
    port.close()


def nothing_came(port: GuardedPort) -> bool:
    with pytest.raises(Empty):
        port.loop.take()
    return True


def test_grpcio_with_the_token_is_served(port: GuardedPort) -> None:
    client = SecureClient(port.server.port, port.certificate)
    for data, answer in ((greeting().SerializeToString(), b"welcome"), (b"more", b"go on")):
        future = client.send(data, RIGHT)
        call = port.loop.wait(PATIENCE_S)
        assert isinstance(call, Call)
        assert call.data == data
        call.answer(answer)
        port.serve_until(future.done)
        assert future.result(timeout=0) == answer
    client.close()


@pytest.mark.parametrize(
    ("authorization", "words"),
    [
        (None, "--token-file FILE or the environment variable PPO_TRAIN_TOKEN"),
        (f"Bearer {OTHER_TOKEN}", "The token that was sent is not this trainer's"),
        (f"Bearer {TOKEN}x", "The token that was sent is not this trainer's"),
        (f"Bearer {TOKEN[:-1]}", "The token that was sent is not this trainer's"),
        (TOKEN, "The token that was sent is not this trainer's"),
        ("Bearer ", "The token that was sent is not this trainer's"),
    ],
)
def test_grpcio_without_the_token_is_unauthenticated_and_nothing_is_taken(
    port: GuardedPort, caplog: pytest.LogCaptureFixture, authorization: str | None, words: str
) -> None:
    client = SecureClient(port.server.port, port.certificate)
    for _ in range(3):  # a later call's headers build on those of the first
        error = port.refusal(client.send(b"\xff not protobuf", authorization))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert words in str(error.details())
    assert nothing_came(port)
    assert "refused 127.0.0.1:" in caplog.text
    assert "its token is wrong" in caplog.text or "it sent no token" in caplog.text
    # The same connection may still show the right one.
    future = client.send(greeting().SerializeToString(), RIGHT)
    assert isinstance(port.loop.wait(PATIENCE_S), Call)
    assert not future.done()
    client.close()


def test_plain_grpcio_is_not_served(port: GuardedPort, caplog: pytest.LogCaptureFixture) -> None:
    client = ScriptedClient(port.server.port)
    client.send(greeting())
    port.serve_until(lambda: "does not speak TLS" in caplog.text)
    assert nothing_came(port)
    client.close()


def test_own_client_says_what_is_wrong(port: GuardedPort, tmp_path: Path) -> None:
    pinned = Trust(fingerprint=port.door.fingerprint)
    told = port.while_serving(partial(port.called, None, TOKEN))
    assert isinstance(told, CallError)
    assert "This port speaks TLS only." in str(told)
    for token in (None, OTHER_TOKEN):
        told = port.while_serving(partial(port.called, pinned, token))
        assert isinstance(told, UnauthenticatedError)
        assert "PPO_TRAIN_TOKEN" in str(told)
    told = port.while_serving(partial(port.called, Trust(fingerprint="0" * 64), TOKEN))
    assert isinstance(told, DoorError)
    assert f"fingerprint {port.door.fingerprint}; expected 0000" in str(told)
    door(tmp_path / "other")
    stranger = Trust(ca_file=str(tmp_path / "other" / "cert.pem"))
    told = port.while_serving(partial(port.called, stranger, TOKEN))
    assert isinstance(told, DoorError)
    assert "not trusted here" in str(told)
    assert isinstance(port.while_serving(partial(port.called, Trust(), TOKEN)), DoorError)
    assert nothing_came(port)


@pytest.mark.parametrize("kind", ["fingerprint", "certificate"])
def test_own_client_and_large_messages_both_ways(port: GuardedPort, kind: str) -> None:
    trust = Trust(fingerprint=port.door.fingerprint)
    if kind == "certificate":
        trust = Trust(ca_file=str(port.certificate))
    question, reply = bytes(range(256)) * 20_000, bytes(range(255, -1, -1)) * 30_000
    answers: list[bytes] = []

    def talk() -> None:
        connection = port.dialled(trust, TOKEN)
        answers.extend(connection.call(data) for data in (b"first", question, b"last"))
        connection.close()

    thread = threading.Thread(target=talk)
    thread.start()
    for expected in (b"first", question, b"last"):
        call = port.loop.wait(PATIENCE_S)
        assert isinstance(call, Call)
        assert call.data == expected
        call.answer(reply)
    port.serve_until(lambda: not thread.is_alive())
    assert answers == [reply] * 3


def test_tls_to_a_plain_port_is_told_so() -> None:
    loop: EventLoop[Call | ConnectionLost] = EventLoop()
    server = SimulatorServer(0, loop, loop.put)
    found: list[Exception] = []

    def dial() -> None:
        try:
            UnaryConnection("127.0.0.1", server.port, EXCHANGE, 10, trust=Trust(fingerprint="0"))
        except DoorError as error:
            found.append(error)

    thread = threading.Thread(target=dial)
    thread.start()
    while thread.is_alive():
        loop.serve(0.01)
    assert "127.0.0.1 does not speak TLS 1.3 there" in str(found[0])
    server.close()
    loop.close()


def test_half_a_handshake_stalls_nobody_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = GuardedPort(tmp_path, handshake_timeout_s=3.0)
    client = SecureClient(port.server.port, port.certificate)
    future = client.send(b"first", RIGHT)
    call = port.loop.wait(PATIENCE_S)
    silent = socket.create_connection(("127.0.0.1", port.server.port))
    half = socket.create_connection(("127.0.0.1", port.server.port))
    half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # the beginning of a ClientHello
    without_a_call = _shaken(port)
    for _ in range(200):  # all of this within the limit, or the calls would not be answered
        assert isinstance(call, Call)
        call.answer(b"on")
        port.serve_until(future.done)
        future = client.send(b"next", RIGHT)
        call = port.loop.wait(PATIENCE_S)
    for wire in (silent, half, without_a_call):
        wire.settimeout(0.0)
        port.serve_until(partial(_is_over, wire))
    assert "the TLS handshake did not end within 3 s" in caplog.text
    assert isinstance(call, Call)
    call.answer(b"on")  # the one with the token is served on
    port.serve_until(future.done)
    assert future.result(timeout=0) == b"on"
    client.close()
    port.close()


def _shaken(port: GuardedPort) -> ssl.SSLSocket:
    """A connection that has shaken hands, and then says nothing."""
    wire = socket.create_connection(("127.0.0.1", port.server.port))
    wire.settimeout(10)
    trust = Trust(fingerprint=port.door.fingerprint)
    found = port.while_serving(lambda: trust.wrap(wire, "127.0.0.1", "h2"))
    assert isinstance(found, ssl.SSLSocket)
    return found


def _is_over(wire: socket.socket) -> bool:
    try:
        return not wire.recv(1 << 16)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def test_tls_for_something_else_than_http2_is_refused(
    port: GuardedPort, caplog: pytest.LogCaptureFixture
) -> None:
    wire = socket.create_connection(("127.0.0.1", port.server.port))
    wire.settimeout(10)
    trust = Trust(fingerprint=port.door.fingerprint)
    told = port.while_serving(lambda: trust.wrap(wire, "127.0.0.1", "http/1.1"))
    assert isinstance(told, DoorError)
    port.serve_until(lambda: "no TLS connection" in caplog.text)


def test_stranger_cannot_fill_the_memory(
    port: GuardedPort, caplog: pytest.LogCaptureFixture
) -> None:
    wire = _shaken(port)
    ping = frame(Frame.PING, 0, 0, bytes(8))
    flood = PREFACE + settings_frame({}) + ping * (STRANGER_BYTES // len(ping) + 1)

    def send() -> None:
        try:
            wire.sendall(flood)
        except OSError:
            return

    port.while_serving(send)
    wire.settimeout(0.0)
    port.serve_until(lambda: _is_over(wire))
    assert f"more than {STRANGER_BYTES} bytes without the token" in caplog.text


def test_frame_that_never_ends_is_not_waited_for(port: GuardedPort) -> None:
    wire = _shaken(port)
    header = frame(Frame.DATA, Flag.END_STREAM, 1, b"")
    begun = PREFACE + settings_frame({}) + b"\xff\xff\xff" + header[3:] + bytes(STRANGER_BYTES)

    def send() -> None:
        try:
            wire.sendall(begun)
        except OSError:
            return

    port.while_serving(send)
    wire.settimeout(0.0)
    port.serve_until(lambda: _is_over(wire))


def test_crowd_of_silent_diallers_is_hung_up_oldest_first(port: GuardedPort) -> None:
    client = SecureClient(port.server.port, port.certificate)
    future = client.send(b"first", RIGHT)
    call = port.loop.wait(PATIENCE_S)
    crowd = []
    for _ in range(2 * MOST_DIALLERS):
        crowd.append(socket.create_connection(("127.0.0.1", port.server.port)))
        crowd[-1].settimeout(0.0)
        port.loop.serve(0.05)
    port.serve_until(lambda: _is_over(crowd[MOST_DIALLERS]))  # the simulator has a place too
    assert not _is_over(crowd[MOST_DIALLERS + 1])
    assert isinstance(call, Call)
    call.answer(b"still here")
    port.serve_until(future.done)
    assert future.result(timeout=0) == b"still here"
    for wire in crowd:
        wire.close()
    client.close()


def test_refusals_do_not_fill_the_log(port: GuardedPort, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    client = SecureClient(port.server.port, port.certificate)
    for _ in range(50):
        port.refusal(client.send(b"?", f"Bearer {OTHER_TOKEN}"))
    assert len(caplog.records) < 25
    client.close()


def test_call_of_a_forgotten_simulator_needs_a_new_introduction(port: GuardedPort) -> None:
    client = SecureClient(port.server.port, port.certificate)
    client.send(greeting().SerializeToString(), RIGHT)
    call = port.loop.wait(PATIENCE_S)
    assert isinstance(call, Call)
    port.server.forget_peer()
    refused = port.refusal(client.send(bare().SerializeToString(), RIGHT))
    assert "given this simulator up" in str(refused)
    client.close()


def test_rest_of_a_tls_record_is_not_left_where_no_selector_sees_it(port: GuardedPort) -> None:
    """What a call of recv leaves inside the TLS library would be read with the next message."""
    ours, theirs = socket.socketpair()
    wire = TlsWire(ours, port.door.tls)
    trust = Trust(ca_file=str(port.certificate))

    def dial_and_send() -> None:
        client = trust.wrap(theirs, "127.0.0.1", "h2")
        client.sendall(b"x" * 100)

    thread = threading.Thread(target=dial_and_send)
    thread.start()
    received, limit = b"", time.monotonic() + PATIENCE_S
    while not received:
        assert time.monotonic() < limit
        with suppress(BlockingIOError):
            received = wire.recv(60)  # fewer than the record holds
        time.sleep(0.01)
    thread.join()
    assert received == b"x" * 100
