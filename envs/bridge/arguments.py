"""The command line that every simulator program shares, as Unity builds understand it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence


def parse_simulator_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> argparse.Namespace:
    """Reads a simulator's arguments; adds `--mlagents-port` to the parser's own.

    Arguments meant for Unity's player, which have one dash (`-batchmode`, `-screen-width 80`), are
    accepted and ignored, but for `-logFile PATH`: from then on this program's output goes there.
    """
    parser.add_argument(
        "--mlagents-port",
        type=int,
        required=True,
        metavar="PORT",
        help="where the trainer listens on this machine; the trainer passes it",
    )
    own, player = _split(arguments)
    log_file = player.get("-logfile")
    if log_file is not None:
        _redirect_output(log_file)
    return parser.parse_args(own)


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
