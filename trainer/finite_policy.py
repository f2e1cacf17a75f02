"""A policy that nobody can go on with is not saved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.checkpoint import CheckpointError, CheckpointStore


class NotFiniteError(CheckpointError):
    """A policy that nobody can go on with, and that therefore is not saved."""

    exit_code = 5


def require_finite(
    behavior: str, step: int, policy: Mapping[str, Tensor], store: CheckpointStore
) -> None:
    """Raises before a diverged policy becomes the checkpoint that a run would go on from."""
    broken = [
        name
        for name, tensor in policy.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if not broken:
        return
    checkpoints = store.checkpoints
    if checkpoints:
        good = checkpoints[-1]
        way_out = (
            f"The last good checkpoint is {good.path} (step {good.step}): go on from there with "
            f"--resume"
        )
    else:
        way_out = "There is no earlier checkpoint: start again with --force"
    raise NotFiniteError(
        f"Behavior '{behavior}' at step {step}: {broken[0]} of its policy holds NaN or infinite "
        f"numbers, expected finite ones: learning has diverged. It is not saved. {way_out}, and "
        f"with a lower learning_rate or with max_grad_norm."
    )
