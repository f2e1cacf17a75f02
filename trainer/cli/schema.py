"""Prints the JSON Schema of settings files, with which editors complete and check them.

ppo-train schema > behaviors.schema.json, and in the first line of a settings file:
# yaml-language-server: $schema=behaviors.schema.json
"""

from __future__ import annotations

import argparse
import sys

from trainer.config.json_schema import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Prints the schema."""
    del args
    sys.stdout.write(render())
    return 0
