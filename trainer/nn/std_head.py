"""A standard deviation of continuous actions that depends on what the agent sees.

Letters: B rows, C continuous action size, H features that the heads read.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config.settings import NetworkSettings
from trainer.nn.mlp import initialize

SMALLEST_LOG_STD, LARGEST_LOG_STD = -20.0, 2.0  # where ML-Agents cuts a deviation of this kind


class StdHead(nn.Linear):
    """Gives the logarithm of the standard deviation of each dimension, row by row.

    `state_log_std`: what the layer says is that logarithm, kept within -20 and 2.
    `state_softplus`: std = softplus(what the layer says) + `min_std`, which never falls below the
    floor and grows no faster than what the layer says.
    Its bias starts so that features of 0 have the deviation exp(`initial_log_std`).
    """

    def __init__(self, num_features: int, size: int, network: NetworkSettings, gain: float) -> None:
        super().__init__(num_features, size)
        self.has_softplus = network.std_type == "state_softplus"
        self.min_std = network.min_std
        initialize(self, network.initialization, gain)
        first = network.initial_log_std
        if self.has_softplus:  # softplus(ln(e^y - 1)) = y
            first = math.log(math.expm1(math.exp(first) - self.min_std))
        nn.init.constant_(self.bias, first)

    def forward(self, features: Tensor) -> Tensor:
        """(B, H) -> (B, C)."""
        free = functional.linear(features, self.weight, self.bias)
        if self.has_softplus:
            return torch.log(functional.softplus(free) + self.min_std)
        return free.clamp(SMALLEST_LOG_STD, LARGEST_LOG_STD)
