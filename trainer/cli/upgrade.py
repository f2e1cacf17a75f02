"""Writes a settings file of an older ML-Agents in today's format; comments stay with their keys."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainer.config.document import Document, parse_document, read_document
from trainer.config.errors import ConfigError, UserError
from trainer.config.load import resolve
from trainer.config.upgrade.dialect import upgraded
from trainer.config.upgrade.emit import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the old file, what stood in files of its own then, and the new file."""
    parser.add_argument("old", metavar="OLD.yaml", type=Path, help="the settings to write anew")
    parser.add_argument(
        "-o", "--output", metavar="NEW.yaml", type=Path, help="without it, they are printed"
    )
    parser.add_argument(
        "--curriculum", metavar="FILE.yaml", type=Path, help="the file that 0.16 took as this flag"
    )
    parser.add_argument(
        "--sampler", metavar="FILE.yaml", type=Path, help="the file that 0.16 took as this flag"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the new file; what cannot be kept, and what is still wrong with it, is told."""
    document, curriculum, sampler = (
        None if path is None else sound_document(path)
        for path in (args.old, args.curriculum, args.sampler)
    )
    assert document is not None
    upgrade = upgraded(document, curriculum, sampler)
    if upgrade is None:
        print(f"{args.old} is in today's format already; nothing to write", file=sys.stderr)
        return 0
    assert document.root is not None
    text, lost = emit(upgrade.document, document.root)
    for place, note in sorted(upgrade.notes):
        where = f"{args.old}:{place.line}:{place.column}: " if place.line else ""
        print(f"{where}{note}.", file=sys.stderr)
    for comment in lost:
        print(f"{args.old}:{comment.line + 1}: not kept: {comment.text}", file=sys.stderr)
    for extra in (args.curriculum, args.sampler):
        if extra is not None:
            print(f"{extra}: its comments are not kept", file=sys.stderr)
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_new(args.output, text)
        print(f"Wrote {args.output} (from the format of {upgrade.format})")
    for problem in problems_of(args.output or args.old.with_suffix(".new.yaml"), text):
        print(f"still to do: {problem}", file=sys.stderr)
    return 0


def sound_document(path: Path) -> Document:
    """Reads a file whose keys are given once each.

    Raises:
        ConfigError: it cannot be read, or a key is given twice.
    """
    document = read_document(path)
    if document.problems:
        places = ((document.place(problem.path), problem.text) for problem in document.problems)
        raise ConfigError(*(f"{path}:{at.line}:{at.column}: {text}" for at, text in places))
    return document


def write_new(path: Path, text: str) -> None:
    """Writes a file that is not there yet.

    Raises:
        UserError: it is there, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists already. Choose another name for -o.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Choose another.") from error


def problems_of(path: Path, text: str) -> tuple[str, ...]:
    """Gives what `ppo-train check` would find in the new file."""
    try:
        resolve(parse_document(path, text))
    except ConfigError as error:
        return error.problems
    return ()
