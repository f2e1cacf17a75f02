"""Says what is in an ONNX file, and what Unity's loaders make of it.

Exit code: 0 all is well, 1 Unity would warn, 2 Unity would refuse or fail, or the file cannot be
read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.errors import UserError

if TYPE_CHECKING:  # onnx and torch take a second to import
    from envs.spec import BehaviorSpec
    from trainer.unity_checks import Check
    from trainer.unity_model import ModelFacts, TensorFacts

INDENT = " " * 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file, and the run whose behaviour it should fit."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file from anywhere")
    parser.add_argument(
        "--spec",
        metavar="RUN",
        help="a run's id or folder: compare sizes with what its behaviour observes and does",
    )
    parser.add_argument("--behavior", metavar="NAME", help="with --spec: which of its behaviours")
    parser.add_argument(
        "--results-dir", default="results", metavar="DIR", help="folder of all runs"
    )


def run(args: argparse.Namespace) -> int:
    """Prints what was found; gives the exit code."""
    from trainer.unity_checks import Verdict, check
    from trainer.unity_model import read_model

    if args.behavior is not None and args.spec is None:
        raise UserError(
            f"--behavior {args.behavior} says which behaviour of a run is meant, but no run is "
            f"named. Add --spec with the run's id, or leave --behavior out."
        )
    model = read_model(args.model)
    spec = None if args.spec is None else _spec_of(args)
    checks = check(model, spec)
    for line in (*_contents(model), "Unity", *_lines(checks)):
        print(line)
    counts = {verdict: sum(found.verdict == verdict for found in checks) for verdict in Verdict}
    worst = max(found.verdict for found in checks)
    print(
        f"{args.model}: {len(checks)} checks, {counts[Verdict.WARNING]} warnings, "
        f"{counts[Verdict.ERROR]} errors. {_CONCLUSIONS[worst]}"
    )
    return int(worst)


_CONCLUSIONS = (
    "Nothing that Unity would object to was found.",
    "Unity would warn.",
    "Unity would refuse it, or fail when it runs it.",
)


def _spec_of(args: argparse.Namespace) -> BehaviorSpec:
    """Reads what a run's simulator has said of its behaviour."""
    from trainer.run_folder import RunFolder
    from trainer.saved_policy import spec_from_state

    by_id = Path(args.results_dir) / args.spec
    path = by_id if by_id.is_dir() else Path(args.spec)
    if not path.is_dir():
        raise UserError(
            f"--spec {args.spec}: neither {by_id} nor {path} is a folder. Expected a run's id, or "
            f"the path of its folder."
        )
    folder = RunFolder(path)
    name = _behavior_of(args, folder.saved_behaviors(), path)
    state, _ = folder.store(name, keep=0).load()
    return spec_from_state(state["spec"])


def _behavior_of(args: argparse.Namespace, saved: Sequence[str], path: Path) -> str:
    """Picks the behaviour by name, by the file's name, or because there is only one."""
    if args.behavior in saved:
        return str(args.behavior)
    if args.behavior is None:
        stem = args.model.stem
        fitting = [name for name in saved if stem == Path(name).name]
        fitting += [name for name in saved if stem.startswith(f"{Path(name).name}-")]
        if len(saved) == 1 or fitting:
            return (fitting or list(saved))[0]
    known = f"It has: {', '.join(saved)}." if saved else "It has no checkpoint of ppo-train."
    asked = f" for '{args.behavior}'" if args.behavior else f" for {args.model.name}"
    raise UserError(f"{path} has no behaviour{asked}. {known} Choose one with --behavior.")


def _contents(model: ModelFacts) -> Iterator[str]:
    from trainer.unity_model import COMPUTED

    opsets = ", ".join(f"{domain} {version}".strip() for domain, version in model.opsets.items())
    yield f"{model.path}: by {model.producer}, ONNX IR {model.ir_version}, opset {opsets}"
    yield from _table("Inputs", model.inputs)
    yield from _table("Outputs", model.outputs)
    yield "Constants"
    for tensor in model.outputs:
        value = model.answer(tensor.name)
        if value is not None and model.origins[tensor.name] != COMPUTED:
            yield f"  {tensor.name} = {value.tolist()} ({model.origins[tensor.name]})"
    yield "Operators"
    yield "  " + ", ".join(f"{name} x{count}" for name, count in model.operators.items())


def _table(title: str, tensors: Iterable[TensorFacts]) -> Iterator[str]:
    from trainer.unity_checks import shown

    yield title
    rows = [(tensor.name, tensor.dtype, shown(tensor)) for tensor in tensors]
    width = max((len(name) for name, _, _ in rows), default=0)
    yield from (f"  {name:<{width}}  {dtype:<5}  {shape}" for name, dtype, shape in rows)


def _lines(checks: Iterable[Check]) -> Iterator[str]:
    for found in checks:
        word = "ok" if not found.verdict else found.verdict.name
        yield f"  {word:<8} {found.found}"
        if found.consequence:
            yield f"{INDENT}{found.consequence}"
