"""A simulator of which every life sends one input from a folder, until none is left.

    python tests/fuzz/spoilt_simulator.py --inputs FOLDER --mlagents-port P

The first to come is good for ever. A file `message-*` is sent after some ordinary env_steps,
`greeting-*` as the first message, and `bytes-*` as it is, before anything else.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from envs.bridge.arguments import parse_simulator_arguments
from envs.bridge.client import TrainerClosedError, TrainerConnection
from envs.testing.scripted import Agents, Stage, play

AT = 3  # env_steps before a message


def claimed(folder: Path) -> Path | None:
    """Takes an input that no other life has taken; None: there is none, or this one is good."""
    with suppress(FileExistsError):
        (folder / "good").open("x").close()
        return None
    for path in sorted(folder.glob("*-*.bin")):
        with suppress(FileNotFoundError):
            return path.rename(path.with_suffix(".taken"))
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Lives once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=Path, required=True)
    options = parse_simulator_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    path = claimed(options.inputs)
    kind = "" if path is None else path.name.partition("-")[0]
    data = b"" if path is None else path.read_bytes()
    print(f"input: {None if path is None else path.name}", flush=True)
    if kind == "bytes":
        with socket.create_connection(("127.0.0.1", options.mlagents_port)) as wire:
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            while wire.recv(65_536):
                pass
        return 3
    with suppress(TrainerClosedError), TrainerConnection(options.mlagents_port) as connection:
        if kind == "greeting":
            connection.exchange_bytes(data)
            connection.first_request()
        else:
            connection.hello()
        stage = Stage(3, AT, 0, connection)

        def script(stage: Stage) -> Agents | bytes:
            return data if kind == "message" and stage.step >= AT else stage.everyone()

        play(stage, script)
    return 0


if __name__ == "__main__":
    sys.exit(main())
