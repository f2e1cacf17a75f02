"""Says whether settings can be used, and with --env whether they fit the scene.

Without --env or --editor nothing is started. With it, one simulator is started, looked at, and
ended again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainer.config import flags
from trainer.config.document import read_document
from trainer.config.errors import ConfigError
from trainer.config.load import Overrides, resolve
from trainer.config.settings import RunSettings
from trainer.trackers.processes import chosen_trackers

EXIT_VALID = 0
EXIT_INVALID = 2

# What a simulator needs to be started; all other flags are for training.
SIMULATOR_KEYS = ("env_path", "base_port", "timeout_wait", "num_areas", "seed", "no_graphics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the files, and how to start a simulator."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE.yaml", type=Path, help="settings to check"
    )
    group = parser.add_argument_group("look at the scene too")
    group.add_argument(
        "--editor", action="store_true", help="wait for Play in the Unity Editor, and look"
    )
    for flag in flags.ALL_FLAGS:
        if flag.key in SIMULATOR_KEYS:
            flags.add_flag(group, flag)
    flags.add_flag(group, flags.ENV_ARGS, nargs=argparse.REMAINDER)


def run(args: argparse.Namespace) -> int:
    """Checks every file; 0 when all are valid, else 2."""
    typed = flags.collect(args).overrides
    env = typed.get("env_settings", {})
    if args.editor and "env_path" in env:
        raise flags.UsageError("ppo-train check: --editor and --env cannot both be looked at.")
    wants_scene = args.editor or "env_path" in env
    if typed and not wants_scene:
        raise flags.UsageError(
            "ppo-train check: without --env or --editor nothing is started, so nothing else may be "
            "said about simulators. Add --env or --editor."
        )
    if wants_scene:
        # There is one Editor, whatever the file says; of others, one is looked at.
        changes = {"num_envs": "1", "env_path": None} if args.editor else {}
        typed = {**typed, "env_settings": {**env, **changes}}
    return max(check(path, typed, wants_scene) for path in args.files)


def check(path: Path, overrides: Overrides, wants_scene: bool) -> int:
    """Checks one file, and prints what was found."""
    try:
        document = read_document(path)
        settings = resolve(document, overrides)
        chosen_trackers(settings.trackers)  # whether their packages are there
    except ConfigError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        print(f"{path} is not valid: {count} problem{'s' * (count != 1)}", file=sys.stderr)
        return EXIT_INVALID
    names = ", ".join(settings.behaviors) or "any (default_settings)"
    noun = "behaviour" if len(settings.behaviors) == 1 else "behaviours"
    print(f"{path} is valid: {noun} {names}, {keys_of(document.values)}", flush=True)
    return check_scene(path, settings) if wants_scene else EXIT_VALID


def check_scene(path: Path, settings: RunSettings) -> int:
    """Compares a file with the scene, and prints both."""
    from trainer.scene import description, differences, look_at_scene

    env, port = settings.env_settings.env_path, settings.env_settings.base_port
    if env is None:
        print(f"Press Play in the Unity Editor (port {port or 5004}) ...", flush=True)
    scene = look_at_scene(settings)
    print(f"{env or 'The Unity Editor'} was started and answers:" if env else "It answers:")
    for line in description(scene):
        print(f"  {line}")
    problems, notes = differences(settings, scene)
    for text in [*problems, *notes]:
        print(f"{path}: {text}", file=sys.stderr)
    if problems:
        return EXIT_INVALID
    print(f"{path} fits the scene")
    return EXIT_VALID


def keys_of(values: object) -> str:
    """Says how many keys a file sets."""
    count = number_of_keys(values)
    return f"{count} key{'s' * (count != 1)}"


def number_of_keys(values: object) -> int:
    """Counts the keys that hold a plain value."""
    if not isinstance(values, dict):
        return 1
    return sum(number_of_keys(value) for value in values.values())
