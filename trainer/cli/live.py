"""Asks a running run, which was started with --control."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from envs.bridge.arguments import add_trust_arguments
from envs.tls import CONTROL_TOKEN_VARIABLE, DoorError, host_and_port, read_fingerprint, read_token
from trainer.config.errors import UserError
from trainer.control_client import Address, command, live_address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which run is meant."""
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--run-id", metavar="ID", help="name of the run, of this machine")
    place.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="where another machine's run listens (its --control PORT and --control-host)",
    )
    add_trust_arguments(parser, CONTROL_TOKEN_VARIABLE)
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
    if args.address is not None:
        return _distant(args)
    _refuse_trust_arguments(args)
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


def _distant(args: argparse.Namespace) -> Address:
    """Gives another machine's run, as the arguments describe it."""
    try:
        host, port = host_and_port(args.address)
        token = read_token(args.token_file, CONTROL_TOKEN_VARIABLE, os.environ)
        pinned = args.tls_fingerprint
        fingerprint = None if pinned is None else read_fingerprint(pinned)
    except DoorError as error:
        raise UserError(str(error)) from None
    if token is None:
        raise UserError(
            f"--address {args.address} needs the token that the run was started with: --token-file "
            f"FILE, or the environment variable {CONTROL_TOKEN_VARIABLE}."
        )
    return Address(
        run_id=args.address,
        pid=0,
        port=port,
        token=token,
        host=host,
        fingerprint=fingerprint,
        ca_file=args.tls_ca,
        is_distant=True,
    )


def _refuse_trust_arguments(args: argparse.Namespace) -> None:
    for name in ("token_file", "tls_fingerprint", "tls_ca"):
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} is for another machine's run (--address HOST:PORT); "
                f"of this machine's, run_logs/control.json holds everything. Leave it out."
            )
