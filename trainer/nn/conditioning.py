"""Dense layers that a goal steers: the weights of the last one are made from the goal.

Source: Ha, Dai, Le (2016), "HyperNetworks"; layers, sizes and initialisation are ML-Agents'.

Letters: B rows, D input size, G goal size, H hidden units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainer.config.behavior_settings import Activation, Initialization
from trainer.nn.mlp import ACTIVATIONS, MLP, layer_norm

NUM_HYPER_LAYERS = 2


class HyperLayer(nn.Module):
    """A dense layer without weights of its own: a network makes them from the goal, row by row."""

    def __init__(
        self,
        num_inputs: int,
        num_goals: int,
        hidden_units: int,
        activation: Activation,
        initialization: Initialization,
    ) -> None:
        super().__init__()
        self.num_inputs, self.num_outputs = num_inputs, hidden_units
        self.goal_layers = MLP(
            num_goals, hidden_units, NUM_HYPER_LAYERS, activation, initialization
        )
        self.weights = nn.Linear(hidden_units, num_inputs * hidden_units)
        # so that a made weight has the size of an ordinary layer's, whatever the goal
        bound = math.sqrt(1 / (hidden_units * num_inputs))
        nn.init.uniform_(self.weights.weight, -bound, bound)
        nn.init.zeros_(self.weights.bias)
        self.bias = nn.Parameter(torch.zeros(hidden_units))

    def forward(self, inputs: Tensor, goals: Tensor) -> Tensor:
        """(B, D), (B, G) -> (B, H)."""
        made = self.weights(layer_norm(self.goal_layers(goals)))  # (B, D * H)
        made = made.unflatten(1, (self.num_inputs, self.num_outputs))  # (B, D, H)
        outputs: Tensor = torch.bmm(inputs.unsqueeze(1), made).squeeze(1)  # (B, 1, H) -> (B, H)
        return outputs + self.bias


class ConditionedMLP(nn.Module):
    """`num_layers` dense layers, the last one a `HyperLayer`, each followed by the activation."""

    def __init__(
        self,
        num_inputs: int,
        num_goals: int,
        hidden_units: int,
        num_layers: int,
        activation: Activation,
        initialization: Initialization,
        has_layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.plain = MLP(
            num_inputs, hidden_units, num_layers - 1, activation, initialization, has_layer_norm
        )
        last_inputs = hidden_units if num_layers > 1 else num_inputs
        self.last = HyperLayer(last_inputs, num_goals, hidden_units, activation, initialization)
        self.activation: str = activation
        self.floats_per_row = 2 * last_inputs * hidden_units  # the made weights, and their gradient

    def forward(self, inputs: Tensor, goals: Tensor) -> Tensor:
        """(B, D), (B, G) -> (B, H)."""
        outputs: Tensor = self.last(self.plain(inputs), goals)
        outputs = layer_norm(outputs) if self.plain.has_layer_norm else outputs
        return ACTIVATIONS[self.activation](outputs)
