"""gRPC's health service, asked by grpcio's own health and reflection clients."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from test_control import PROGRESS, Clock, address_of, asked

from trainer.config.errors import ConfigError
from trainer.config.settings import ControlSettings
from trainer.control import Control, Pulse
from trainer.control_client import command

SERVING, NOT_SERVING = "SERVING", "NOT_SERVING"
PLAYING = dataclasses.replace(PROGRESS, is_paused=False)
PATIENCE_S = 20.0


def opened(logs: Path, health_port: int = 0) -> Control:
    settings = ControlSettings(port=0, health_port=health_port, stall_limit_s=60)
    return Control(settings, "run", logs)


@contextmanager
def channel_of(logs: Path) -> Iterator[grpc.Channel]:
    port = address_of(logs).health_port
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield channel


def name_of(status: int) -> str:
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))


def check(channel: grpc.Channel, service: str = "") -> str:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    answer: Any = stub.Check(request, timeout=PATIENCE_S)
    return name_of(answer.status)


def becomes(expected: str, ask: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_status_follows_the_state_of_the_run(tmp_path: Path) -> None:
    with opened(tmp_path) as control, channel_of(tmp_path) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)

        def next_is(expected: str) -> None:
            assert name_of(next(watched).status) == expected
            for service in ("", "training"):
                becomes(expected, lambda service=service: check(channel, service))  # type: ignore[misc] # bound
            assert check(channel, "liveness") == SERVING

        next_is(NOT_SERVING)  # it starts
        control.publish(dataclasses.replace(PLAYING, behaviors=()))
        assert check(channel) == NOT_SERVING  # no simulator has said what it is
        control.publish(PLAYING)
        next_is(SERVING)
        control.publish(PROGRESS)  # paused
        next_is(NOT_SERVING)
        control.publish(PLAYING)
        next_is(SERVING)
        control.publish(dataclasses.replace(PLAYING, num_simulators=0))
        next_is(NOT_SERVING)
        control.publish(PLAYING)
        next_is(SERVING)
        with control.ending("saves"):
            pass
        next_is(NOT_SERVING)


def test_hanging_loop_is_not_alive(tmp_path: Path) -> None:
    with opened(tmp_path) as control, channel_of(tmp_path) as channel:
        clock = Clock()
        control.pulse = Pulse(60.0, clock)
        control.publish(PLAYING)
        becomes(SERVING, lambda: check(channel, "training"))
        clock.now_s += 61
        becomes(NOT_SERVING, lambda: check(channel, "liveness"))
        assert check(channel, "training") == NOT_SERVING
        with control.pulse.long_part():  # an update
            becomes(SERVING, lambda: check(channel, "training"))


def test_end_is_told_to_who_watches_and_closes_the_port(tmp_path: Path) -> None:
    control = opened(tmp_path)
    with control:
        control.publish(PLAYING)
        port = address_of(tmp_path).health_port
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        becomes(SERVING, lambda: check(channel))
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert name_of(next(watched).status) == SERVING
    assert name_of(next(watched).status) == NOT_SERVING
    channel.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port or 0), timeout=5)


def test_service_nobody_knows_is_not_found(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        channel_of(tmp_path) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        check(channel, "other")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_service(tmp_path: Path) -> None:
    with opened(tmp_path), channel_of(tmp_path) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "grpc.health.v1.Health" in database.get_services()
        service = DescriptorPool(database).FindServiceByName("grpc.health.v1.Health")
        assert {method.name for method in service.methods} >= {"Check", "Watch"}


def test_it_listens_on_loopback_alone_and_says_where(tmp_path: Path) -> None:
    with opened(tmp_path) as control:
        address = address_of(tmp_path)
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        lines += Path("/proc/self/net/tcp6").read_text().splitlines()[1:]
        places = [line.split()[1] for line in lines if line.split()[3] == "0A"]
        mine = [place for place in places if place.endswith(f":{address.health_port:04X}")]
        # gRPC writes 127.0.0.1 as ::ffff:127.0.0.1.
        assert [place.rpartition(":")[0][-8:] for place in mine] == ["0100007F"]
        assert mine[0].startswith(("0100007F", "0000000000000000FFFF0000"))
        control.publish(PLAYING)
        said = command(address, "status", {})
        assert f"gRPC health checks on 127.0.0.1:{address.health_port}" in said
        assert asked(address.port, "GET", "/healthz")[0] == 200


def test_port_in_use_is_a_message(tmp_path: Path) -> None:
    with opened(tmp_path / "one"):
        port = address_of(tmp_path / "one").health_port
        assert port is not None
        with pytest.raises(ConfigError, match=rf"health_port is {port}, but nothing can listen"):
            opened(tmp_path / "two", port).__enter__()


def test_health_without_an_endpoint_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="health_port is 0, but port is null"):
        ControlSettings(health_port=0)


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc_health.v1", None)
    monkeypatch.delitem(sys.modules, "trainer.control_health", raising=False)
    with pytest.raises(ConfigError, match=r"grpc_health\.v1 is not installed: .*ppo-train\[grpc\]"):
        opened(tmp_path).__enter__()


def test_grpc_is_imported_only_when_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['grpc'] = None\n"
        "from pathlib import Path; import trainer.run\n"
        "from trainer.config.settings import ControlSettings\n"
        "with trainer.run.Control(ControlSettings(port=0), 'run', Path(sys.argv[1])): pass\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=200)
