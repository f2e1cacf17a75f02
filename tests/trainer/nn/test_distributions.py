from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pytest import approx
from torch import Tensor

from trainer.nn.distributions import (
    Distribution,
    categorical_entropy,
    categorical_kl,
    categorical_log_probs,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_probs,
    masked_log_softmax,
    sample_categorical,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_torch(logits: Tensor, mask: Tensor) -> Any:
    """The same distribution by torch's own class: forbidden logits at minus infinity."""
    return torch.distributions.Categorical(
        logits=logits.masked_fill(~mask, -math.inf), validate_args=False
    )


def test_standard_normal_at_one_has_the_tabulated_density() -> None:
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    # the bell curve at z = 1: 0.24197
    assert gaussian_log_probs(one, zero, torch.zeros(1)).exp().item() == approx(0.24197, abs=1e-5)
    # half as wide, z = 2: 0.05399 / 0.5
    narrow = gaussian_log_probs(one, zero, torch.tensor([math.log(0.5)]))
    assert narrow.exp().item() == approx(0.10798, abs=1e-5)


def test_gaussian_agrees_with_torch_distributions_per_dimension() -> None:
    generator = seeded()
    actions = torch.randn((50, 3), generator=generator)
    mean = torch.randn((50, 3), generator=generator)
    log_std = torch.tensor([-2.0, 0.0, 1.5])
    reference: Any = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(
        gaussian_log_probs(actions, mean, log_std), reference.log_prob(actions)
    )
    torch.testing.assert_close(gaussian_entropy(log_std), reference.entropy()[0])


def test_gaussian_density_integrates_to_one() -> None:
    grid = torch.linspace(-20, 20, 40_001, dtype=torch.float64).unsqueeze(1)
    log_std = torch.tensor([0.7], dtype=torch.float64)
    density = gaussian_log_probs(grid, torch.full_like(grid, 0.3), log_std).exp()
    assert torch.trapezoid(density[:, 0], grid[:, 0]).item() == approx(1.0, abs=1e-9)


def test_masked_branches_agree_with_torch_distributions() -> None:
    logits = 3 * torch.randn((40, 7), generator=seeded(1))
    mask = torch.rand((40, 7), generator=seeded(2)) > 0.4
    mask[:, 0] = True  # branch of 3 and branch of 4: one action is always allowed
    mask[:, 5] = True
    branches = masked_log_softmax(logits, mask, (3, 4))
    actions = torch.tensor([[0, 2]]).expand(40, 2)
    left, right = by_torch(logits[:, :3], mask[:, :3]), by_torch(logits[:, 3:], mask[:, 3:])
    torch.testing.assert_close(
        categorical_log_probs(branches, actions),
        torch.stack([left.log_prob(actions[:, 0]), right.log_prob(actions[:, 1])], dim=1),
    )
    torch.testing.assert_close(branches[0].exp(), left.probs)
    torch.testing.assert_close(branches[1].exp(), right.probs)
    # torch's own entropy clamps minus infinity as well, so it is comparable
    torch.testing.assert_close(
        categorical_entropy(branches), torch.stack([left.entropy(), right.entropy()], dim=1)
    )


def test_no_mask_equals_a_mask_that_allows_everything() -> None:
    logits = torch.randn((9, 5), generator=seeded())
    everything = torch.ones((9, 5), dtype=torch.bool)
    for free, masked in zip(
        masked_log_softmax(logits, None, (2, 3)),
        masked_log_softmax(logits, everything, (2, 3)),
        strict=True,
    ):
        assert torch.equal(free, masked)


def test_entropy_of_allowed_actions_with_equal_logits_is_the_log_of_their_number() -> None:
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    entropy = categorical_entropy(masked_log_softmax(torch.zeros(2, 4), mask, (4,)))
    assert entropy[:, 0].tolist() == approx([math.log(3), 0.0])


@pytest.mark.parametrize("logit", [0.0, 50.0, -50.0, 1000.0])
def test_forbidden_actions_have_probability_exactly_zero_and_are_never_drawn(logit: float) -> None:
    rows = 20_000
    logits = torch.tensor([[0.0, logit, 0.0, logit, 1.0]]).expand(rows, 5)
    mask = torch.tensor([[True, False, True, False, True]]).expand(rows, 5)
    branches = masked_log_softmax(logits, mask, (2, 3))
    assert branches[0].exp()[:, 1].eq(0.0).all()
    assert branches[1].exp()[:, 1].eq(0.0).all()
    draws = sample_categorical(branches, seeded())
    assert draws[:, 0].eq(0).all()
    assert set(draws[:, 1].tolist()) == {0, 2}


def test_branch_without_an_allowed_action_stays_finite_and_leaves_the_others_alone() -> None:
    logits = torch.randn((6, 5), generator=seeded()).requires_grad_()
    mask = torch.tensor([[False, False, True, True, False]]).expand(6, 5)
    branches = masked_log_softmax(logits, mask, (2, 3))
    assert branches[0].exp().detach() == approx(torch.full((6, 2), 0.5))
    torch.testing.assert_close(
        branches[1].exp(), by_torch(logits[:, 2:], mask[:, 2:]).probs, check_stride=False
    )
    loss = categorical_entropy(branches).sum()
    loss = loss + categorical_log_probs(branches, torch.zeros(6, 2, dtype=torch.int64)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient[:, :2].eq(0.0).all()  # nothing can be learnt there


def test_gradient_never_reaches_forbidden_logits() -> None:
    logits = torch.randn((4, 3), generator=seeded()).requires_grad_()
    mask = torch.tensor([[True, False, True]]).expand(4, 3)
    branches = masked_log_softmax(logits, mask, (3,))
    loss = categorical_log_probs(branches, torch.zeros(4, 1, dtype=torch.int64)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[:, 1].eq(0.0).all()
    assert gradient[:, 0].ne(0.0).all()


def test_draws_have_the_frequencies_of_their_probabilities() -> None:
    rows = 60_000
    probabilities = torch.tensor([0.6, 0.3, 0.0999, 0.0001])
    branch = probabilities.log().expand(rows, 4)
    draws = sample_categorical([branch, branch.flip(1)], seeded(3))
    for k, expected in enumerate((probabilities, probabilities.flip(0))):
        counts = torch.bincount(draws[:, k], minlength=4)
        # five standard deviations of a binomial count, and 1 for the rare action
        spread = 5 * (rows * expected * (1 - expected)).sqrt() + 1
        assert ((counts - rows * expected).abs() < spread).all()
    # the branches are drawn independently: P(0 and 3) = 0.6 * 0.6
    both = ((draws[:, 0] == 0) & (draws[:, 1] == 3)).float().mean().item()
    assert both == approx(0.36, abs=5 * math.sqrt(0.36 * 0.64 / rows))


def test_equal_generators_draw_equal_actions_and_touch_nothing_else() -> None:
    branches = masked_log_softmax(torch.randn((500, 6), generator=seeded()), None, (2, 4))
    torch.manual_seed(0)
    first = sample_categorical(branches, seeded(7))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(first, sample_categorical(branches, seeded(7)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, sample_categorical(branches, seeded(8)))


def test_log_prob_is_of_the_action_of_its_own_row_and_branch() -> None:
    # log-probabilities of action a in row i and branch k: -(1000 k + 100 i + a)
    branches = [
        torch.tensor([[-(1000.0 * k + 100 * i + a) for a in range(size)] for i in range(3)])
        for k, size in enumerate((2, 4))
    ]
    actions = torch.tensor([[1, 3], [0, 2], [1, 0]])
    assert categorical_log_probs(branches, actions).tolist() == [
        [-1.0, -1003.0],
        [-100.0, -1102.0],
        [-201.0, -1200.0],
    ]


def kl_by_torch(old: Any, new: Any) -> Tensor:
    found: Tensor = torch.distributions.kl_divergence(old, new)
    return found


def some_distribution(seed: int) -> Distribution:
    generator = seeded(seed)
    mask = torch.tensor([[True, True, False, True, True]]).expand(20, -1)
    return Distribution(
        torch.randn((20, 3), generator=generator),
        torch.tensor([-2.0, 0.0, 1.5]) / (1 + seed),
        tuple(masked_log_softmax(torch.randn((20, 5), generator=generator), mask, (3, 2))),
    )


@pytest.mark.parametrize("is_per_row", [False, True])
def test_divergence_of_gaussians_agrees_with_torch_distributions(is_per_row: bool) -> None:
    generator = seeded()
    means = torch.randn((2, 50, 3), generator=generator)
    log_stds = torch.randn((2, 50, 3) if is_per_row else (2, 3), generator=generator)
    normal: Any = torch.distributions.Normal
    expected = kl_by_torch(*map(normal, means, log_stds.exp()))
    found = gaussian_kl(means[0], log_stds[0], means[1], log_stds[1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_divergence_of_choices_agrees_with_torch_distributions() -> None:
    logits = torch.randn((2, 40, 5), generator=seeded())
    mask = torch.tensor([[True, True, False, True, True]]).expand(40, -1)
    old, new = (masked_log_softmax(each, mask, (3, 2)) for each in logits)
    # among the allowed: torch's own divergence has no answer to minus infinity
    references = [
        [
            torch.distributions.Categorical(logits=each[:, part])
            for part in (slice(0, 2), slice(3, 5))
        ]
        for each in logits
    ]
    expected = [kl_by_torch(*pair) for pair in zip(*references, strict=True)]
    torch.testing.assert_close(
        categorical_kl(old, new), torch.stack(expected, dim=1), rtol=1e-4, atol=1e-6
    )


def test_divergence_of_hardly_different_gaussians_is_not_lost_in_rounding() -> None:
    zero, step = torch.zeros(1, 1), torch.full((1, 1), 1e-5)
    # d^2 / 2 for a mean; d^2 for a log deviation
    assert gaussian_kl(zero, zero, step, zero).item() == approx(5e-11, rel=1e-3)
    assert gaussian_kl(zero, zero, zero, step).item() == approx(1e-10, rel=0.05)


def test_divergence_of_a_whole_action_is_the_sum_over_its_parts() -> None:
    old, new = some_distribution(0), some_distribution(1)
    assert old.mean is not None
    assert old.log_std is not None
    assert new.mean is not None
    assert new.log_std is not None
    gaussians = gaussian_kl(old.mean, old.log_std, new.mean, new.log_std).sum(dim=1)
    choices = categorical_kl(old.branches, new.branches).sum(dim=1)
    torch.testing.assert_close(new.kl_from(old), gaussians + choices)
    assert old.kl_from(old).abs().max() == 0.0


@pytest.mark.parametrize("has_mean", [True, False])
@pytest.mark.parametrize("has_branches", [True, False])
def test_distribution_comes_back_from_its_columns(has_mean: bool, has_branches: bool) -> None:
    if not (has_mean or has_branches):
        return
    full = some_distribution(0)
    given = Distribution(
        full.mean if has_mean else None,
        full.log_std if has_mean else None,
        full.branches if has_branches else (),
    )
    back = Distribution.of_columns(
        given.columns(), 3 if has_mean else 0, (3, 2) if has_branches else ()
    )
    continuous = torch.randn((20, 3 if has_mean else 0), generator=seeded(5))
    discrete = torch.ones((20, 2 if has_branches else 0), dtype=torch.int64)
    assert torch.equal(back.log_probs(continuous, discrete), given.log_probs(continuous, discrete))
    assert torch.equal(back.entropies(), given.entropies().expand_as(back.entropies()))
    assert back.kl_from(given).abs().max() == 0.0
