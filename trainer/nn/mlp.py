"""A stack of dense layers, and how its weights start.

Letters: B rows, D input size, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config.behavior_settings import Activation, Initialization

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": functional.silu,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": functional.elu,
}

LAYER_NORM_EPSILON = 1e-5


def layer_norm(values: Tensor) -> Tensor:
    """Brings the last axis to mean 0 and deviation 1, without weights of its own."""
    return functional.layer_norm(values, values.shape[-1:], eps=LAYER_NORM_EPSILON)


def initialize(layer: nn.Linear, how: Initialization, gain: float) -> nn.Linear:
    """Sets weights of `gain` times the usual size and a bias of 0, and gives the layer back.

    `kaiming` draws from a normal distribution with std `gain` / sqrt(inputs), as ML-Agents does.
    """
    if how == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
    else:
        nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """`num_layers` dense layers of `hidden_units`, each followed by the activation.

    With `has_layer_norm` the activation reads what `layer_norm` makes of their outputs.
    """

    def __init__(
        self,
        num_inputs: int,
        hidden_units: int,
        num_layers: int,
        activation: Activation,
        initialization: Initialization,
        has_layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.has_layer_norm = has_layer_norm
        gain = math.sqrt(2.0) if initialization == "orthogonal" else 1.0
        sizes = [num_inputs] + [hidden_units] * num_layers
        self.layers = nn.ModuleList(
            initialize(nn.Linear(size_in, size_out), initialization, gain)
            for size_in, size_out in pairwise(sizes)
        )
        self.activation: str = activation
        self._pairs = [(layer.weight, layer.bias) for layer in self._linears()]

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, D) -> (B, H)."""
        activate = ACTIVATIONS[self.activation]
        for weight, bias in self._pairs:
            inputs = functional.linear(inputs, weight, bias)
            inputs = activate(layer_norm(inputs) if self.has_layer_norm else inputs)
        return inputs
