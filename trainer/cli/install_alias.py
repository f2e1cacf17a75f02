"""Installs the command `mlagents-learn` beside `ppo-train`, where ML-Agents is not installed.

Scripts that start `mlagents-learn` then start this program. The name stays ML-Agents' own: nothing
is written while its package is here, or over a file of somebody else's.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainer.config.errors import UserError

NAME = "mlagents-learn"
MARK = "Written by `ppo-train install-alias`; `ppo-train install-alias --remove` takes it away."
# -P: a folder `trainer` where the user stands is not ours.
POSIX = """#!/bin/sh
# {mark}
exec {python} -P -m trainer.cli.main train "$@"
"""
WINDOWS = """@rem {mark}
@"{python}" -P -m trainer.cli.main train %*
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --remove."""
    parser.add_argument("--remove", action="store_true", help=f"remove {NAME} again")


def run(args: argparse.Namespace) -> int:
    """Installs or removes the alias."""
    folder = Path(sysconfig.get_path("scripts"))
    path = remove(folder) if args.remove else install(folder)
    print(f"{'Removed' if args.remove else 'Installed'} {path}.")
    return 0


def install(folder: Path) -> Path:
    """Writes the alias into a folder of programs; again if it is there already.

    Raises:
        UserError: the name is taken, or the folder may not be written.
    """
    path = alias_path(folder)
    try:
        raise UserError(
            f"mlagents {version('mlagents')} is installed in {sys.prefix}, and {NAME} is its "
            f"command. Use ppo-train, or uninstall it: pip uninstall mlagents."
        )
    except PackageNotFoundError:
        pass
    require_ours(path)
    if os.name == "nt":
        text = WINDOWS.format(python=sys.executable, mark=MARK)
    else:
        text = POSIX.format(python=shlex.quote(sys.executable), mark=MARK)
    try:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Use ppo-train.") from error
    return path


def remove(folder: Path) -> Path:
    """Deletes the alias.

    Raises:
        UserError: there is none, or it is another program.
    """
    path = alias_path(folder)
    if not path.exists():
        raise UserError(f"{path} does not exist; there is nothing to remove.")
    require_ours(path)
    path.unlink()
    return path


def alias_path(folder: Path) -> Path:
    """Gives the alias's file."""
    return folder / (f"{NAME}.cmd" if os.name == "nt" else NAME)


def require_ours(path: Path) -> None:
    """Raises UserError when the file is there and was not written by this command."""
    if path.exists() and MARK.encode() not in path.read_bytes():
        raise UserError(
            f"{path} is another program, perhaps ML-Agents' own. It is left as it is; remove it "
            f"first if nobody needs it."
        )
