"""What one update learns from: whole columns, with the segments of all agents end to end.

Letters: B decisions of all segments end to end, S segments, R reward signals, C continuous action
size, K discrete branches, L sum of branch sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.nn.memory import Sequences


def require_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError, naming the tensor, unless it has exactly this shape."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


@dataclass(frozen=True, slots=True)
class Rollout:
    """All complete decisions since the last update.

    A segment is a run of decisions of one agent in one episode; the decision that follows row i of
    a segment is row i + 1. What follows a segment is `bootstrap_obs`: the last observation where
    the episode was truncated, that of the agent's next decision where the segment was merely cut;
    where the episode terminated nothing follows, and it is worth 0 whatever stands there.

    There are no values here: the critic that learns from a rollout is the one that was there when
    its agents acted, and says what it thinks of all rows at once for a fraction of what it costs
    to ask it at every decision.
    """

    obs: tuple[Tensor, ...]  # one per sensor, each (B, *shape)
    action_mask: Tensor | None  # (B, L) bool, True = allowed
    continuous: Tensor  # (B, C) as drawn
    discrete: Tensor  # (B, K) int64
    log_probs: Tensor  # (B, C + K) of the policy that acted
    rewards: Tensor  # (B, R) after each signal's strength
    segment_starts: Tensor  # (S + 1,) int64, first 0, last B
    bootstrap_obs: tuple[Tensor, ...]  # each (S, *shape), what follows each segment
    terminated: Tensor  # (S,) bool, nothing follows
    sequences: Sequences | None = None  # of a policy with memory; segments consist of them

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        segments = len(self.segment_starts) - 1
        require_shape("log_probs", self.log_probs, (steps, self.log_probs.shape[1]))
        require_shape("continuous", self.continuous, (steps, self.continuous.shape[1]))
        require_shape("discrete", self.discrete, (steps, self.discrete.shape[1]))
        require_shape("terminated", self.terminated, (segments,))

    def __len__(self) -> int:
        return len(self.rewards)

    def next_values(self, values: Tensor, bootstrap: Tensor) -> Tensor:
        """Gives the value of what follows each decision, 0 behind a termination.

        Args:
            values: (B, R) of the rows.
            bootstrap: (S, R) of `bootstrap_obs`.

        Returns:
            (B, R).
        """
        following = torch.roll(values, -1, dims=0)
        following[self.segment_starts[1:] - 1] = bootstrap * (~self.terminated).unsqueeze(1)
        return following

    def is_segment_end(self) -> Tensor:
        """(B,) bool, True at the last decision of each segment."""
        ends = torch.zeros(len(self), dtype=torch.bool, device=self.rewards.device)
        ends[self.segment_starts[1:] - 1] = True
        return ends
