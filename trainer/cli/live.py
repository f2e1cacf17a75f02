"""Asks a running run, which was started with --control."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.config.errors import UserError
from trainer.control_client import Address, command, live_address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which run is meant."""
    parser.add_argument("--run-id", required=True, metavar="ID", help="name of the run")
    parser.add_argument(
        "--results-dir", default="results", metavar="DIR", help="folder of all runs"
    )


def run(args: argparse.Namespace) -> int:
    """Has the run carry out the verb, and prints what it says of it."""
    print(command(running(args), args.verb, {}))
    return 0


def running(args: argparse.Namespace) -> Address:
    """Gives where the run can be reached.

    Raises:
        UserError: there is no such run, or it is not running, or has no control endpoint.
    """
    results = Path(args.results_dir)
    folder = results / args.run_id
    if not (folder / "run_logs").is_dir():
        runs = sorted(path.parent.name for path in results.glob("*/run_logs"))
        known = f"There are: {', '.join(runs)}." if runs else "There are none yet."
        raise UserError(
            f"{folder} holds no run. {known} Choose one with --run-id and --results-dir."
        )
    address = live_address(folder)
    if address is None:
        raise UserError(
            f"Run '{args.run_id}' cannot be asked: it is not running, or was started without "
            f"--control. The end of {folder / 'run_logs' / 'events.jsonl'} says what it did last."
        )
    return address
