"""Estimators that have a name in books: advantages, returns, divergences.

Letters: B decisions of all segments end to end, S segments, R reward signals.
"""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_suffix_sums(terms: Tensor, decays: Tensor) -> Tensor:
    """Solves x[i] = terms[i] + decays[i] * x[i + 1] for all rows at once.

    Doubling (Hillis & Steele, 1986): after round k, x[i] holds the terms of 2^k rows, so segments
    of up to T rows need log2(T) rounds of whole-column arithmetic instead of T steps.

    Args:
        terms: (B, R).
        decays: (B, R); 0 at the last row of each segment keeps segments apart.

    Returns:
        (B, R), in the unit of `terms`.
    """
    sums, factors = terms, decays
    shift = 1
    while shift < len(terms):
        sums, later = sums.clone(), sums[shift:]
        sums[:-shift] += factors[:-shift] * later
        factors, later_factors = factors.clone(), factors[shift:]
        factors[:-shift] *= later_factors
        factors[-shift:] = 0.0
        shift *= 2
        if not factors.any():  # no segment is longer, however many there are
            break
    return sums


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    segment_end: Tensor,
    gamma: Tensor,
    lambd: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, each reward signal with its own discount.

    Args:
        rewards: (B, R), after each signal's strength.
        values: (B, R), V(s_t).
        next_values: (B, R), V(s_{t+1}); 0 where the episode terminated.
        segment_end: (B,) bool, the last row of a segment.
        gamma: (R,), discount per decision, 0 to 1.
        lambd: 0 trusts the critic, 1 trusts the rewards.

    Returns:
        Advantages (B, R) and returns (B, R) = advantages + values, in the unit of the rewards.

    Source: Schulman et al., arXiv 1506.02438, eq. 16.
    """
    deltas = rewards + gamma * next_values - values
    decays = (gamma * lambd) * (~segment_end).unsqueeze(1)  # (R,) x (B, 1) -> (B, R)
    advantages = discounted_suffix_sums(deltas, decays)
    return advantages, advantages + values


def n_step_returns(
    rewards: Tensor, next_values: Tensor, segment_end: Tensor, gamma: Tensor, num_steps: int
) -> Tensor:
    """Sums the next `num_steps` rewards, then asks the critic; earlier where a segment ends.

    Args:
        rewards: (B, R), after each signal's strength.
        next_values: (B, R), V(s_{t+1}); 0 where the episode terminated.
        segment_end: (B,) bool, the last row of a segment.
        gamma: (R,), discount per decision, 0 to 1.
        num_steps: rewards to sum, at least 1.

    Returns:
        (B, R), in the unit of the rewards.

    Source: Mnih et al., arXiv 1602.01783, algorithm S3.
    """
    returns = rewards + gamma * next_values
    ends = segment_end.unsqueeze(1)  # (B, 1)
    for _ in range(min(num_steps, len(rewards)) - 1):
        # One reward more: that of the row, then what one step fewer made of the row behind it.
        returns = rewards + gamma * torch.where(ends, next_values, torch.roll(returns, -1, dims=0))
    return returns


def monte_carlo_returns(
    rewards: Tensor, next_values: Tensor, segment_end: Tensor, gamma: Tensor
) -> Tensor:
    """Sums all rewards to the end of the segment, discounted: the reward to go.

    Args:
        rewards: (B, R), after each signal's strength.
        next_values: (B, R), of which only what follows the segments counts; 0 for nothing.
        segment_end: (B,) bool, the last row of a segment.
        gamma: (R,), discount per decision, 0 to 1.

    Returns:
        (B, R), in the unit of the rewards.

    Source: Sutton & Barto, 2nd edition, eq. 3.8.
    """
    ends = segment_end.unsqueeze(1)  # (B, 1)
    return discounted_suffix_sums(rewards + gamma * next_values * ends, gamma * ~ends)


def whole_returns(rewards_to_go: Tensor, segment_end: Tensor) -> Tensor:
    """Gives every row the return of its whole segment, seen from the first row; (B, R) -> (B, R).

    Args:
        rewards_to_go: (B, R), from `monte_carlo_returns`.
        segment_end: (B,) bool, the last row of a segment.
    """
    ends = segment_end.nonzero().squeeze(1)  # (S,)
    first = torch.cat([ends.new_zeros(1), ends[:-1] + 1])  # (S,)
    lengths = ends - first + 1
    return rewards_to_go[first].repeat_interleave(lengths, dim=0)  # (S, R) -> (B, R)


def approximate_kl(log_ratios: Tensor) -> Tensor:
    """Estimates KL(old, new) from log(new / old) of actions drawn from old; (B,) -> ().

    Unbiased, never negative. Source: Schulman, "Approximating KL Divergence" (2020), estimator k3.
    """
    # expm1: with exp the 1 swallows small divergences, and rounding makes them negative
    return (torch.expm1(log_ratios) - log_ratios).mean()


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Share of the returns' variance that the critic foresaw; (B, R) x2 -> (), 1 is perfect."""
    spread = returns.var(correction=0)
    return 1 - (returns - values).var(correction=0) / spread.clamp(min=1e-12)


def normalized(advantages: Tensor) -> Tensor:
    """Zero mean, unit (population) standard deviation over the rollout; (B,) -> (B,)."""
    std, mean = torch.std_mean(advantages, correction=0)
    return (advantages - mean) / (std + 1e-8)
