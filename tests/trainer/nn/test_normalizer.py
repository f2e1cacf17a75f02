from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest import approx
from torch import Tensor
from torch_results import LargestResults

from trainer.nn.normalizer import ROWS_AT_ONCE, Normalizer


def data(rows: int, seed: int = 0) -> Tensor:
    """Three features of very different place and scale."""
    noise = torch.randn((rows, 3), generator=torch.Generator().manual_seed(seed))
    return noise * torch.tensor([1.0, 50.0, 0.01]) + torch.tensor([0.0, 1000.0, -0.5])


def statistics(normalizer: Normalizer) -> tuple[Tensor, Tensor]:
    return normalizer.mean, normalizer.sum_of_squares / normalizer.steps


def test_fresh_one_changes_nothing_but_outliers() -> None:
    obs = torch.tensor([[0.5, -2.0, 7.0], [-9.0, 5.0, 0.0]])
    assert Normalizer(3)(obs).tolist() == [[0.5, -2.0, 5.0], [-5.0, 5.0, 0.0]]


def test_one_row_gives_the_hand_computed_mean_and_variance() -> None:
    normalizer = Normalizer(1)
    normalizer.update(torch.tensor([[4.0]]))
    mean, variance = statistics(normalizer)
    # rows 0 (imagined) and 4: mean 2; squares 4 + 4, plus 1 that the imagined row starts with
    assert mean.item() == 2.0
    assert variance.item() == (4 + 4 + 1) / 2
    # (4 - 2) / sqrt(4.5)
    assert normalizer(torch.tensor([[4.0]])).item() == approx(0.942809, abs=1e-6)


def test_statistics_are_those_of_all_rows_and_the_imagined_one() -> None:
    parts = [data(rows, seed) for seed, rows in enumerate((1, 7, 300, 2))]
    normalizer = Normalizer(3)
    for part in parts:
        normalizer.update(part)
    everything = np.concatenate([np.zeros((1, 3)), *(part.double().numpy() for part in parts)])
    mean, variance = statistics(normalizer)
    assert normalizer.steps.item() == 311
    assert mean.numpy() == approx(everything.mean(axis=0), rel=1e-12)
    # the imagined row has a variance of its own, 1, that enters like one more row's
    assert variance.numpy() == approx(everything.var(axis=0) + 1 / 311, rel=1e-12)


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_how_rows_are_split_into_batches_does_not_matter(size: int) -> None:
    rows = data(1000)
    whole, split = Normalizer(3), Normalizer(3)
    whole.update(rows)
    for part in torch.split(rows, size):
        split.update(part)
    for one, other in zip(statistics(whole), statistics(split), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0)
    torch.testing.assert_close(whole(rows), split(rows), rtol=1e-6, atol=1e-6)


def test_normalized_rows_have_zero_mean_and_unit_deviation() -> None:
    rows = data(200_000)
    normalizer = Normalizer(3)
    normalizer.update(rows)
    normalized = normalizer(rows).double()
    # the imagined row's variance of 1 is a hundred variances of feature 2, but one row in 200,000;
    # its square distance of 1000**2 weighs 5 in feature 1's variance of 2,500
    assert normalized.mean(dim=0).abs().max() < 1e-3
    assert normalized.std(dim=0).numpy() == approx([1.0, 1.0, 1.0], abs=0.05)


def test_large_offset_does_not_eat_the_variance() -> None:
    rows = data(10_000) + 1e6  # in float32 a sum of squares would be off by more than the variance
    normalizer = Normalizer(3)
    for part in torch.split(rows, 100):
        normalizer.update(part)
    everything = np.concatenate([np.zeros((1, 3)), rows.double().numpy()])
    assert statistics(normalizer)[1].numpy() == approx(everything.var(axis=0), rel=1e-6)


def test_forward_has_no_side_effects() -> None:
    normalizer = Normalizer(3)
    normalizer.update(data(10))
    before = {name: value.clone() for name, value in normalizer.state_dict().items()}
    obs = data(5, seed=9)
    kept = obs.clone()
    normalizer.train()
    first = normalizer(obs)
    assert torch.equal(first, normalizer(obs))
    assert torch.equal(obs, kept)
    for name, value in normalizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_update_leaves_the_rows_alone() -> None:
    obs = data(5)
    kept = obs.clone()
    Normalizer(3).update(obs)
    assert torch.equal(obs, kept)


def test_outliers_are_clamped_to_five_deviations() -> None:
    normalizer = Normalizer(3)
    normalizer.update(data(100))
    assert normalizer(torch.full((1, 3), 1e9)).tolist() == [[5.0, 5.0, 5.0]]
    assert normalizer(torch.full((1, 3), -1e9)).tolist() == [[-5.0, -5.0, -5.0]]


@pytest.mark.parametrize("value", [0.0, 1.0, -1e6, 1e-20])
def test_constant_feature_stays_finite(value: float) -> None:
    normalizer = Normalizer(1)
    for _ in range(100):
        normalizer.update(torch.full((1000, 1), value))
    normalized = normalizer(torch.tensor([[value], [value + 1], [-value]]))
    assert normalized.isfinite().all()
    assert abs(normalized[0].item()) < 0.1  # what is always there is no news


def test_state_dict_restores_it() -> None:
    one, other = Normalizer(3), Normalizer(3)
    one.update(data(100))
    other.load_state_dict(one.state_dict())
    for normalizer in (one, other):
        normalizer.update(data(50, seed=1))
    assert torch.equal(one(data(9, seed=2)), other(data(9, seed=2)))


def test_rows_of_a_whole_rollout_come_out_as_they_would_alone_and_in_one_copy() -> None:
    normalizer = Normalizer(3)
    obs = torch.randn(2 * ROWS_AT_ONCE + 5, 3)
    normalizer.update(3.0 * obs[:100] + 1.0)
    with torch.no_grad(), LargestResults() as results:
        found = normalizer(obs)
    for first in range(0, len(obs), 1000):
        assert torch.equal(found[first : first + 1000], normalizer(obs[first : first + 1000]))
    assert len([size for size in results.num_bytes if size >= obs.nbytes]) == 1
