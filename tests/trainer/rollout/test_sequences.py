from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.nn.memory import Sequences
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.sequences import Continued, cut_sequences


@pytest.mark.parametrize(
    ("segment_starts", "sequence_length", "expected"),
    [
        ([0, 5, 7, 13], 3, [0, 3, 5, 7, 10, 13]),
        ([0, 5, 7, 13], 1, list(range(14))),
        ([0, 5, 7, 13], 64, [0, 5, 7, 13]),
        ([0, 6], 3, [0, 3, 6]),
    ],
)
def test_segments_are_cut_from_their_first_row_on(
    segment_starts: list[int], sequence_length: int, expected: list[int]
) -> None:
    assert cut_sequences(np.array(segment_starts), sequence_length).tolist() == expected


STARTS = [0, 3, 5, 7, 10, 13]


def some_sequences(sequence_length: int = 3) -> Sequences:
    """The memory before a sequence is 10000 and its first row."""
    starts = torch.tensor(STARTS)
    memory = 10000.0 + starts[:-1, None].expand(-1, 2)
    return Sequences(starts, memory, sequence_length)


def whole(sequences: Sequences) -> Minibatch:
    """Row i holds i in every column."""
    rows = int(sequences.starts[-1])
    index = torch.arange(rows, dtype=torch.float32)
    column = index.unsqueeze(1)
    return Minibatch(
        inputs=(column,),
        continuous=column,
        discrete=column.long(),
        old_log_probs=index,
        old_values=column,
        advantages=index,
        returns=column,
        sequences=sequences,
    )


def found_in(batch: Minibatch) -> list[list[int]]:
    """Gives the rows of each of a minibatch's sequences, and checks what was carried into it."""
    assert batch.sequences is not None
    rows = batch.inputs[0][:, 0].int().tolist()
    assert batch.advantages.int().tolist() == rows
    starts = batch.sequences.starts.tolist()
    assert starts[0] == 0
    assert starts[-1] == len(rows)
    pieces = [rows[a:b] for a, b in pairwise(starts)]
    assert batch.sequences.memory.tolist() == [[10000 + piece[0]] * 2 for piece in pieces]
    return pieces


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (3, [1, 1, 1, 1, 1]),
        (5, [1, 1, 1, 1, 1]),  # one of full length has room
        (6, [2, 2]),  # and one sits the epoch out
        (9, [3]),
        (1, [1, 1, 1, 1, 1]),
        (100, [5]),
    ],
)
def test_minibatches_have_whole_sequences_each_counted_in_full(
    batch_size: int, expected: list[int]
) -> None:
    batches = [found_in(batch) for batch in whole(some_sequences()).shuffled(batch_size, seeded(2))]
    assert [len(batch) for batch in batches] == expected
    drawn = [tuple(piece) for batch in batches for piece in batch]
    uncut = {tuple(range(a, b)) for a, b in pairwise(STARTS)}
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= uncut


def test_order_of_sequences_is_new_each_epoch_and_comes_from_the_generator() -> None:
    def epochs(seed: int) -> list[list[list[int]]]:
        generator = seeded(seed)
        return [
            [piece for batch in whole(some_sequences()).shuffled(3, generator)
             for piece in found_in(batch)]
            for _ in range(4)
        ]  # fmt: skip

    first = epochs(1)
    torch.manual_seed(3)
    assert epochs(1) == first
    assert any(epoch != first[0] for epoch in first[1:])


def test_places_put_first_rows_before_second_ones() -> None:
    sequences = Sequences(torch.tensor([0, 2, 3, 6]), torch.zeros(3, 2), 4)
    #  row   0 1  2  3 4 5
    #  of    A A  B  C C C     table: A0 B0 C0, A1 - C1, - - C2
    assert sequences.places.tolist() == [0, 3, 1, 2, 5, 8]
    assert sequences.longest == 3


def test_what_follows_a_segment_stands_behind_its_last_row() -> None:
    # Segments of the rows 0-4, 5-6 and 7-12, in the sequences of STARTS.
    continued = Continued(some_sequences(), torch.tensor([0, 5, 7, 13]))
    rows: Tensor = torch.arange(13.0).unsqueeze(1)
    following = torch.tensor([[100.0], [200.0], [300.0]])
    joined = continued.join(rows, following)
    assert joined[:, 0].tolist() == [0, 1, 2, 3, 4, 100, 5, 6, 200, 7, 8, 9, 10, 11, 12, 300]
    one, other = continued.split(joined)
    assert torch.equal(one, rows)
    assert torch.equal(other, following)
    for num_rows in (1, 8, 1000):
        found = []
        for part, sequences in continued.in_pieces(num_rows):
            cut = joined[part, 0].tolist()
            ends = pairwise(sequences.starts.tolist())
            memory = sequences.memory[:, 0].tolist()
            found += [(first, cut[a:b]) for first, (a, b) in zip(memory, ends, strict=True)]
        assert found == [
            (10000, [0, 1, 2]),
            (10003, [3, 4, 100]),
            (10005, [5, 6, 200]),
            (10007, [7, 8, 9]),
            (10010, [10, 11, 12, 300]),
        ]
