"""An update that broke the numbers: noticed before anyone acts with it, taken back, and kept.

What an update has learnt counts only once everything in the policy and in the optimiser is finite.
Until then no agent acts with it and no checkpoint holds it; if it is not, everything is as it was
before, and the rollout that did it lies in a file for whoever wants to know why.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from trainer.algos.base import Algorithm, Update
from trainer.atomic_file import atomic_write
from trainer.checkpoint import plain
from trainer.config.errors import UserError
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.rollout import Rollout

LOWER = 0.1  # what the learning rate is multiplied by after the first time


class DivergedError(UserError):
    """Learning broke the weights a second time; the good ones before it have been restored."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Divergence:
    """An update that was taken back."""

    update: int  # that it would have been, counted from 1
    step: int
    what: str  # is not finite
    dump: Path | None  # where the rollout lies; None: it could not be written
    dump_error: str | None
    learning_rate: float  # that the run goes on with

    @property
    def text(self) -> str:
        """What happened, for the user."""
        kept = (
            f"its rollout lies in {self.dump}"
            if self.dump is not None
            else f"its rollout could not be written ({self.dump_error})"
        )
        return (
            f"after update {self.update} (step {self.step}) {self.what} is not finite. The update "
            f"was taken back, its decisions are dropped; {kept}."
        )


class Before:
    """Policy and algorithm as they were before an update."""

    def __init__(self, policy: ActorCritic, algorithm: Algorithm) -> None:
        self.policy = {name: value.clone() for name, value in policy.state_dict().items()}
        self.algorithm = algorithm.state_dict()

    def restore(self, policy: ActorCritic, algorithm: Algorithm) -> None:
        """Undoes everything since; `algorithm` may be another one of the same kind."""
        policy.load_state_dict(self.policy)
        algorithm.load_state_dict(self.algorithm)


def broken_part(policy: ActorCritic, algorithm: Algorithm, update: Update) -> str | None:
    """Names the first number that is not finite after an update; waits for the device.

    A gradient that is not finite makes Adam's averages, and so the weights, not finite; a loss that
    is not finite is one of the update's statistics.
    """
    losses = {tag: value for tag, value in update.statistics.items() if tag.startswith("Losses/")}
    found = [
        (f"{where} {name}", torch.isfinite(tensor).all())
        for where, tree in (
            ("statistic", losses),
            ("weights", policy.state_dict()),
            ("optimizer", algorithm.state_dict()),
        )
        for name, tensor in _tensors(tree)
        if tensor.is_floating_point()
    ]
    # All but a few are where the policy is: one wait for the device, not one for each.
    flags = torch.stack([flag.to(found[0][1].device, non_blocking=True) for _, flag in found])
    if bool(flags.all()):
        return None
    return next(name for name, flag in found if not bool(flag))


def _tensors(tree: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield name, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def dump_rollout(path: Path, rollout: Rollout, before: Before, update: Update, what: str) -> None:
    """Writes what an update learnt from and began with, for `torch.load(weights_only=True)`.

    Raises:
        OSError: the disk does not take it.
    """
    columns: dict[str, object] = {}
    for field in fields(rollout):
        value = getattr(rollout, field.name)
        if field.name == "sequences":
            if value is not None:
                columns["sequence_starts"] = value.starts
                columns["sequence_memory"] = value.memory
        else:
            columns[field.name] = value
    document = {
        "not_finite": what,
        "rollout": columns,
        "statistics": dict(update.statistics),
        "policy_before": before.policy,
        "algorithm_before": before.algorithm,
    }
    buffer = io.BytesIO()
    torch.save(plain(document), buffer)
    atomic_write(path, buffer.getvalue())
