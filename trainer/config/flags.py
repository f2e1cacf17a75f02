"""The command line of `mlagents-learn`, flag for flag, and ours on top.

Only flags that were really typed reach the settings, where they win over the file. Values stay
texts: the settings check them, so that a flag and a key are refused with the same words.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from envs.tls import CONTROL_TOKEN_VARIABLE, TOKEN_VARIABLE
from trainer.config.errors import UserError
from trainer.config.problems import KeyPath, nearest, program

logger = logging.getLogger(__name__)

TOP_LEVEL = ""
"""Section name of keys that stand in no section."""

ALL_NETWORKS = "network_settings"
"""Section name of keys that go into the network_settings of every behaviour."""


class Flag(NamedTuple):
    """One flag: where its value goes and what help says; a switch has no metavar."""

    section: str
    key: str
    metavar: str | None
    help: str
    name: str = ""
    bare: str | None = None  # what the flag means without its value; None: it needs one

    @property
    def option(self) -> str:
        """The flag as it is typed."""
        return self.name or "--" + self.key.replace("_", "-")


ENV, ENGINE, STORE = "env_settings", "engine_settings", "checkpoint_settings"
LISTEN = "listen_settings"
GROUPS: Mapping[str, tuple[Flag, ...]] = {
    "simulators": (
        Flag(
            ENV,
            "env_path",
            "ENV",
            "a Unity build, gym:<id>, gym:<module>:<class> or torch:<module>:<class>; without it "
            "the Unity Editor is waited for on port 5004 (or --base-port)",
            "--env",
        ),
        Flag(
            ENV,
            "num_envs",
            "N",
            "simulator processes; auto: as many as are fastest; 0: in the trainer's process",
        ),
        Flag(ENV, "num_areas", "N", "training areas (environments) in each"),
        Flag(ENV, "seed", "N", "seed of the run; simulator i gets N + i"),
        Flag(ENV, "base_port", "N", "simulator i dials port N + i; without it the system picks"),
        Flag(ENV, "timeout_wait", "S", "seconds a simulator may be silent"),
        Flag(ENV, "act_at", "PLACE", "where agents act: auto, trainer or simulator"),
        Flag(ENV, "max_lifetime_restarts", "N", "crashes until a simulator is given up; -1: never"),
        Flag(ENV, "restarts_rate_limit_n", "N", "crashes allowed in the period; -1: any number"),
        Flag(ENV, "restarts_rate_limit_period_s", "S", "seconds of that period"),
    ),
    "simulators of other machines": (
        Flag(
            LISTEN, "host", "HOST", "where they dial; elsewhere than 127.0.0.1 with TLS and token"
        ),
        Flag(LISTEN, "tls", "generate", "make a certificate and key for the run, and keep them"),
        Flag(LISTEN, "tls_cert", "FILE", "certificate (PEM)"),
        Flag(LISTEN, "tls_key", "FILE", "its private key (PEM)"),
        Flag(LISTEN, "token_file", "FILE", f"their token; without it {TOKEN_VARIABLE} holds it"),
    ),
    "storage": (
        Flag(STORE, "run_id", "ID", "name of the run and its folder"),
        Flag(STORE, "results_dir", "DIR", "folder of all runs"),
        Flag(STORE, "resume", None, "go on with the run of this id"),
        Flag(STORE, "resume_or_start", None, "go on with the run of this id, or start it"),
        Flag(STORE, "force", None, "reuse the folder of an existing run"),
        Flag(STORE, "initialize_from", "ID", "begin with the weights of another run"),
        Flag(STORE, "inference", None, "act without learning"),
    ),
    "control": (
        Flag(
            "control_settings",
            "port",
            "PORT",
            "let `ppo-train status`, `pause`, `set` and the like reach the run, and Prometheus; "
            "without PORT on a free one; write it behind CONFIG.yaml",
            "--control",
            bare="0",
        ),
        Flag(
            "control_settings",
            "host",
            "HOST",
            "where they reach it; elsewhere than 127.0.0.1 with the TLS of --tls and a token",
            "--control-host",
        ),
        Flag(
            "control_settings",
            "token_file",
            "FILE",
            f"their token; without it {CONTROL_TOKEN_VARIABLE} holds it, or run_logs/control.json",
            "--control-token-file",
        ),
        Flag(
            "control_settings",
            "health_port",
            "PORT",
            "with --control: answer gRPC's standard health checks; without PORT on a free port",
            "--control-health",
            bare="0",
        ),
    ),
    "learning": (
        Flag(
            ALL_NETWORKS, "deterministic", None, "act with the most likely action, in training too"
        ),
        Flag("torch_settings", "device", "DEV", "cpu, cuda, cuda:0, ...", "--torch-device"),
        Flag(TOP_LEVEL, "reproducible", None, "equal seeds give equal weights; slower"),
        Flag(TOP_LEVEL, "debug", None, "log details"),
    ),
    "Unity engine": (
        Flag(ENGINE, "width", "N", "window width in pixels"),
        Flag(ENGINE, "height", "N", "window height in pixels"),
        Flag(ENGINE, "quality_level", "N", "quality level"),
        Flag(ENGINE, "time_scale", "X", "speed of the clock"),
        Flag(ENGINE, "target_frame_rate", "N", "frames per second to aim at; -1: most"),
        Flag(ENGINE, "capture_frame_rate", "N", "frames per simulated second"),
        Flag(ENGINE, "no_graphics", None, "run without graphics"),
        Flag(ENGINE, "no_graphics_monitor", None, "the same for all simulators but the first"),
    ),
}
ENV_ARGS = Flag(ENV, "env_args", "ARG", "everything after it goes to the simulator; must come last")
ALL_FLAGS = (*(flag for flags in GROUPS.values() for flag in flags), ENV_ARGS)

# Hidden: `mlagents-learn` still accepts them.
RETIRED: Mapping[str, str] = {
    "--load": "read as --resume; write --resume",
    "--train": "has no effect: training is what happens without --inference",
    "--torch": "has no effect: there is only PyTorch",
    "--tensorflow": "has no effect: there is only PyTorch",
}

# Gone: older releases of `mlagents-learn` had them, 1.x does not.
GONE: Mapping[str, str] = {
    **dict.fromkeys(
        ("--curriculum", "--sampler"),
        "It stands in the settings now: ppo-train upgrade OLD.yaml {} FILE.yaml -o NEW.yaml",
    ),
    "--lesson": "A run that goes on knows its lesson",
    "--slow": "Write --time-scale 1",
    "--cpu": "Write --torch-device cpu",
    "--keep-checkpoints": "Write keep_checkpoints below the behaviour",
    "--save-freq": "Write checkpoint_interval below the behaviour",
}


class UsageError(UserError):
    """A command line that cannot be understood."""


class Parser(argparse.ArgumentParser):
    """Argument parser whose mistakes are `UsageError`s and name the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of leaving the process."""
        _, _, words = message.partition("unrecognized arguments: ")
        if not words:
            raise UsageError(f"{self.prog}: {message}. `{self.prog} --help` explains all.")
        word = words.split()[0]
        option = word.partition("=")[0]
        if option in GONE and "--torch-device" in self._option_string_actions:
            advice = GONE[option].format(option)
            raise UsageError(f"{self.prog}: {option} belongs to ML-Agents before 1.0. {advice}.")
        options = [option for option in self._option_string_actions if option.startswith("--")]
        close = nearest(word.partition("=")[0], options) if word.startswith("-") else None
        advice = f"Did you mean {close}?" if close else f"`{self.prog} --help` lists all."
        raise UsageError(f"{self.prog}: unknown argument {word!r}. {advice}")


@dataclass(frozen=True)
class TrainArguments:
    """What was typed: a file, and settings by section and key."""

    config_path: Path | None = None
    overrides: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser, reused: Collection[str] = ()) -> None:
    """Adds the YAML file and all flags; flags that are not typed leave nothing behind.

    Args:
        parser: of the verb.
        reused: retired flags that mean something else to this verb, which adds them itself.
    """
    parser.add_argument(
        "trainer_config_path",
        nargs="?",
        metavar="CONFIG.yaml",
        help="settings in ML-Agents' format; without it, defaults",
    )
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            add_flag(group, flag)
        if title == "simulators":
            add_flag(group, ENV_ARGS, nargs=argparse.REMAINDER)
    for option in (option for option in RETIRED if option not in reused):
        parser.add_argument(
            option, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def add_flag(group: Any, flag: Flag, **more: Any) -> None:
    """Adds one flag to a group of the parser."""
    kind: dict[str, Any] = {"action": "store_true"}
    if flag.metavar is not None:
        kind = {"metavar": flag.metavar, **more}
    if flag.bare is not None:
        kind |= {"nargs": "?", "const": flag.bare}
    group.add_argument(
        flag.option, dest=dest(flag), default=argparse.SUPPRESS, help=flag.help, **kind
    )


def dest(flag: Flag) -> str:
    """Gives the attribute of argparse's namespace that a flag sets."""
    return f"{flag.section}.{flag.key}"


def collect(arguments: argparse.Namespace) -> TrainArguments:
    """Sorts what was typed into the sections of the settings."""
    typed = vars(arguments)
    overrides: dict[str, dict[str, object]] = {}
    for flag in ALL_FLAGS:
        if dest(flag) in typed:
            overrides.setdefault(flag.section, {})[flag.key] = typed[dest(flag)]
    for option, note in RETIRED.items():
        if option[2:] in typed:
            logger.warning("%s %s.", option, note)
            if option == "--load":
                overrides.setdefault(STORE, {})["resume"] = True
    path = typed.get("trainer_config_path")
    return TrainArguments(None if path is None else Path(path), overrides)


def parse_train(argv: Sequence[str], prog: str = "ppo-train") -> TrainArguments:
    """Parses the command line of a training run.

    Raises:
        UsageError: an argument is not known, or lacks its value.
    """
    parser = Parser(prog=prog, description="Trains the behaviours of a simulator.")
    add_version(parser)
    add_arguments(parser)
    return collect(parser.parse_args(argv))


class ShowVersion(argparse.Action):
    """Prints name and version; looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        """Prints and leaves with exit code 0."""
        print(program())
        parser.exit()


def add_version(parser: argparse.ArgumentParser) -> None:
    """Adds `--version`."""
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")


def flag_of(path: KeyPath) -> str:
    """Gives the flag that sets the key at `path`, as it is typed."""
    where = path if len(path) > 1 else (TOP_LEVEL, *path)
    return next(flag.option for flag in ALL_FLAGS if (flag.section, flag.key) == where)
