"""What the optimizer steps of an update came to, for its statistics.

Letters: B rows of a minibatch, C continuous action size, K discrete branches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.algos.estimators import approximate_kl


class UpdateTrace:
    """What the minibatches of an update came to; nobody waits for a tensor before the end."""

    def __init__(self) -> None:
        self._losses: list[tuple[Tensor, Tensor, Tensor]] = []  # policy, value, entropy: () each
        self._log_ratios: list[Tensor] = []  # of this epoch
        self._num_epochs = 0

    def begin_epoch(self) -> None:
        """Starts another pass; ratios are of the newest one."""
        self._log_ratios.clear()
        self._num_epochs += 1

    def add(self, policy: Tensor, value: Tensor, entropy: Tensor, log_ratio: Tensor) -> None:
        """Takes a minibatch's losses, () each, and log-ratios, (B,) or (B, C + K)."""
        self._losses.append((policy.detach(), value.detach(), entropy.detach()))
        self._log_ratios.append(log_ratio.detach())

    def kl(self) -> Tensor:
        """Gives how far the policy has moved, over this epoch's minibatches; ()."""
        log_ratios = torch.cat(self._log_ratios)
        return approximate_kl(log_ratios.reshape(len(log_ratios), -1).sum(dim=1))

    def statistics(self, epsilon: float) -> dict[str, Tensor]:
        """Gives scalars by TensorBoard tag."""
        policy, value, entropy = (
            torch.stack(losses).mean() for losses in zip(*self._losses, strict=True)
        )
        ratios = torch.cat(self._log_ratios).exp()
        return {
            "Losses/Policy Loss": policy.abs(),
            "Losses/Value Loss": value,
            "Policy/Entropy": entropy,
            "Policy/KL": self.kl(),
            "Policy/Clip Fraction": ((ratios - 1).abs() > epsilon).float().mean(),
            "Policy/Epochs": torch.tensor(float(self._num_epochs)),
        }


class Means:
    """Means of scalars over an update's optimizer steps, by tag; nobody waits for a tensor."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, tag: str, value: Tensor) -> None:
        """Takes one step's scalar, ()."""
        self._values.setdefault(tag, []).append(value.detach())

    def statistics(self) -> dict[str, Tensor]:
        """Gives the mean by tag, () each."""
        return {tag: torch.stack(values).mean() for tag, values in self._values.items()}


class Totals:
    """Sums of scalars over the pieces of one optimizer step, by tag."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}

    def add(self, tag: str, value: Tensor) -> None:
        """Takes one piece's share of a scalar, ()."""
        known = self._values.get(tag)
        self._values[tag] = value.detach() if known is None else known + value.detach()

    def statistics(self) -> dict[str, Tensor]:
        """Gives the sum by tag, () each."""
        return dict(self._values)
