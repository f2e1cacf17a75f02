"""The command line that every simulator program shares, as Unity builds understand it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence

from envs.bridge.http2_client import TrainerAddress
from envs.errors import SimulatorDidNotStartError
from envs.tls import (
    TOKEN_VARIABLE,
    DoorError,
    Trust,
    host_and_port,
    is_loopback,
    read_fingerprint,
    read_token,
)


def parse_simulator_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, has_distant_trainer: bool = False
) -> argparse.Namespace:
    """Reads a simulator's arguments; adds `--mlagents-port` to the parser's own.

    With `has_distant_trainer` it may be `--trainer HOST:PORT` instead, see `trainer_of`.

    Arguments meant for Unity's player, which have one dash (`-batchmode`, `-screen-width 80`), are
    accepted and ignored, but for `-logFile PATH`: from then on this program's output goes there.
    """
    words = "where the trainer listens on this machine; the trainer passes it"
    if has_distant_trainer:
        place = parser.add_mutually_exclusive_group(required=True)
        place.add_argument("--mlagents-port", type=int, metavar="PORT", help=words)
        place.add_argument(
            "--trainer", metavar="HOST:PORT", help="where a trainer listens that did not start this"
        )
        add_trust_arguments(parser, TOKEN_VARIABLE)
    else:
        parser.add_argument("--mlagents-port", type=int, required=True, metavar="PORT", help=words)
    own, player = _split(arguments)
    log_file = player.get("-logfile")
    if log_file is not None:
        _redirect_output(log_file)
    return parser.parse_args(own)


def add_trust_arguments(parser: argparse.ArgumentParser, variable: str) -> None:
    """Adds what a client needs to know the server, and to be known by it."""
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"holds the trainer's token; without it, the environment variable {variable} does",
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--tls-fingerprint",
        metavar="SHA256",
        help="of the trainer's certificate, as the trainer prints it",
    )
    trust.add_argument(
        "--tls-ca",
        metavar="FILE",
        help="certificate of the authority, or the trainer's own (PEM); without either, the "
        "authorities that this machine trusts",
    )


def trainer_of(
    options: argparse.Namespace, environ: Mapping[str, str] | None = None
) -> int | TrainerAddress:
    """Gives where the trainer is: a port of this machine, or an address.

    Args:
        options: from `parse_simulator_arguments`.
        environ: where the token may be; None = of this process.

    Raises:
        SimulatorDidNotStartError: the arguments do not go together.
    """
    if options.trainer is None:
        given = [
            f"--{name.replace('_', '-')}"
            for name in ("token_file", "tls_fingerprint", "tls_ca")
            if getattr(options, name) is not None
        ]
        if given:
            raise SimulatorDidNotStartError(
                f"{' and '.join(given)} is for a trainer elsewhere, but --mlagents-port is one of "
                f"this machine, dialled without TLS. Write --trainer HOST:PORT instead."
            )
        port: int = options.mlagents_port
        return port
    try:
        host, number = host_and_port(options.trainer)
        trust = trust_of(options, host)
        variables = os.environ if environ is None else environ
        token = read_token(options.token_file, TOKEN_VARIABLE, variables)
    except DoorError as error:
        raise SimulatorDidNotStartError(str(error)) from None
    if token is None and not is_loopback(host):
        raise SimulatorDidNotStartError(
            f"--trainer {options.trainer} needs the token that the trainer was started with: "
            f"--token-file FILE, or the environment variable {TOKEN_VARIABLE}."
        )
    return TrainerAddress(host, number, trust, token)


def trust_of(options: argparse.Namespace, host: str) -> Trust | None:
    """Gives how TLS knows the server at `host`; None: no TLS, as nothing asks for it on loopback.

    Raises:
        DoorError: the fingerprint is none.
    """
    if options.tls_fingerprint is not None:
        return Trust(fingerprint=read_fingerprint(options.tls_fingerprint))
    if options.tls_ca is not None:
        return Trust(ca_file=options.tls_ca)
    return None if is_loopback(host) else Trust()


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """Parts our own arguments from the player's, which come as name (in lower case) -> value."""
    own: list[str] = []
    player: dict[str, str | None] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        has_one_dash = argument.startswith("-") and not argument.startswith("--")
        if has_one_dash and len(argument) > 2 and argument[1].isalpha():
            takes_value = bool(rest) and not rest[0].startswith("-")
            player[argument.lower()] = rest.pop(0) if takes_value else None
        else:
            own.append(argument)
            # The value of an own argument may begin with a dash, such as a negative seed.
            if rest and argument.startswith("--") and re.match(r"-\d|[^-]|$", rest[0]):
                own.append(rest.pop(0))
    return own, player


def _redirect_output(path: str) -> None:
    """Sends what this process prints from now on to the file `path`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)
