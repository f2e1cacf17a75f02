"""Rows of one optimiser step, and how a rollout is cut into them.

Letters: B rows, C continuous action size, K discrete branches, L sum of branch sizes, R reward
signals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trainer.nn.actor_critic import ActorCritic, Evaluation
from trainer.nn.distributions import Distribution
from trainer.nn.memory import Sequences
from trainer.nn.sensors import Inputs
from trainer.rollout.sequences import sequences_in_pieces, shuffled_sequences

# Rows are put in their new order this much at a time, or one minibatch: a reordered copy of a whole
# rollout would be much of the process's memory, and two of them would lie there while one epoch
# follows another.
REORDERED_BYTES = 4 * 2**20


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
    sequences: Sequences | None = None  # of a policy with memory: all B rows, in order
    old_distribution: Tensor | None = None  # (B, 2 C + L), `Distribution.columns`

    def __len__(self) -> int:
        return len(self.old_log_probs)

    def evaluated_by(self, policy: ActorCritic) -> Evaluation:
        """Asks a policy, as it is now, what it thinks of these decisions; with gradients."""
        return policy.evaluate(
            self.inputs, self.action_mask, self.continuous, self.discrete, self.sequences
        )

    def distribution_of(self, policy: ActorCritic) -> Distribution:
        """Asks a policy, as it is now, what it may do in these rows; with gradients."""
        return policy.distribution(self.inputs, self.action_mask, self.sequences)

    def old_distribution_of(self, policy: ActorCritic) -> Distribution:
        """Gives what the same policy might have done before the update."""
        assert self.old_distribution is not None, "nobody has asked before the update"
        return Distribution.of_columns(
            self.old_distribution, policy.continuous_size, policy.branch_sizes
        )

    @torch.no_grad()
    def with_distribution_of(self, policy: ActorCritic) -> Minibatch:
        """Gives the same rows with what a policy may do in them, for `old_distribution_of`."""
        columns = [piece.distribution_of(policy).columns() for piece in self._pieces(policy)]
        return replace(self, old_distribution=torch.cat(columns))

    @torch.no_grad()
    def divergence_of(self, policy: ActorCritic) -> Tensor:
        """Gives the mean KL(old, now) of a policy in these rows, in nats; ()."""
        parts = [
            piece.distribution_of(policy).kl_from(piece.old_distribution_of(policy))
            for piece in self._pieces(policy)
        ]
        return torch.cat(parts).mean()

    @torch.no_grad()
    def entropy_of(self, policy: ActorCritic) -> Tensor:
        """Gives the mean entropy of a policy's whole action in these rows, in nats; ()."""
        parts = [
            piece.distribution_of(policy).entropies().sum(dim=1).expand(len(piece))
            for piece in self._pieces(policy)
        ]
        return torch.cat(parts).mean()

    def _pieces(self, policy: ActorCritic) -> Iterator[Minibatch]:
        # The layers of a whole rollout at once would be most of the process's memory.
        return self.in_pieces(policy.actor_body.rows_at_once)

    def values_of(self, policy: ActorCritic) -> Tensor:
        """Asks a policy's critic, as it is now, for the values (B, R); with gradients."""
        return policy.values(self.inputs, self.sequences)

    def in_pieces(self, num_rows: int) -> Iterator[Minibatch]:
        """Gives all rows, in order, as minibatches of about `num_rows` rows."""
        parts: Iterable[tuple[slice, Sequences | None]]
        if self.sequences is None:
            starts = range(0, len(self), num_rows)
            parts = ((slice(start, start + num_rows), None) for start in starts)
        else:
            parts = sequences_in_pieces(self.sequences, num_rows)
        columns = self._columns()
        for part, sequences in parts:
            yield Minibatch(
                inputs=tuple(column[part] for column in self.inputs),
                sequences=sequences,
                **{name: column[part] for name, column in columns.items()},
            )

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Minibatch]:
        """Gives minibatches of exactly `batch_size` rows in a new order, for one epoch.

        Rows that would not fill the last minibatch sit this epoch out; fewer rows than one
        minibatch make one of their own. One gather for many minibatches and views into it are
        cheaper than a gather per small minibatch. With memory, whole sequences change places
        instead of rows.
        """
        parts: Iterable[tuple[slice, Sequences | None]]
        if self.sequences is None:
            order, parts = shuffled_rows(len(self), batch_size, generator)
        else:
            order, parts = shuffled_sequences(self.sequences, batch_size, generator)
        order = order.to(self.old_log_probs.device)
        row_bytes = sum(column[:1].nbytes for column in (*self._columns().values(), *self.inputs))
        num_batches = max(1, REORDERED_BYTES // (row_bytes * batch_size))
        start = stop = 0  # of the rows, by their new order, that lie in `columns` and `inputs`
        columns, inputs = self._columns(), self.inputs
        for part, sequences in parts:
            if part.stop > stop:
                start, stop = part.start, max(part.stop, part.start + num_batches * batch_size)
                rows = order[start:stop]
                columns = {name: column[rows] for name, column in self._columns().items()}
                inputs = tuple(column[rows] for column in self.inputs)
            near = slice(part.start - start, part.stop - start)
            yield Minibatch(
                inputs=tuple(column[near] for column in inputs),
                sequences=sequences,
                **{name: column[near] for name, column in columns.items()},
            )

    def _columns(self) -> dict[str, Tensor]:
        """Gives all columns but the inputs, those that there are."""
        return {
            field.name: column
            for field in fields(self)
            if isinstance(column := getattr(self, field.name), Tensor)
        }


def shuffled_rows(
    num_rows: int, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Iterator[tuple[slice, None]]]:
    """Puts rows in a new order, and says which part of that order each minibatch is."""
    size = min(batch_size, num_rows)
    order = torch.randperm(num_rows, generator=generator)[: num_rows - num_rows % size]
    return order, ((slice(start, start + size), None) for start in range(0, len(order), size))
