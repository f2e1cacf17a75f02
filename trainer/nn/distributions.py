"""Log-probabilities, entropies and samples of Gaussian and categorical actions.

Letters: B rows, C continuous action size, K discrete branches, L sum of branch sizes.
Log-probabilities stay apart per dimension (C) and branch (K): their sum is the log-probability of
the whole action (PPO paper), and ML-Agents' own ratio needs them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ACTION_LIMIT = 3.0  # ML-Agents sends clip(action, -3, 3) / 3 to the simulator
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
MASKED_LOGIT = -1e8  # probability exactly 0 in float32, and still finite when all are masked


def gaussian_log_probs(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Gives log N(action; mean, exp(log_std)) per dimension; (B, C), (B, C), (C,) -> (B, C)."""
    z = (actions - mean) * torch.exp(-log_std)
    return standard_normal_log_probs(z) - log_std


def standard_normal_log_probs(z: Tensor) -> Tensor:
    """Gives log N(z; 0, 1) per element."""
    return -0.5 * z * z - LOG_SQRT_2PI


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Gives the entropy in nats per dimension, (C,) -> (C,); it does not depend on the mean."""
    return log_std + (0.5 + LOG_SQRT_2PI)


def masked_log_softmax(
    logits: Tensor, mask: Tensor | None, branch_sizes: Sequence[int]
) -> list[Tensor]:
    """Gives each branch's log-probabilities, forbidden ones at (near) minus infinity.

    Args:
        logits: (B, L), all branches side by side.
        mask: (B, L) bool, True = allowed; None allows everything.
        branch_sizes: K sizes that sum to L.

    Returns:
        K tensors (B, size of the branch). A branch without any allowed action is uniform.
    """
    if mask is not None:
        logits = logits.masked_fill(~mask, MASKED_LOGIT)
    if len(branch_sizes) == 1:
        return [torch.log_softmax(logits, dim=1)]
    sizes = list(branch_sizes)
    branches = torch.split(logits, sizes, dim=1)
    return [torch.log_softmax(branch, dim=1) for branch in branches]


def categorical_log_probs(branches: Sequence[Tensor], actions: Tensor) -> Tensor:
    """Picks the log-probability of each branch's action; K x (B, size), (B, K) -> (B, K)."""
    picked = [
        branch.gather(1, actions[:, k : k + 1])  # (B, 1)
        for k, branch in enumerate(branches)
    ]
    return picked[0] if len(picked) == 1 else torch.cat(picked, dim=1)


def categorical_entropy(branches: Sequence[Tensor]) -> Tensor:
    """Gives the entropy in nats of each branch; K x (B, size) -> (B, K)."""
    return torch.stack([-(branch.exp() * branch).sum(dim=1) for branch in branches], dim=1)


def sample_categorical(branches: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Draws one action per branch; K x (B, size) -> (B, K) int64.

    The largest p / Exp(1) is a draw from p (the Gumbel-max trick without its two logarithms).
    """
    draws = []
    for branch in branches:
        noise = torch.empty_like(branch).exponential_(generator=generator)
        draws.append((branch.exp() / noise).argmax(dim=1))
    return torch.stack(draws, dim=1)
