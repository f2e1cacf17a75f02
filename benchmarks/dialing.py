"""What a call costs both ends: grpcio against envs/bridge/http2_{client,server}.py, in turns.

    python -m benchmarks.dialing

The server answers at once with as many bytes as CartPole's actions have; each client runs in a
process of its own. Printed are calls per second and both ends' processor time per call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from queue import Empty
from statistics import median

import grpc

from benchmarks.machine import cpu_model
from envs.bridge.event_loop import EventLoop
from envs.bridge.http2_client import UnaryConnection
from envs.bridge.protocol import EXCHANGE, METHOD, SERVICE
from envs.bridge.server import Call, ConnectionLost, SimulatorServer

KINDS = ("grpcio", "ours")
NUM_ROUNDS, NUM_CALLS, NUM_WARM_UP_CALLS = 5, 4000, 200
QUESTION, ANSWER = bytes(300), bytes(120)


def run_client(kind: str, port: int) -> None:
    """Makes the calls and prints what they cost; in a process of its own."""
    call: Callable[[bytes], bytes]
    if kind == "grpcio":
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXCHANGE)
        call = method
    else:
        call = UnaryConnection("127.0.0.1", port, EXCHANGE, 10.0).call
    for _ in range(NUM_WARM_UP_CALLS):
        call(QUESTION)
    started, cpu_started = time.perf_counter(), time.process_time()
    for _ in range(NUM_CALLS):
        call(QUESTION)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    print(json.dumps({"calls_per_s": NUM_CALLS / elapsed, "client_us": cpu / NUM_CALLS * 1e6}))


def start_client(kind: str, port: int) -> subprocess.Popen[str]:
    """Starts the process that makes the calls."""
    command = [sys.executable, "-m", "benchmarks.dialing", "--client", kind, "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def serve_with_grpcio(client: str) -> str:
    """Gives what a client prints that is served by grpcio; the handler answers by itself."""
    server = grpc.server(ThreadPoolExecutor(1))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda message, context: ANSWER
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    printed, _ = start_client(client, port).communicate()
    server.stop(0.0).wait()
    return printed


def serve_with_ours(client: str) -> str:
    """Gives what a client prints that is served by the trainer's server."""
    loop: EventLoop[Call | ConnectionLost] = EventLoop()
    server = SimulatorServer(0, loop, loop.put)
    process = start_client(client, server.port)
    while process.poll() is None:
        try:
            what = loop.wait(0.1)
        except Empty:
            continue
        if isinstance(what, Call):
            what.answer(ANSWER)
    printed, _ = process.communicate()
    server.close()
    loop.close()
    return printed


def measure(server: str, client: str) -> dict[str, float]:
    """Runs one client against a new server."""
    started = time.process_time()
    printed = (serve_with_grpcio if server == "grpcio" else serve_with_ours)(client)
    cpu = time.process_time() - started
    figures: dict[str, float] = json.loads(printed)
    return figures | {"server_us": cpu / (NUM_CALLS + NUM_WARM_UP_CALLS) * 1e6}


def describe(figures: dict[str, float]) -> str:
    """Gives the figures of a round, or their medians, in one line."""
    return (
        f"{figures['calls_per_s']:6,.0f} calls/s; processor time per call: "
        f"client {figures['client_us']:4.0f} us, server {figures['server_us']:4.0f} us"
    )


def main() -> None:
    """Prints every round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        run_client(options.client, options.port)
        return
    print(cpu_model())
    pairs = list(product(KINDS, KINDS))
    found: dict[tuple[str, str], list[dict[str, float]]] = {pair: [] for pair in pairs}
    for _ in range(NUM_ROUNDS):
        for server, client in pairs:
            figures = measure(server, client)
            found[server, client].append(figures)
            print(f"server {server:6} client {client:6} {describe(figures)}")
    for (server, client), rounds in found.items():
        medians = {key: median(figures[key] for figures in rounds) for key in rounds[0]}
        print(f"median of server {server:6} client {client:6} {describe(medians)}")


if __name__ == "__main__":
    main()
