"""Examines this machine, and says what to do where a run could not start.

Exit code 0 when runs can start here (warnings are for some of them), 1 when not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXIT_HEALTHY = 0
EXIT_ILL = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the folder of the runs."""
    parser.add_argument(
        "--results-dir", default="results", metavar="DIR", type=Path, help="folder of all runs"
    )


def run(args: argparse.Namespace) -> int:
    """Prints each finding as it comes."""
    from trainer.doctor import Verdict, examine

    num_failures = num_warnings = 0
    for finding in examine(args.results_dir):
        num_failures += finding.verdict is Verdict.FAILURE
        num_warnings += finding.verdict is Verdict.WARNING
        print(f"{finding.verdict.value:>7}  {finding.subject}: {finding.found}", flush=True)
        if finding.advice:
            print(f"{'':>7}  -> {finding.advice}")
    if num_failures:
        print(f"Runs cannot start here: {num_failures} to put right.")
        return EXIT_ILL
    print(f"Runs can start here ({num_warnings} warning{'s' * (num_warnings != 1)}).")
    return EXIT_HEALTHY
