"""One simulator's port: who is served, who is refused, and what is heard of it."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue

import grpc
import pytest
from scripted_client import PATIENCE_S, Future, ScriptedClient, bare, greeting

from envs.bridge.server import Call, ConnectionLost, SimulatorServer

News = SimpleQueue[Call | ConnectionLost]


@pytest.fixture
def news() -> News:
    return SimpleQueue()


@pytest.fixture
def server(news: News) -> Iterator[SimulatorServer]:
    server = SimulatorServer(0, news.put)
    yield server
    server.stop(grace_s=0.0).wait()


def next_call(news: News) -> Call:
    call = news.get(timeout=PATIENCE_S)
    assert isinstance(call, Call)
    return call


def refusal(future: Future) -> str:
    error = future.exception(timeout=PATIENCE_S)
    assert isinstance(error, grpc.RpcError)
    return str(error)


def test_late_call_of_a_forgotten_simulator_is_not_taken_for_its_successor(
    server: SimulatorServer, news: News
) -> None:
    old, new = ScriptedClient(server.port), ScriptedClient(server.port)
    future = old.send(greeting())
    next_call(news).answer(b"welcome")
    assert future.result(timeout=PATIENCE_S) == b"welcome"

    server.forget_peer()
    assert "given this simulator up" in refusal(old.send(bare()))
    future = new.send(greeting())
    call = next_call(news)
    assert (call.data, call.generation) == (greeting().SerializeToString(), 1)
    assert "given this simulator up" in refusal(old.send(bare()))
    call.answer(b"welcome")
    assert future.result(timeout=PATIENCE_S) == b"welcome"
    assert news.empty()

    # A life in which nobody dialled does not make the server forget whom it has forgotten.
    server.forget_peer()
    server.forget_peer()
    assert "given this simulator up" in refusal(new.send(bare()))
    old.close()
    new.close()


def test_successor_may_dial_from_the_port_of_the_one_before(
    server: SimulatorServer, news: News
) -> None:
    client = ScriptedClient(server.port)  # one connection stands for two processes
    for generation in range(3):
        future = client.send(greeting())
        call = next_call(news)
        assert call.generation == generation
        call.answer(b"welcome")
        future.result(timeout=PATIENCE_S)
        future = client.send(bare())
        next_call(news).answer(b"go on")
        assert future.result(timeout=PATIENCE_S) == b"go on"
        server.forget_peer()
    client.close()


def test_call_that_waits_ends_when_its_simulator_is_forgotten(
    server: SimulatorServer, news: News
) -> None:
    client = ScriptedClient(server.port)
    future = client.send(greeting())
    next_call(news)
    server.forget_peer()
    assert "given this simulator up" in refusal(future)
    client.close()
