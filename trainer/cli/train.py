"""Trains the behaviours of a simulator."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from trainer.config import flags
from trainer.config.load import load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds mlagents-learn's flags, and ours."""
    flags.add_arguments(parser)
    parser.add_argument(
        "--from-step",
        type=int,
        metavar="N",
        help="with --resume: go on from the checkpoint of this step, not from the newest",
    )


def run(args: argparse.Namespace) -> int:
    """Trains until max_steps or a signal; gives the exit code."""
    typed = flags.collect(args)
    settings = load_run(typed.config_path, typed.overrides)

    # torch is imported only now, so that a mistake in the file is told at once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from trainer.cli.console import make_reporter
    from trainer.metrics import print_no_writer_errors
    from trainer.run import Run
    from trainer.run_end import EXIT_NO_SIMULATORS, EXIT_USER_ERROR, in_words
    from trainer.run_lock import run_lock
    from trainer.simulators import parameter_lines
    from trainer.stopping import StopRequest

    print_no_writer_errors()
    stop = StopRequest()
    with make_reporter(settings.debug) as reporter, stop.listening():
        results_dir = settings.checkpoint_settings.results_dir
        try:
            run = Run(settings, reporter, stop, args.from_step)
        except OSError as error:  # such as a results folder that is read-only
            told = in_words(error, Path(results_dir))
            if told is error:
                raise
            raise told from error
        for line in parameter_lines(settings.environment_parameters):
            reporter.info(line)
        reporter.info(f"Watch the curves: {curves_command(results_dir)}")
        # Acting alone writes nothing that another process reads or writes.
        is_alone = settings.checkpoint_settings.inference
        with nullcontext() if is_alone else run_lock(run.storage.folder.logs):
            outcome = run.execute()
        has_failed = outcome.exit_code in (EXIT_USER_ERROR, EXIT_NO_SIMULATORS)
        say = reporter.error if has_failed else reporter.info
        if run.behaviors and not run.is_finished and not is_alone:
            reporter.info(f"Go on with: {resume_command(args)}")
        # The last line of all: whoever looks at the end of a log wants to know why.
        say(f"Run '{settings.checkpoint_settings.run_id}' ended: {outcome.reason.rstrip('.')}.")
    return outcome.exit_code


def program(name: str) -> str:
    """Gives what starts a program here: its name, or its path if that is not on the PATH."""
    beside = Path(sys.executable).parent
    return name if shutil.which(name) else shutil.which(name, path=str(beside)) or name


def curves_command(results_dir: str) -> str:
    """Gives the words that show the curves of all runs."""
    return shlex.join([program("tensorboard"), "--logdir", results_dir])


def resume_command(args: argparse.Namespace) -> str:
    """Gives the words that go on with this run, on top of those that began it."""
    typed = vars(args)
    words = [program("ppo-train")]
    if typed["trainer_config_path"] is not None:
        words.append(typed["trainer_config_path"])
    for flag in flags.ALL_FLAGS:
        if flag is flags.ENV_ARGS:
            words.append("--resume")  # everything behind --env-args is the simulator's
        if flags.dest(flag) in typed and flag.key not in (
            "resume",
            "resume_or_start",
            "force",
            "initialize_from",
        ):
            value = typed[flags.dest(flag)]
            values = value if isinstance(value, list) else [value]
            words += [flag.option, *([] if value is True else values)]
    return shlex.join(words)
