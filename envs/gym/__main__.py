"""The simulator agent's command line: `python -m envs.gym --env Walker2d-v5 --mlagents-port P`.

A trainer starts it, or a user on another machine (`--trainer HOST:PORT`). Ends with 0 when the
trainer closes, 2 after a mistake of the user, 1 when the environment raises.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.bridge.arguments import parse_simulator_arguments, trainer_of
from envs.errors import SimulatorError
from envs.gym.names import default_behavior_name

DESCRIPTION = """\
Serves a Gymnasium environment to ppo-train, or to any trainer that speaks ML-Agents' protocol.
An environment may have a method set_parameters(dict[str, float]) to take environment parameters,
and may give numbers to report in info["stats"].
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the agent until the trainer closes; gives the process's exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse_simulator_arguments(_parser(), words, has_distant_trainer=True)
    # The log of a process that is killed should still hold what the environment printed.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper
    faulthandler.enable()  # physics engines may crash outside Python
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    # Many agents share a machine; threads for tiny matrices would only fight each other.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    try:
        return _run(options)
    except SimulatorError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    from envs.bridge.client import TrainerClosedError, TrainerConnection, Welcome
    from envs.gym.agent import GymSimulator, layouts_of, require_equal_spaces, serve
    from envs.gym.film import Film, prepare_rendering
    from envs.gym.wrappers import make_wrapped_env

    trainer = trainer_of(options)
    if options.video is not None:
        options.kwargs = {"render_mode": "rgb_array", **options.kwargs}
        prepare_rendering()
    # One environment is built before dialling, so that mistakes show at once and nobody takes the
    # end of this process for a crash.
    envs = [make_wrapped_env(options.env, options.kwargs, options.wrappers)]
    if options.video is not None:
        envs[0] = Film(envs[0], options.video)
    layouts_of(envs[0])
    behavior_name = options.behavior or default_behavior_name(options.env)

    def build(welcome: Welcome) -> GymSimulator:
        num_areas = options.num_areas or max(1, welcome.num_areas)
        seed = welcome.seed if options.seed is None else options.seed
        envs.extend(
            make_wrapped_env(options.env, options.kwargs, options.wrappers)
            for _ in range(num_areas - 1)
        )
        require_equal_spaces(envs)
        return GymSimulator(envs, behavior_name, seed, has_channels_last=welcome.has_channels_last)

    with TrainerConnection(trainer) as connection:
        try:
            serve(connection, build)
        except TrainerClosedError as goodbye:
            logging.getLogger(__name__).info("ends: %s", goodbye)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m envs.gym", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument(
        "--env", required=True, help="a registered id, or package.module:ClassOrFunction"
    )
    parser.add_argument(
        "--kwargs", type=_json_object, default={}, metavar="JSON", help="constructor arguments"
    )
    parser.add_argument(
        "--wrappers",
        type=_json_wrappers,
        default=[],
        metavar="JSON",
        help="what to put around the environment, the innermost first",
    )
    parser.add_argument(
        "--num-areas",
        type=_at_least_one,
        help="copies of the environment, each an agent; default: what the trainer asks for",
    )
    parser.add_argument("--behavior", metavar="NAME", help="default: the id without its version")
    parser.add_argument(
        "--video", type=Path, metavar="FILE.mp4", help="film the first copy's episodes"
    )
    parser.add_argument("--seed", type=int, help="default: the trainer's")
    return parser


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"gravity": 9.8}}')
    return value


def _json_wrappers(text: str) -> list[dict[str, dict[str, Any]]]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if isinstance(value, list):
        items = [{item: {}} if isinstance(item, str) else item for item in value]
        if all(isinstance(item, dict) and len(item) == 1 for item in items) and all(
            isinstance(arguments, dict) for item in items for arguments in item.values()
        ):
            return items
    raise argparse.ArgumentTypeError(
        f"{text!r} is no JSON list of names with their arguments, such as "
        f'[{{"ClipReward": {{"max_reward": 1}}}}]'
    )


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
