"""`ppo-train check FILE.yaml`: says whether settings can be used, without starting anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainer.config.document import read_document
from trainer.config.errors import ConfigError
from trainer.config.load import resolve

EXIT_VALID = 0
EXIT_INVALID = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the files to check."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE.yaml", type=Path, help="settings to check"
    )


def run(args: argparse.Namespace) -> int:
    """Checks every file; 0 when all are valid, else 2."""
    return max(check(path) for path in args.files)


def check(path: Path) -> int:
    """Checks one file, and prints what was found."""
    try:
        document = read_document(path)
        settings = resolve(document)
    except ConfigError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        print(f"{path} is not valid: {count} problem{'s' * (count != 1)}", file=sys.stderr)
        return EXIT_INVALID
    names = ", ".join(settings.behaviors) or "any (default_settings)"
    noun = "behaviour" if len(settings.behaviors) == 1 else "behaviours"
    print(f"{path} is valid: {noun} {names}, {number_of_keys(document.values)} keys")
    return EXIT_VALID


def number_of_keys(values: object) -> int:
    """Counts the keys that hold a plain value."""
    if not isinstance(values, dict):
        return 1
    return sum(number_of_keys(value) for value in values.values())
