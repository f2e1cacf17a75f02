"""Arguments that say which policy of which run is meant, for the verbs that use a finished one."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.config.errors import UserError
from trainer.config.load import load_run
from trainer.config.settings import RunSettings
from trainer.run_folder import RunFolder


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --run-id, --results-dir, --behavior and --from-step."""
    parser.add_argument("--run-id", required=True, metavar="ID", help="name of the run")
    parser.add_argument(
        "--results-dir", default="results", metavar="DIR", help="folder of all runs"
    )
    parser.add_argument("--behavior", metavar="NAME", help="only this behaviour; without it, all")
    parser.add_argument(
        "--from-step", type=int, metavar="N", help="the checkpoint of this step, not the newest"
    )


def chosen_run(args: argparse.Namespace) -> RunFolder:
    """Gives the run's folder.

    Raises:
        UserError: there is no such run.
    """
    results = Path(args.results_dir)
    folder = RunFolder(results / args.run_id)
    if not folder.configuration.is_file():
        file = folder.configuration.name
        runs = sorted(path.parent.name for path in results.glob(f"*/{file}"))
        known = f"There are: {', '.join(runs)}." if runs else "There are none yet."
        raise UserError(
            f"{folder.path} holds no run ({file} is missing). {known} "
            f"Choose one with --run-id and --results-dir."
        )
    return folder


def chosen_behaviors(args: argparse.Namespace, folder: RunFolder) -> list[str]:
    """Gives the behaviours of a run that have a checkpoint, or the one that was asked for.

    Raises:
        UserError: none has a checkpoint, or not the one that was asked for.
    """
    found = folder.saved_behaviors()
    if args.behavior is None and found:
        return found
    if args.behavior in found:
        return [args.behavior]
    asked = f" of behavior '{args.behavior}'" if args.behavior else ""
    known = f"It has: {', '.join(found)}." if found else "It was ended before the first one."
    if not found and folder.behaviors_in_the_way():
        known = (
            "Those of ML-Agents can be trained on (--resume, --initialize-from), not used as they "
            "are: resume the run once."
        )
    raise UserError(f"{folder.path} holds no checkpoint{asked}. {known}")


def settings_of_run(folder: RunFolder) -> RunSettings:
    """Gives the settings that a run was started with."""
    return load_run(folder.configuration)
