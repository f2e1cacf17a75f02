"""Rows of one optimiser step, and how a rollout is cut into them.

Letters: B rows, C continuous action size, K discrete branches, L sum of branch sizes, R reward
signals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from trainer.nn.sensors import Inputs


@dataclass(frozen=True, slots=True)
class Minibatch:
    """What a policy-gradient loss needs of B decisions."""

    inputs: Inputs  # of B rows
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
        rows = len(self.old_log_probs)
        size = min(batch_size, rows)
        order = torch.randperm(rows, generator=generator)[: rows - rows % size]
        order = order.to(self.old_log_probs.device)
        inputs = [_Shuffled(column, order) for column in self.inputs]
        columns = {
            field.name: column[order]
            for field in fields(self)
            if field.name != "inputs" and (column := getattr(self, field.name)) is not None
        }
        for start in range(0, len(order), size):
            part = slice(start, start + size)
            yield Minibatch(
                inputs=tuple(column[part] for column in inputs),
                **{name: column[part] for name, column in columns.items()},
            )


class _Shuffled:
    """A column in another order; one with large rows, such as images, is never copied whole."""

    def __init__(self, column: Tensor, order: Tensor) -> None:
        self._is_small = column.dim() <= 2
        self._column = column[order] if self._is_small else column
        self._order = order

    def __getitem__(self, part: slice) -> Tensor:
        return self._column[part] if self._is_small else self._column[self._order[part]]
