"""`ppo-train`: picks the verb, and turns the user's mistakes into one message and exit code 2."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from envs.errors import SimulatorError
from trainer.cli.lasting import lasting_output
from trainer.config.errors import UserError
from trainer.config.flags import Parser, UsageError, add_version
from trainer.config.problems import nearest, program

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Verb(NamedTuple):
    """A word after `ppo-train`; its module is imported only when it is used."""

    module: str
    summary: str


VERBS = {
    "train": Verb("trainer.cli.train", "train the behaviours of a simulator (the default)"),
    "check": Verb("trainer.cli.check", "say whether a settings file can be used"),
    "doctor": Verb("trainer.cli.doctor", "say whether runs can start on this machine"),
    "schema": Verb("trainer.cli.schema", "print the settings' JSON Schema, for editors"),
    "upgrade": Verb("trainer.cli.upgrade", "write a settings file of an older ML-Agents anew"),
    "install-alias": Verb("trainer.cli.install_alias", "install mlagents-learn as another name"),
    "export": Verb("trainer.cli.export", "write a run's policies as ONNX, for Unity"),
    "profile": Verb("trainer.cli.profile", "say where the time of a job goes, with a trace"),
    "verify": Verb("trainer.cli.verify", "say what Unity would make of an ONNX file"),
    "eval": Verb("trainer.cli.evaluate", "let a run's policies act, and report returns or a video"),
    "status": Verb("trainer.cli.live", "say how a running run is doing (it has --control)"),
    "pause": Verb("trainer.cli.live", "let a running run's simulators wait"),
    "continue": Verb("trainer.cli.live", "end a pause"),
    "checkpoint": Verb("trainer.cli.live", "save a running run now"),
    "set": Verb("trainer.cli.set_values", "change settings of a running run"),
    "stop": Verb("trainer.cli.live", "end a running run, saved"),
}
HELP = """usage: ppo-train [train] [CONFIG.yaml] [flags]
       ppo-train VERB ...

Trains reinforcement-learning policies for Unity ML-Agents projects and Gymnasium environments.
Reads mlagents-learn's YAML and takes its flags.

verbs:
{verbs}

examples:
  ppo-train behaviors.yaml                                 train what the file says
  ppo-train behaviors.yaml --env gym:HalfCheetah-v5 --run-id cheetah --num-envs 4
  ppo-train Walker.yaml --env builds/Walker --no-graphics  train a Unity build
  ppo-train Walker.yaml                                    wait for the Unity Editor's Play button
  ppo-train behaviors.yaml --resume                        go on with a run
  ppo-train check behaviors.yaml                           only look for mistakes in the file
  ppo-train behaviors.yaml --control                       let these reach the run:
  ppo-train status --run-id walker2d                       how it is doing
  ppo-train set learning_rate=1e-4 --run-id walker2d       without stopping it

exit codes:
  0 finished   1 a defect of ours   2 a mistake that the message explains   3 no simulator is left
  4 the disk is full or cannot be written   5 learning has diverged twice   6 out of memory
  130 Ctrl-C, 143 SIGTERM, 129 terminal closed: everything is saved, go on with --resume

`ppo-train VERB --help` describes a verb, `ppo-train train --help` all flags."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with lasting_output():
        return _told(words)


def _told(words: list[str]) -> int:
    """Runs one command; mistakes become a message."""
    try:
        return dispatch(words)
    except (UserError, SimulatorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def dispatch(words: list[str]) -> int:
    """Finds the verb and hands it the rest of the line."""
    if words[:1] in (["--help"], ["-h"], ["help"]):
        print(help_text())
        return 0
    if words[:1] == ["--version"]:
        print(program())
        return 0
    name, rest = ("train", words) if not words or words[0] not in VERBS else (words[0], words[1:])
    if rest is words and rest:
        refuse_misspelt_verb(rest[0])
    module = importlib.import_module(VERBS[name].module)
    parser = Parser(prog=f"ppo-train {name}", description=module.__doc__)
    add_version(parser)
    module.add_arguments(parser)
    parser.set_defaults(verb=name)  # some modules serve several
    code: int = module.run(parser.parse_args(rest))
    return code


def refuse_misspelt_verb(word: str) -> None:
    """Tells a verb with a typing mistake from the name of a file."""
    if word.startswith("-") or Path(word).suffix or Path(word).exists():
        return
    close = nearest(word, VERBS)
    advice = f" Did you mean '{close}'?" if close else " `ppo-train --help` lists the verbs."
    raise UsageError(f"ppo-train: {word!r} is neither a verb nor a file.{advice}")


def help_text() -> str:
    """Gives the first page of help."""
    width = max(len(name) for name in VERBS)
    return HELP.format(
        verbs="\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    )


if __name__ == "__main__":
    sys.exit(main())
