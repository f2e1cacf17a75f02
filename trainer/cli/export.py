"""Writes a run's policies as ONNX files that Unity loads, and checks each against the policy.

A run that is running, with --control, writes what it has learnt so far; without it, or with
--from-step or --output, files are made from the checkpoints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.cli.run_arguments import add_run_arguments, chosen_behaviors, chosen_run
from trainer.config.errors import UserError
from trainer.control_client import command, live_address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which run, which behaviour, and where to."""
    add_run_arguments(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the files; without it, the run's"
    )


def run(args: argparse.Namespace) -> int:
    """Exports and verifies each behaviour's policy."""
    folder = chosen_run(args)
    if args.from_step is None and args.output is None:
        address = live_address(folder.path)
        if address is not None:
            asked = {} if args.behavior is None else {"behavior": args.behavior}
            print(command(address, "export", asked))
            return 0
    behaviors = chosen_behaviors(args, folder)

    from trainer.export_onnx import export
    from trainer.saved_policy import restore_policy

    output = args.output or folder.path
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{output} cannot be made: {error.strerror}. Choose another folder with --output."
        ) from error
    for name in behaviors:
        state, _ = folder.store(name, keep=0).load(args.from_step)
        saved = restore_policy(state)
        report = export(saved.policy, saved.spec, output / f"{name}.onnx")
        print(
            f"Exported {report.path} (step {saved.step}); onnxruntime and the policy differ by at "
            f"most {report.max_difference:.1e} on {report.num_rows} rows."
        )
    return 0
