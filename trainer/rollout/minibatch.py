"""Rows of one optimiser step, and how a rollout is cut into them.

Letters: B rows, D network inputs, C continuous action size, K discrete branches, L sum of branch
sizes, R reward signals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Minibatch:
    """What a policy-gradient loss needs of B decisions."""

    inputs: Tensor  # (B, D)
    continuous: Tensor  # (B, C)
    discrete: Tensor  # (B, K)
    old_log_probs: Tensor  # (B,) of the whole action, or (B, C + K) with a ratio per dimension
    old_values: Tensor  # (B, R)
    advantages: Tensor  # (B,) or (B, 1), to go with `old_log_probs`
    returns: Tensor  # (B, R)
    action_mask: Tensor | None = None  # (B, L) bool

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Minibatch]:
        """Gives minibatches of exactly `batch_size` rows in a new order, for one epoch.

        Rows that would not fill the last minibatch sit this epoch out; fewer rows than one
        minibatch make one of their own. One gather for a whole epoch and views into it are cheaper
        than a gather per minibatch.
        """
        rows = len(self.inputs)
        size = min(batch_size, rows)
        order = torch.randperm(rows, generator=generator)[: rows - rows % size]
        order = order.to(self.inputs.device)
        columns = {
            field.name: column[order]
            for field in fields(self)
            if (column := getattr(self, field.name)) is not None
        }
        for start in range(0, len(order), size):
            yield Minibatch(
                **{name: column[start : start + size] for name, column in columns.items()}
            )
