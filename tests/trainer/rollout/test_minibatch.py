from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch_results import LargestResults

from trainer.nn.memory import Sequences
from trainer.rollout import minibatch
from trainer.rollout.minibatch import Minibatch


def whole(rows: int, with_mask: bool = True) -> Minibatch:
    """Row i holds i in every column, under another offset and width each."""
    index = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    return Minibatch(
        inputs=(index.expand(rows, 3), 100 + index.reshape(rows, 1, 1, 1).expand(rows, 2, 3, 4)),
        continuous=1000 + index,
        discrete=2000 + index.long(),
        old_log_probs=3000 + index[:, 0],
        old_values=4000 + index.expand(rows, 2),
        advantages=5000 + index[:, 0],
        returns=6000 + index.expand(rows, 2),
        action_mask=index.long() % 2 == 0 if with_mask else None,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(batches: Iterator[Minibatch]) -> list[list[int]]:
    return [batch.inputs[0][:, 0].int().tolist() for batch in batches]


@pytest.mark.parametrize(
    ("rows", "batch_size", "expected"),
    [(12, 4, [4, 4, 4]), (14, 4, [4, 4, 4]), (4, 4, [4]), (3, 4, [3]), (7, 1, [1] * 7)],
)
def test_batches_have_exactly_batch_size_rows_and_no_row_twice(
    rows: int, batch_size: int, expected: list[int]
) -> None:
    batches = rows_of(whole(rows).shuffled(batch_size, seeded()))
    assert [len(batch) for batch in batches] == expected
    drawn = [row for batch in batches for row in batch]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(range(rows))


def test_left_over_rows_get_their_turn_in_other_epochs() -> None:
    generator = seeded()
    missing = []
    for _ in range(50):
        drawn = {row for batch in rows_of(whole(5).shuffled(4, generator)) for row in batch}
        missing += sorted(set(range(5)) - drawn)
    assert len(missing) == 50
    assert set(missing) == set(range(5))


@pytest.mark.parametrize("reordered_bytes", [0, 1000, 2000, 2**20])
def test_all_columns_of_a_row_stay_together(
    monkeypatch: pytest.MonkeyPatch, reordered_bytes: int
) -> None:
    monkeypatch.setattr(minibatch, "REORDERED_BYTES", reordered_bytes)
    for batch in whole(30).shuffled(7, seeded()):
        index = batch.inputs[0][:, 0]
        columns: list[tuple[Tensor, int]] = [
            (batch.inputs[0][:, 2], 0),
            (batch.inputs[1][:, 1, 2, 3], 100),
            (batch.continuous[:, 0], 1000),
            (batch.discrete[:, 0].float(), 2000),
            (batch.old_log_probs, 3000),
            (batch.old_values[:, 1], 4000),
            (batch.advantages, 5000),
            (batch.returns[:, 1], 6000),
        ]
        for column, offset in columns:
            assert torch.equal(column - offset, index), offset
        assert batch.action_mask is not None
        assert torch.equal(batch.action_mask[:, 0], index % 2 == 0)


@pytest.mark.parametrize("with_memory", [False, True])
def test_minibatches_are_the_same_however_many_are_put_in_order_at_once(
    monkeypatch: pytest.MonkeyPatch, with_memory: bool
) -> None:
    rollout = whole(300)
    if with_memory:
        starts = torch.arange(0, 301, 5)
        rollout = replace(rollout, sequences=Sequences(starts, torch.rand(60, 2), 5))
    found = []
    for reordered_bytes in (0, 5000, 2**20):
        monkeypatch.setattr(minibatch, "REORDERED_BYTES", reordered_bytes)
        found.append(rows_of(rollout.shuffled(20, seeded())))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 15


def test_no_copy_of_the_whole_rollout_is_made_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(minibatch, "REORDERED_BYTES", 20_000)
    rollout = whole(2000)
    row_bytes = 24 * 4 + 3 * 4 + 3 * 4 + 4 * 4 + 8 + 1  # at most, of all columns
    with LargestResults() as results:
        for batch in rollout.shuffled(20, seeded()):
            assert len(batch) == 20
    # The order itself is a column of 8 bytes a row; a whole inputs[1] would be 192,000 bytes.
    assert max(results.num_bytes) <= max(20_000 + 2 * row_bytes, 2000 * 8)
    assert len(results.num_bytes) < 300  # and not one gather a minibatch: 100 x 8 columns


def test_without_a_mask_batches_have_none() -> None:
    assert all(batch.action_mask is None for batch in whole(8, False).shuffled(4, seeded()))


def test_order_comes_from_the_generator_alone_and_is_new_each_epoch() -> None:
    one, other = seeded(1), seeded(1)
    first = rows_of(whole(20).shuffled(5, one))
    torch.manual_seed(3)
    assert rows_of(whole(20).shuffled(5, other)) == first
    assert rows_of(whole(20).shuffled(5, one)) != first


@pytest.mark.parametrize("size", [1, 3, 5, 12, 100])
def test_pieces_are_all_rows_in_order_with_what_belongs_to_them(size: int) -> None:
    pieces = list(whole(12).in_pieces(size))
    assert [row for piece in rows_of(iter(pieces)) for row in piece] == list(range(12))
    assert max(len(piece) for piece in pieces) == min(size, 12)
    for piece in pieces:
        rows = piece.inputs[0][:, 0]
        assert torch.equal(piece.inputs[1][:, 0, 0, 0], 100 + rows)
        assert torch.equal(piece.advantages, 5000 + rows)
        assert torch.equal(piece.returns[:, 1], 6000 + rows)
        assert piece.action_mask is not None
        assert torch.equal(piece.action_mask[:, 0], rows % 2 == 0)


def test_pieces_of_sequences_never_cut_one() -> None:
    starts = torch.tensor([0, 3, 4, 9, 12])
    sequences = Sequences(starts, 10.0 * torch.arange(4).unsqueeze(1), 5)
    pieces = list(replace(whole(12), sequences=sequences).in_pieces(10))
    assert rows_of(iter(pieces)) == [list(range(4)), list(range(4, 12))]
    found = [piece.sequences for piece in pieces]
    assert [each.starts.tolist() for each in found if each] == [[0, 3, 4], [0, 5, 8]]
    assert [each.memory[:, 0].tolist() for each in found if each] == [[0, 10], [20, 30]]
