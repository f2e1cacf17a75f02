from __future__ import annotations

import pytest
import torch
from bandit import new_policy, seeded, some_obs
from pytest import approx
from torch import Tensor

from trainer.algos.natural_gradient import (
    conjugate_gradient,
    fisher_vector_product,
    step_of_divergence,
)
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.flat_parameters import FlatParameters

ROWS = 5


def fisher_products(policy: ActorCritic, obs: Tensor, vectors: Tensor) -> Tensor:
    """(V, P) -> (V, P) by double back-propagation."""
    actor = FlatParameters(policy.actor_parameters())
    inputs = policy.inputs([obs])
    old = policy.distribution(inputs, None)
    columns = old.columns().detach()
    found = []
    for vector in vectors:
        before = old.of_columns(columns, policy.continuous_size, policy.branch_sizes)
        kl = policy.distribution(inputs, None).kl_from(before).mean()
        found.append(fisher_vector_product(kl, actor, vector))
    return torch.stack(found)


def gradients(policy: ActorCritic, outputs: Tensor) -> Tensor:
    """The gradient of every element; (N,) -> (N, P)."""
    parameters = policy.actor_parameters()
    rows = []
    for output in outputs:
        parts = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def test_fisher_product_of_a_choice_is_the_expected_outer_product_of_score_functions() -> None:
    policy, obs = new_policy(0, (3,), hidden_units=4), some_obs(ROWS)
    (log_probs,) = policy.distribution(policy.inputs([obs]), None).branches  # (B, 3)
    scores = gradients(policy, log_probs.flatten())  # (3 B, P)
    chances = log_probs.exp().flatten()
    fisher = (scores.t() * chances) @ scores / ROWS  # mean over rows, sum over choices
    vectors = torch.randn((4, len(fisher)), generator=seeded(1))
    found = fisher_products(policy, obs, vectors)
    torch.testing.assert_close(found, vectors @ fisher, rtol=1e-4, atol=1e-6)
    assert found.abs().max() > 1e-3


def test_fisher_product_of_a_gaussian_is_that_of_its_mean_and_deviation() -> None:
    # known: 1 / sigma^2 for a mean, 2 for a log deviation
    policy, obs = new_policy(2, hidden_units=4, initial_log_std=-0.5), some_obs(ROWS)
    mean = policy.distribution(policy.inputs([obs]), None).mean
    assert mean is not None
    of_mean = gradients(policy, mean.flatten())  # (2 B, P)
    of_deviation = gradients(policy, policy.log_std)  # (2, P)
    fisher = of_mean.t() @ of_mean / torch.tensor(-0.5).exp() ** 2 / ROWS
    fisher += 2 * of_deviation.t() @ of_deviation
    vectors = torch.randn((4, len(fisher)), generator=seeded(1))
    found = fisher_products(policy, obs, vectors)
    torch.testing.assert_close(found, vectors @ fisher, rtol=1e-4, atol=1e-6)


def test_fisher_product_leaves_gradient_and_parameters_alone() -> None:
    policy = new_policy(1, (2,))
    before = torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])
    size = sum(parameter.numel() for parameter in policy.actor_parameters())
    fisher_products(policy, some_obs(ROWS), torch.ones(1, size))
    after = torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])
    assert torch.equal(before, after)
    assert all(
        parameter.grad is not None and not parameter.grad.any()
        for parameter in policy.actor_parameters()
    )


def positive_matrix(size: int) -> Tensor:
    root = torch.randn((size, size), generator=seeded(2), dtype=torch.float64)
    return root @ root.t() + torch.eye(size, dtype=torch.float64)


def test_conjugate_gradient_is_the_direct_solution() -> None:
    matrix = positive_matrix(12)
    target = torch.randn(12, generator=seeded(3), dtype=torch.float64)
    found = conjugate_gradient(lambda vector: matrix @ vector, target, 40)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-4, atol=1e-6)


def test_conjugate_gradient_needs_as_many_products_as_there_are_different_eigenvalues() -> None:
    matrix = torch.diag(torch.tensor([1.0, 4.0, 4.0, 1.0, 1.0], dtype=torch.float64))
    target = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    calls = []

    def product(vector: Tensor) -> Tensor:
        calls.append(vector)
        return matrix @ vector

    found = conjugate_gradient(product, target, 100)
    assert found.tolist() == approx([1.0, 0.5, 0.75, 4.0, 5.0])
    assert len(calls) == 2


def test_nothing_to_climb_is_no_direction_and_no_step() -> None:
    zeros = torch.zeros(3)
    assert conjugate_gradient(lambda vector: vector, zeros, 10).eq(0).all()
    assert step_of_divergence(zeros, lambda vector: vector, 0.01).eq(0).all()


@pytest.mark.parametrize("length", [1e-3, 1.0, 50.0])
def test_step_has_the_divergence_that_was_asked_for(length: float) -> None:
    # 1/2 (3 s)^2 4 = 0.02 at s = 0.0333; the length of the direction does not matter
    direction = torch.tensor([0.0, 3.0 * length])
    matrix = torch.diag(torch.tensor([1.0, 4.0]))
    step = step_of_divergence(direction, lambda vector: matrix @ vector, 0.02)
    assert step.tolist() == approx([0.0, 0.1])
