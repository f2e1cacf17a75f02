"""Log-probabilities, entropies and samples of Gaussian and categorical actions.

Letters: B rows, C continuous action size, K discrete branches, L sum of branch sizes.
Log-probabilities stay apart per dimension (C) and branch (K): their sum is the log-probability of
the whole action (PPO paper), and ML-Agents' own ratio needs them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


def gaussian_kl(old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Gives KL(old, new) in nats per dimension; means (B, C), log_stds (C,) or (B, C) -> (B, C)."""
    # ln(s / s0) + (s0^2 + (m0 - m)^2) / (2 s^2) - 1/2, with expm1 for hardly any difference
    step = old_log_std - log_std
    distance = (old_mean - mean) * torch.exp(-log_std)
    return 0.5 * (torch.expm1(2 * step) - 2 * step + distance**2)


def categorical_kl(old: Sequence[Tensor], new: Sequence[Tensor]) -> Tensor:
    """Gives KL(old, new) in nats of each branch; K x (B, size) log-probabilities -> (B, K)."""
    each = [
        (before.exp() * (before - after)).sum(dim=1) for before, after in zip(old, new, strict=True)
    ]
    return torch.stack(each, dim=1)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a policy may do in each of B rows: Gaussians, then a categorical per branch."""

    mean: Tensor | None  # (B, C)
    log_std: Tensor | None  # (C,), or (B, C) where it depends on the observation
    branches: tuple[Tensor, ...]  # K log-probabilities, (B, size) each

    def log_probs(self, continuous: Tensor, discrete: Tensor) -> Tensor:
        """Log-probabilities of actions; (B, C), (B, K) -> (B, C + K)."""
        parts = []
        if self.mean is not None and self.log_std is not None:
            parts.append(gaussian_log_probs(continuous, self.mean, self.log_std))
        if self.branches:
            parts.append(categorical_log_probs(self.branches, discrete))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def entropies(self) -> Tensor:
        """Nats, (B, C + K); (1, C) where no row differs from another."""
        parts = []
        if self.mean is not None and self.log_std is not None:
            entropy = gaussian_entropy(self.log_std)
            parts.append(entropy if entropy.dim() == 2 else entropy.unsqueeze(0))
        if self.branches:
            parts.append(categorical_entropy(self.branches))
            parts[0] = parts[0].expand(len(parts[-1]), -1)  # (1, C) -> (B, C)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def kl_from(self, old: Distribution) -> Tensor:
        """KL(old, self) of the whole action, in nats, (B,)."""
        parts = []
        if self.mean is not None and self.log_std is not None:
            assert old.mean is not None
            assert old.log_std is not None
            parts.append(gaussian_kl(old.mean, old.log_std, self.mean, self.log_std))
        if self.branches:
            parts.append(categorical_kl(old.branches, self.branches))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return joined.sum(dim=1)

    def columns(self) -> Tensor:
        """Gives all its numbers side by side, (B, 2 C + L), for `of_columns`."""
        parts = list(self.branches)
        if self.mean is not None and self.log_std is not None:
            parts = [self.mean, self.log_std.expand_as(self.mean), *parts]
        return torch.cat(parts, dim=1)

    @staticmethod
    def of_columns(
        columns: Tensor, continuous_size: int, branch_sizes: Sequence[int]
    ) -> Distribution:
        """Gives back what `columns` was asked of."""
        sizes = [continuous_size, continuous_size, *branch_sizes]
        mean, log_std, *branches = torch.split(columns, sizes, dim=1)
        if not continuous_size:
            return Distribution(None, None, tuple(branches))
        return Distribution(mean, log_std, tuple(branches))


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
