"""The standard gRPC health service of a run, with reflection; on loopback, in threads of its own.

| Service | SERVING while |
|---|---|
| `liveness` | the run's loop turns, as `/healthz` says; also while it starts, pauses, or saves |
| `training`, and the empty name | on top of that it collects and learns |
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from envs.tls import LOOPBACK

LIVENESS, TRAINING, WHOLE = "liveness", "training", ""
POLL_S = 0.25  # how late a change may be told
NUM_WORKERS = 4
MOST_CALLS = 32
LARGEST_MESSAGE_BYTES = 1 << 16
STOP_GRACE_S = 1.0

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthServer:
    """Listens at once, and tells the state of a run until it is stopped."""

    def __init__(
        self, port: int, is_alive: Callable[[], bool], is_training: Callable[[], bool]
    ) -> None:
        """Begins to answer.

        Args:
            port: 0: the system picks a free one.
            is_alive: whether the loop turns; called in any thread.
            is_training: whether it collects and learns; likewise.

        Raises:
            OSError: the port is in use.
        """
        self._is_alive = is_alive
        self._is_training = is_training
        self._servicer = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=None
        )
        self._told: dict[str, int] = {}
        self._look()
        self._server = grpc.server(
            ThreadPoolExecutor(NUM_WORKERS, thread_name_prefix="health"),
            maximum_concurrent_rpcs=MOST_CALLS,
            options=[
                ("grpc.so_reuseport", 0),  # else a second run would share the port
                ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", MOST_CALLS),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        names = (health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            self.port: int = self._server.add_insecure_port(f"{LOOPBACK}:{port}")
        except RuntimeError as error:
            raise OSError(0, "it is in use") from error
        self._server.start()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tells everyone who watches that the run ends, and closes the port."""
        self._is_over.set()
        self._thread.join()
        self._servicer.enter_graceful_shutdown()
        self._server.stop(STOP_GRACE_S).wait()

    def _watch(self) -> None:
        while not self._is_over.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        """Tells what has changed."""
        is_alive = self._is_alive()
        is_training = is_alive and self._is_training()
        for name, is_so in ((LIVENESS, is_alive), (TRAINING, is_training), (WHOLE, is_training)):
            status = SERVING if is_so else NOT_SERVING
            if self._told.get(name) != status:
                self._told[name] = status
                self._servicer.set(name, status)
