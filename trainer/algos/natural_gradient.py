"""The natural gradient of a policy, without ever building its Fisher matrix.

Letters: B decisions of a rollout, P parameters of the actor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.nn.flat_parameters import FlatParameters

Product = Callable[[Tensor], Tensor]  # (P,) -> (P,), a symmetric positive matrix times a vector

SMALLEST_RESIDUAL = 1e-10  # squared length at which the equation counts as solved


def fisher_vector_product(kl: Tensor, parameters: FlatParameters, vector: Tensor) -> Tensor:
    """Multiplies the Hessian of a divergence with a vector, by differentiating twice.

    Where both policies are the same, the Hessian of their divergence is the Fisher matrix.

    Args:
        kl: (), mean KL(old, new), with a graph from `parameters`.
        parameters: P of them.
        vector: (P,).

    Source: Schulman et al., arXiv 1502.05477, appendix C.1; Pearlmutter (1994).
    """
    gradient = parameters.gradient_of(kl, keeps_graph=True)  # (P,), 0 at the old policy
    return parameters.gradient_of(gradient @ vector)


def conjugate_gradient(product: Product, target: Tensor, num_iterations: int) -> Tensor:
    """Solves matrix x = target for x, as far as so many products lead.

    Args:
        product: the matrix times a vector.
        target: (P,).
        num_iterations: P of them would solve it exactly, but for rounding.

    Source: Hestenes & Stiefel (1952); Nocedal & Wright, algorithm 5.2.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    length = residual @ residual
    for _ in range(num_iterations):
        if length.item() < SMALLEST_RESIDUAL:
            break
        image = product(direction)
        share = length / (direction @ image)
        solution += share * direction
        residual -= share * image
        new_length = residual @ residual
        direction = residual + (new_length / length) * direction
        length = new_length
    return solution


def step_of_divergence(direction: Tensor, product: Product, max_kl: float) -> Tensor:
    """Stretches a direction until the quadratic model of the divergence is `max_kl`; (P,) -> (P,).

    The model is 1/2 x F x. No direction, no step.

    Source: arXiv 1502.05477, appendix C.
    """
    curvature = direction @ product(direction)  # ()
    scale = torch.sqrt(2 * max_kl / curvature)
    return torch.where(curvature > 0, scale * direction, torch.zeros_like(direction))
