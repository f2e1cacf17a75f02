"""One simulator's port: who is served, who is refused, and what is heard of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from scripted_client import CHANNEL_OPTIONS, PATIENCE_S, Future, ScriptedClient, bare, greeting

from envs.bridge.event_loop import EventLoop
from envs.bridge.protocol import EXCHANGE
from envs.bridge.server import MOST_DIALLERS, Call, ConnectionLost, SimulatorServer

if TYPE_CHECKING:
    Method = grpc.UnaryUnaryMultiCallable[bytes, bytes]


class Port:
    """A server and the loop that serves it, in the test's own thread."""

    def __init__(self) -> None:
        self.loop: EventLoop[Call | ConnectionLost] = EventLoop()
        self.server = SimulatorServer(0, self.loop, self.loop.put)

    def next_call(self) -> Call:
        call = self.loop.wait(PATIENCE_S)
        assert isinstance(call, Call)
        return call

    def serve_until_done(self, future: Future) -> None:
        limit = time.monotonic() + PATIENCE_S
        while not future.done() and time.monotonic() < limit:
            self.loop.serve(0.01)

    def result(self, future: Future) -> object:
        self.serve_until_done(future)
        return future.result(timeout=0)

    def refusal(self, future: Future) -> str:
        self.serve_until_done(future)
        error = future.exception(timeout=0)
        assert isinstance(error, grpc.RpcError)
        return str(error)


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.server.close()
    port.loop.close()


def test_late_call_of_a_forgotten_simulator_is_not_taken_for_its_successor(port: Port) -> None:
    old, new = ScriptedClient(port.server.port), ScriptedClient(port.server.port)
    future = old.send(greeting())
    port.next_call().answer(b"welcome")
    assert port.result(future) == b"welcome"

    port.server.forget_peer()
    assert "given this simulator up" in port.refusal(old.send(bare()))
    future = new.send(greeting())
    call = port.next_call()
    assert (call.data, call.generation) == (greeting().SerializeToString(), 1)
    assert "given this simulator up" in port.refusal(old.send(bare()))
    call.answer(b"welcome")
    assert port.result(future) == b"welcome"

    # A life in which nobody dialled does not make the server forget whom it has forgotten.
    port.server.forget_peer()
    port.server.forget_peer()
    assert "given this simulator up" in port.refusal(new.send(bare()))
    old.close()
    new.close()


def test_successor_may_use_the_connection_of_the_one_before(port: Port) -> None:
    client = ScriptedClient(port.server.port)  # one connection stands for two processes
    for generation in range(3):
        future = client.send(greeting())
        call = port.next_call()
        assert call.generation == generation
        call.answer(b"welcome")
        assert port.result(future) == b"welcome"
        future = client.send(bare())
        port.next_call().answer(b"go on")
        assert port.result(future) == b"go on"
        port.server.forget_peer()
    client.close()


def test_call_that_waits_ends_when_its_simulator_is_forgotten(port: Port) -> None:
    client = ScriptedClient(port.server.port)
    future = client.send(greeting())
    port.next_call()
    port.server.forget_peer()
    assert "given this simulator up" in port.refusal(future)
    client.close()


def test_second_program_is_told_who_is_served(port: Port) -> None:
    first, second = ScriptedClient(port.server.port), ScriptedClient(port.server.port)
    first.send(greeting())
    port.next_call()
    assert "already serves the simulator at 127.0.0.1" in port.refusal(second.send(greeting()))
    first.close()
    second.close()


def test_hanging_up_is_heard_while_a_call_waits(port: Port) -> None:
    client = ScriptedClient(port.server.port)
    client.send(greeting())
    call = port.next_call()
    client.close()
    assert port.loop.wait(PATIENCE_S) == ConnectionLost(call)
    call.answer(b"too late")  # nobody listens, nothing happens


def test_call_given_up_by_its_simulator_is_heard(port: Port) -> None:
    client = ScriptedClient(port.server.port)
    future = client.send(greeting())
    call = port.next_call()
    future.cancel()
    assert port.loop.wait(PATIENCE_S) == ConnectionLost(call)
    client.close()


@pytest.mark.parametrize("num_bytes", [0, 1, 16_384, 65_536, 9_000_000])
def test_messages_of_any_size_pass_both_ways(port: Port, num_bytes: int) -> None:
    """Larger than a frame, than a window, than what a socket takes at once."""
    body = bytes(range(256)) * (num_bytes // 256) + b"x" * (num_bytes % 256)
    with grpc.insecure_channel(f"127.0.0.1:{port.server.port}", options=CHANNEL_OPTIONS) as channel:
        call: Method = channel.unary_unary(EXCHANGE)
        for _ in range(3):
            future = call.future(body)
            arrived = port.next_call()
            assert arrived.data == body
            arrived.answer(body[::-1])
            assert port.result(future) == body[::-1]


def test_other_methods_are_refused_by_name(port: Port) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port.server.port}") as channel:
        call: Method = channel.unary_unary("/grpc.health.v1.Health/Check")
        refusal = port.refusal(call.future(b""))
    assert "UNIMPLEMENTED" in refusal
    assert "/grpc.health.v1.Health/Check is not served here" in refusal


def test_compressed_messages_are_refused(port: Port) -> None:
    with grpc.insecure_channel(
        f"127.0.0.1:{port.server.port}", compression=grpc.Compression.Gzip
    ) as channel:
        call: Method = channel.unary_unary(EXCHANGE)
        assert "Compressed messages" in port.refusal(call.future(bytes(5000)))


def test_browsers_are_told_what_the_port_is_for(port: Port) -> None:
    with socket.create_connection(("127.0.0.1", port.server.port)) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        port.loop.serve(PATIENCE_S)  # takes the connection
        port.loop.serve(PATIENCE_S)  # hears what it says
        assert not port.server.is_connected
        assert b"waits for an ML-Agents simulator" in browser.recv(1000)


def test_dialler_that_loses_its_place_while_it_speaks_is_hung_up_once(port: Port) -> None:
    address = ("127.0.0.1", port.server.port)
    crowd = []
    for _ in range(MOST_DIALLERS):
        crowd.append(socket.create_connection(address))
        port.loop.serve(PATIENCE_S)
    # One look at the sockets finds both: the newcomer, who takes the oldest one's place, and the
    # oldest one's words.
    crowd.append(socket.create_connection(address))
    crowd[0].sendall(b"PRI")
    port.loop.serve(PATIENCE_S)
    client = ScriptedClient(port.server.port)
    future = client.send(greeting())
    port.next_call().answer(b"welcome")
    assert port.result(future) == b"welcome"
    client.close()
    for dialler in crowd:
        dialler.close()
