"""A real run, asked by grpcio's own health client."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trainer_process import PATIENCE_S, Trainer, tiny_build, tiny_yaml

from trainer.control_client import read_address

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_real_run_is_checked_while_it_trains_pauses_and_stops(
    tmp_path: Path, answered: Callable[..., str]
) -> None:
    tiny_build(tmp_path, "--actions", "1,0")
    tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=200)
    words = ("settings.yaml", "--env", "tiny.x86_64", "--run-id", "run")
    run = ("--run-id", "run")
    with Trainer(*words, "--control", "--control-health", cwd=tmp_path) as trainer:
        trainer.wait_for(r"1D\. Step: 200\. ")
        address = read_address(tmp_path / "results" / "run" / "run_logs" / "control.json")
        assert address is not None
        with grpc.insecure_channel(f"127.0.0.1:{address.health_port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)

            def becomes(expected: int, service: str = "") -> None:
                deadline = time.monotonic() + PATIENCE_S
                request = health_pb2.HealthCheckRequest(service=service)
                while stub.Check(request, timeout=PATIENCE_S).status != expected:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

            becomes(SERVING)
            answered("pause", *run, cwd=tmp_path)
            becomes(NOT_SERVING)
            becomes(SERVING, "liveness")
            answered("continue", *run, cwd=tmp_path)
            becomes(SERVING)
            watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            assert next(watched).status == SERVING
            answered("stop", *run, cwd=tmp_path)
            assert next(watched).status == NOT_SERVING
        assert trainer.wait() == 0
    assert "grpc" not in trainer.output.lower()  # no chatter of the library
