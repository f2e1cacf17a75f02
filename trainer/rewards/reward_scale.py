"""Brings rewards to a size that the critic learns fast, as they are met.

Letters: B decisions of a rollout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.algos.estimators import discounted_suffix_sums
from trainer.rollout.rollout import Rollout


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return so far.

    The return so far, gamma times that of the decision before plus the reward, begins anew with
    every segment. Rewards keep their sign and their zero, since nothing is subtracted. Starts like
    the normaliser of observations, with one imagined return of mean 0 and variance 1.

    Source: Engstrom et al., "Implementation Matters in Deep RL", arXiv 2005.12729, section 3.1,
    point 2; Chan, Golub, LeVeque (1979), pairwise update.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self._count, self._mean, self._sum_of_squares = 1.0, 0.0, 1.0

    def update(self, rewards: Tensor, rollout: Rollout) -> None:
        """Takes a rollout's rewards, (B,), into the statistics."""
        returns = returns_so_far(rewards, rollout, self.gamma).double()
        count = len(returns)
        mean = float(returns.mean())
        total = self._count + count
        delta = mean - self._mean
        self._sum_of_squares += float(((returns - mean) ** 2).sum())
        self._sum_of_squares += delta**2 * self._count * count / total
        self._mean += delta * count / total
        self._count = total

    @property
    def deviation(self) -> float:
        """Standard deviation of the return so far, in the unit of the rewards."""
        return float((self._sum_of_squares / self._count) ** 0.5)

    def state_dict(self) -> dict[str, float]:
        """Gives the statistics."""
        return {
            "count": self._count,
            "mean": self._mean,
            "sum_of_squares": self._sum_of_squares,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Goes on from `state_dict`."""
        self._count, self._mean = state["count"], state["mean"]
        self._sum_of_squares = state["sum_of_squares"]


def returns_so_far(rewards: Tensor, rollout: Rollout, gamma: float) -> Tensor:
    """Sums each decision's reward and those before it in its segment, discounted; (B,) -> (B,)."""
    decays = torch.full_like(rewards, gamma)
    decays[rollout.segment_starts[:-1]] = 0.0
    # What looks back looks ahead in reverse.
    backwards = discounted_suffix_sums(
        rewards.flip(0).unsqueeze(1), decays.flip(0).unsqueeze(1)
    )  # (B, 1)
    return backwards.squeeze(1).flip(0)
