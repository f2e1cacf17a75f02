"""Changes settings of a running run, which was started with --control.

ppo-train set learning_rate=1e-4 beta=0 --run-id walker. The values hold from the next update on,
are written to events.jsonl and into the checkpoint, and stay when the run is resumed, until the
settings file itself says something else than it did.
"""

from __future__ import annotations

import argparse

from trainer.cli import live
from trainer.config.errors import UserError
from trainer.control_client import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the values, and which behaviour of which run is meant."""
    parser.add_argument(
        "values",
        nargs="+",
        metavar="KEY=VALUE",
        help="learning_rate, epsilon, beta, max_steps or summary_freq",
    )
    live.add_arguments(parser)
    parser.add_argument("--behavior", metavar="NAME", help="only this behaviour; without it, all")


def run(args: argparse.Namespace) -> int:
    """Has the run take the values, and prints what it says of it."""
    values: dict[str, str] = {}
    for word in args.values:
        key, is_given, value = word.partition("=")
        if not (key and is_given and value):
            raise UserError(f"{word!r} is no KEY=VALUE; expected such as learning_rate=1e-4.")
        if key in values:
            raise UserError(f"{key} is given twice. Give it once.")
        values[key] = value
    arguments: dict[str, object] = {"values": values}
    if args.behavior is not None:
        arguments["behavior"] = args.behavior
    print(command(live.running(args), "set", arguments))
    return 0
