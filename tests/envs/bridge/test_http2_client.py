"""The simulator's own HTTP/2 client against real gRPC servers."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_client import CHANNEL_OPTIONS

from envs.bridge.http2_client import CallError, UnaryConnection
from envs.bridge.protocol import EXCHANGE, METHOD, SERVICE

Handler = Callable[[bytes, grpc.ServicerContext], bytes]


def echo(message: bytes, context: grpc.ServicerContext) -> bytes:
    return message


@contextmanager
def serving(handler: Handler, **options: int) -> Iterator[tuple[UnaryConnection, grpc.Server]]:
    server = grpc.server(
        ThreadPoolExecutor(1),
        options=list(
            (
                dict(CHANNEL_OPTIONS) | {f"grpc.{key}": value for key, value in options.items()}
            ).items()
        ),
    )
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    connection = UnaryConnection("127.0.0.1", port, EXCHANGE, connect_timeout_s=10)
    try:
        yield connection, server
    finally:
        connection.close()
        server.stop(grace=None).wait()


@pytest.fixture(scope="module")
def echoing() -> Iterator[UnaryConnection]:
    with serving(echo) as (connection, _):
        yield connection


# The first frame and the first window of HTTP/2 end at 16384 and 65535 bytes, 5 of them gRPC's.
@settings(deadline=None, max_examples=40)
@given(
    size=st.one_of(
        st.integers(0, 300),
        st.integers(16_370, 16_390),
        st.integers(65_520, 65_540),
        st.integers(0, 400_000),
    )
)
def test_message_of_any_size_comes_back(echoing: UnaryConnection, size: int) -> None:
    message = os.urandom(size)
    assert echoing.call(message) == message


def test_messages_larger_than_all_windows_come_back(echoing: UnaryConnection) -> None:
    message = os.urandom(9_000_000)
    assert echoing.call(message) == message
    assert echoing.call(b"and on") == b"and on"


def test_windows_are_kept_over_many_calls(echoing: UnaryConnection) -> None:
    for number in range(300):
        message = number.to_bytes(2, "big") * 2_000
        assert echoing.call(message) == message


def read_exactly(peer: socket.socket, num_bytes: int) -> bytes:
    data = b""
    while len(data) < num_bytes:
        piece = peer.recv(num_bytes - len(data))
        assert piece, "the client hung up"
        data += piece
    return data


def read_frame(peer: socket.socket) -> tuple[int, int, int, bytes]:
    """Gives type, flags, stream and payload."""
    head = read_exactly(peer, 9)
    return (
        head[3],
        head[4],
        int.from_bytes(head[5:9], "big"),
        read_exactly(peer, int.from_bytes(head[:3], "big")),
    )


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


STRICT_WINDOW = 20_000


def strict_server(server: socket.socket, num_calls: int) -> list[tuple[int, int]]:
    """Answers calls like no friendly server: grants little, pads, splits, and pings.

    Grants STRICT_WINDOW bytes per stream and frames of at most 16384, and the next bytes only when
    the client has used up what it was granted. Gives the (stream, bytes) of all calls.
    """
    peer, _ = server.accept()
    peer.settimeout(20)
    assert read_exactly(peer, 24).startswith(b"PRI * HTTP/2.0")
    settings = struct.pack(">HI", 4, STRICT_WINDOW) + struct.pack(">HI", 5, 16_384)
    peer.sendall(frame(4, 0, 0, settings) + frame(6, 0, 0, b"pingpong"))
    connection_window, stream_window = 65_535, 65_535  # until the client has our settings
    is_acknowledged = is_pong = False
    calls: list[tuple[int, int]] = []
    body = b""
    with peer:
        while len(calls) < num_calls:
            kind, flags, stream, payload = read_frame(peer)
            assert len(payload) <= 16_384
            if kind == 1:
                body = b""
                if is_acknowledged:
                    stream_window = STRICT_WINDOW
            elif kind == 0:
                body += payload
                connection_window -= len(payload)
                stream_window -= len(payload)
                assert connection_window >= 0, "more than the connection's window"
                if is_acknowledged:
                    assert stream_window >= 0, "more than the stream's window"
                if flags & 1:
                    calls.append((stream, len(body)))
                    padded = bytes([3]) + body[:7] + bytes(3)
                    peer.sendall(
                        frame(1, 4, stream, b"\x88")  # :status 200
                        + frame(0, 8, stream, padded)
                        + frame(0, 0, stream, body[7:1000])
                        + frame(99, 0, stream, b"unknown frames are skipped")
                        + b"".join(
                            frame(0, 0, stream, body[at : at + 16_000])
                            for at in range(1000, len(body), 16_000)
                        )
                        + frame(1, 5, stream, b"\x00\x0bgrpc-status\x010")
                    )
                else:
                    if stream_window == 0:
                        stream_window += 777
                        peer.sendall(frame(8, 0, stream, struct.pack(">I", 777)))
                    if connection_window == 0:
                        connection_window += 5000
                        peer.sendall(frame(8, 0, 0, struct.pack(">I", 5000)))
            elif kind == 4 and flags & 1:
                is_acknowledged = True
                if body or not calls:  # the first call began before it knew our settings
                    stream_window += STRICT_WINDOW - 65_535
            elif kind == 6:
                assert (flags, payload) == (1, b"pingpong")
                is_pong = True
    assert is_acknowledged
    assert is_pong
    return calls


def test_windows_and_frame_sizes_of_a_strict_server_are_kept() -> None:
    messages = [os.urandom(100), os.urandom(3000), b"", os.urandom(90_000), os.urandom(20)]
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        calls = pool.submit(strict_server, server, len(messages))
        port = server.getsockname()[1]
        connection = UnaryConnection("127.0.0.1", port, EXCHANGE, connect_timeout_s=10)
        for message in messages:
            try:
                assert connection.call(message) == message
            except CallError:
                calls.result(timeout=20)  # tells what the server did not like
                raise
        connection.close()
    assert calls.result() == [
        (1 + 2 * number, 5 + len(message)) for number, message in enumerate(messages)
    ]


def test_reason_of_a_refusal_is_shown() -> None:
    def refuse(message: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Simulator 3 has another port")
        raise AssertionError("abort raises")

    with (
        serving(refuse) as (connection, _),
        pytest.raises(CallError, match=r"refused.*Simulator 3 has another port"),
    ):
        connection.call(b"")


def test_message_over_the_servers_limit_is_refused_not_waited_for() -> None:
    with (
        serving(echo, max_receive_message_length=1_000_000) as (connection, _),
        pytest.raises(CallError),
    ):
        connection.call(bytes(9_000_000))


def test_server_that_stops_ends_the_call_that_waits() -> None:
    is_called, is_over = threading.Event(), threading.Event()

    def wait(message: bytes, context: grpc.ServicerContext) -> bytes:
        is_called.set()
        is_over.wait(20)
        return message

    with serving(wait) as (connection, server), ThreadPoolExecutor(1) as pool:
        call = pool.submit(connection.call, b"")
        assert is_called.wait(20)
        server.stop(grace=None)
        with pytest.raises(CallError):
            call.result(timeout=20)
        is_over.set()
        with pytest.raises(CallError):
            connection.call(b"again")


def test_server_that_is_no_grpc_server_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        port = server.getsockname()[1]
        connection = UnaryConnection("127.0.0.1", port, EXCHANGE, connect_timeout_s=10)
        call = pool.submit(connection.call, b"")
        peer, _ = server.accept()
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(CallError, match=r"no gRPC server: HTTP/1\.1 400 Bad Request"):
            call.result(timeout=20)
        peer.close()


def test_connection_waits_for_a_server_that_listens_later() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        later = threading.Timer(0.3, server.listen)
        later.start()
        connection = UnaryConnection("127.0.0.1", port, EXCHANGE, connect_timeout_s=20)
        connection.close()
        later.join()
