"""Cuts segments into sequences, as short as a memory is to look back, and puts them in order.

Sequences of a segment follow each other without gap; the last one is as short as what is left.

Letters: B decisions of all segments end to end, S segments, Q sequences.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.nn.memory import Sequences


def cut_sequences(segment_starts: NDArray[np.int64], sequence_length: int) -> NDArray[np.int64]:
    """Gives where sequences begin, and B at last; (S + 1,) -> (Q + 1,)."""
    num_rows = segment_starts[-1]
    position = np.arange(num_rows) - np.repeat(segment_starts[:-1], np.diff(segment_starts))
    return np.append(np.flatnonzero(position % sequence_length == 0), num_rows)


def shuffled_sequences(
    sequences: Sequences, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Iterator[tuple[slice, Sequences]]]:
    """Puts whole sequences in a new order and cuts them into minibatches of equally many.

    Sequences that would not fill the last minibatch sit this epoch out.

    Args:
        sequences: Q of them, of B rows.
        batch_size: decisions of a minibatch; each sequence counts as one of full length, so that
            short episodes get as many optimizer steps as in ML-Agents.
        generator: on the CPU.

    Returns:
        The rows in their new order, on the CPU, and for every minibatch which part of that order
        it is, with its sequences.
    """
    num_sequences = len(sequences)
    size = min(max(batch_size // sequences.sequence_length, 1), num_sequences)
    order = torch.randperm(num_sequences, generator=generator)
    whole, rows = in_order(sequences, order[: num_sequences - num_sequences % size])
    return rows, (part_of(whole, first, first + size) for first in range(0, len(whole), size))


def in_order(sequences: Sequences, order: Tensor) -> tuple[Sequences, Tensor]:
    """Puts whole sequences in another order, or leaves some out.

    Args:
        sequences: Q of them, of B rows.
        order: (any,) int64 on the CPU, which sequences to take.

    Returns:
        The sequences, end to end, and on the CPU which of the B rows they consist of.
    """
    lengths = sequences.lengths[order]
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(dim=0)])
    moved = (sequences.starts[order] - starts[:-1]).repeat_interleave(lengths)
    memory = sequences.memory[order.to(sequences.memory.device)]
    return Sequences(starts, memory, sequences.sequence_length), torch.arange(len(moved)) + moved


def part_of(sequences: Sequences, first: int, last: int) -> tuple[slice, Sequences]:
    """Gives which rows the sequences from `first` to before `last` are, and these sequences."""
    starts = sequences.starts[first : last + 1]
    rows = slice(int(starts[0]), int(starts[-1]))
    memory = sequences.memory[first:last]
    return rows, Sequences(starts - starts[0], memory, sequences.sequence_length)


def sequences_in_pieces(sequences: Sequences, num_rows: int) -> Iterator[tuple[slice, Sequences]]:
    """Yields the sequences that at most `num_rows` rows have room for, but at least one."""
    size = max(num_rows // sequences.sequence_length, 1)
    count = len(sequences)
    for first in range(0, count, size):
        yield part_of(sequences, first, min(first + size, count))


class Continued:
    """Sequences that go one row further where a segment ends: to what follows the segment.

    So what follows is valued with the memory that the agent carries there.
    """

    def __init__(self, sequences: Sequences, segment_starts: Tensor) -> None:
        """Makes room for a row behind each of S segments; `segment_starts` is (S + 1,)."""
        ends = segment_starts[1:].cpu()
        segment = torch.repeat_interleave(segment_starts.cpu().diff())  # (B,) whose row it is
        device = sequences.memory.device
        # Where each row, (B,), and what follows each segment, (S,), goes among B + S rows.
        self._rows = (torch.arange(len(segment)) + segment).to(device)
        self._following = (ends + torch.arange(len(ends))).to(device)
        # A sequence moves by one row for each segment that ends before it begins.
        moved = torch.searchsorted(ends, sequences.starts, right=True)
        self._sequences = Sequences(
            sequences.starts + moved, sequences.memory, sequences.sequence_length + 1
        )

    def join(self, rows: Tensor, following: Tensor) -> Tensor:
        """Puts what follows behind each segment; (B, any), (S, any) -> (B + S, any)."""
        joined = rows.new_empty((len(rows) + len(following), *rows.shape[1:]))
        joined[self._rows] = rows
        joined[self._following] = following
        return joined

    def split(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """Takes apart what was joined; (B + S, any) -> (B, any), (S, any)."""
        return joined[self._rows], joined[self._following]

    def in_pieces(self, num_rows: int) -> Iterator[tuple[slice, Sequences]]:
        """Yields the sequences that at most `num_rows` rows have room for, but at least one."""
        return sequences_in_pieces(self._sequences, num_rows)
