"""Runs the real job for a few updates and writes where its time goes, for Perfetto."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from trainer.config import flags
from trainer.config.errors import UserError
from trainer.config.load import load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a run's flags, and how much of it is wanted."""
    parser.add_argument("--updates", type=int, default=3, metavar="N", help="updates to run (3)")
    parser.add_argument(
        "--out", type=Path, default=Path("trace.json"), metavar="FILE", help="trace (trace.json)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="keep the run's results in DIR/profile; without it they are deleted",
    )
    flags.add_arguments(parser, reused=("--torch",))
    parser.add_argument(
        "--torch",
        action="store_true",
        dest="torch_trace",
        help="also PyTorch's own trace of the last update, beside FILE",
    )


def run(args: argparse.Namespace) -> int:
    """Profiles, prints a table and the file's path; gives the run's exit code."""
    if args.updates < 1:
        raise UserError(f"--updates is {args.updates}; at least one update must be run.")
    typed = flags.collect(args)
    settings = load_run(typed.config_path, typed.overrides)
    if settings.checkpoint_settings.inference:
        raise UserError(
            "--inference learns nothing, so there is no update to profile: leave it out."
        )

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from trainer.cli.console import PlainReporter
    from trainer.profiling import ProfiledRun, settings_to_profile
    from trainer.stopping import StopRequest

    out: Path = args.out
    torch_trace = out.with_name(f"{out.stem}.torch.json") if args.torch_trace else None
    stop = StopRequest()
    with ExitStack() as stack:
        folder = args.folder
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="ppo-train-profile-")))
        reporter = stack.enter_context(PlainReporter(settings.debug))
        stack.enter_context(stop.listening())
        own = settings_to_profile(settings, folder)
        profiled = ProfiledRun(own, reporter, stop, args.updates, torch_trace)
        try:
            with profiled.recorded():
                outcome = profiled.execute()
        finally:
            profiled.trace.write(out)
    print("\n".join(profiled.table()))
    print(f"Ended: {outcome.reason.rstrip('.')}.")
    print(f"Trace: {out} (open it in https://ui.perfetto.dev or chrome://tracing)")
    if torch_trace is not None and torch_trace.exists():
        print(f"PyTorch's trace of the last update: {torch_trace}")
    return outcome.exit_code
