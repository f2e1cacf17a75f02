"""Running mean and variance of vector observations.

Letters: B rows, D observation size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS_AT_ONCE = 4096  # by arithmetic, three float64 copies of 20,480 x 243 are 120 MB
CLIP = 5.0  # standard deviations at which ML-Agents clamps normalised observations


class Normalizer(nn.Module):
    """Scales vector observations to zero mean and unit variance, clamped to +-`clip`.

    Starts like ML-Agents' (one imagined row of mean 0 and variance 1), which also keeps the
    variance of a constant observation above 0. `forward` never changes it: `update` does, and is
    called by the learner only, so evaluation and export see frozen statistics.

    Source: Chan, Golub, LeVeque (1979), pairwise update of mean and sum of squares.
    """

    steps: Tensor  # () float64, rows seen, counting the imagined one
    mean: Tensor  # (D,) float64
    sum_of_squares: Tensor  # (D,) float64, of the distances from the mean
    shift: Tensor  # (D,) float32, what forward subtracts
    scale: Tensor  # (D,) float32, what forward multiplies with

    def __init__(self, size: int, clip: float = CLIP) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("steps", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("sum_of_squares", torch.ones(size, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, obs: Tensor) -> Tensor:
        """(B, D) -> (B, D), without side effects."""
        if len(obs) <= ROWS_AT_ONCE:
            return self._normalized(obs)
        # Of a whole rollout every step of the arithmetic would be one copy more.
        found = torch.empty_like(obs)
        parts = torch.split(obs, ROWS_AT_ONCE), torch.split(found, ROWS_AT_ONCE)
        for source, target in zip(*parts, strict=True):
            target.copy_(self._normalized(source))
        return found

    def _normalized(self, obs: Tensor) -> Tensor:
        return ((obs - self.shift) * self.scale).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, obs: Tensor) -> None:
        """Takes (B, D) more rows into the statistics."""
        for part in torch.split(obs, ROWS_AT_ONCE):
            self._merge(part.to(torch.float64))
        self.shift.copy_(self.mean)
        self.scale.copy_((self.sum_of_squares / self.steps).rsqrt())

    def _merge(self, rows: Tensor) -> None:
        """Adds (B, D) float64 rows to count, mean and sum of squares."""
        count = len(rows)
        batch_mean = rows.mean(dim=0)
        total = self.steps + count
        delta = batch_mean - self.mean
        self.sum_of_squares += ((rows - batch_mean) ** 2).sum(dim=0)
        self.sum_of_squares += delta**2 * (self.steps * count / total)
        self.mean += delta * (count / total)
        self.steps.copy_(total)
