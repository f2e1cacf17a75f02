"""Lets a run's policy act in its simulator without learning, and reports what it earns."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.cli.run_arguments import (
    add_run_arguments,
    chosen_behaviors,
    chosen_run,
    settings_of_run,
)
from trainer.config.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which policy, how it acts, and where."""
    add_run_arguments(parser)
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="how many (10)")
    parser.add_argument(
        "--sampled", action="store_true", help="draw actions, as in training, not the likeliest"
    )
    parser.add_argument(
        "--onnx", action="store_true", help="act through the ONNX file, not the checkpoint"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of simulator and actions")
    parser.add_argument("--env", metavar="ENV", help="another simulator than the run's")
    parser.add_argument(
        "--video", type=Path, metavar="FILE.mp4", help="film the episodes (Gymnasium only)"
    )


def run(args: argparse.Namespace) -> int:
    """Plays the episodes and prints each return, then mean and deviation."""
    folder = chosen_run(args)
    names = chosen_behaviors(args, folder)
    if args.episodes < 1:
        raise UserError(f"--episodes is {args.episodes}; at least one episode must be played.")
    settings = settings_of_run(folder)

    from trainer.evaluation import Evaluation, evaluate, policies_of_run

    plan = Evaluation(
        env_path=args.env or settings.env_settings.env_path,
        episodes=args.episodes,
        deterministic=not args.sampled,
        seed=args.seed,
        video=args.video,
    )
    policies = policies_of_run(
        folder, names, use_onnx=args.onnx, from_step=args.from_step, plan=plan
    )
    for name, played in evaluate(settings, folder.logs / "eval", policies, plan).items():
        for number, (earned, length) in enumerate(played, start=1):
            print(f"{name} episode {number}: return {earned:.2f}, length {length}")
        returns = [earned for earned, _ in played]
        mean = sum(returns) / len(returns)
        deviation = (sum((earned - mean) ** 2 for earned in returns) / len(returns)) ** 0.5
        how = "sampled" if args.sampled else "deterministic"
        noun = "episode" if len(returns) == 1 else "episodes"
        print(
            f"{name}: mean return {mean:.2f}, std {deviation:.2f}, min {min(returns):.2f}, "
            f"max {max(returns):.2f} ({len(returns)} {how} {noun}, {policies[name].source})"
        )
    if args.video is not None:
        print(f"Filmed: {args.video}")
    return 0
