"""From what an agent's sensors say to the features that its heads read.

Letters: B rows, D size of all vector observations end to end, H hidden units.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainer.config.settings import NetworkSettings
from trainer.nn.mlp import MLP
from trainer.nn.sensors import Inputs, Sensors


class NetworkBody(nn.Module):
    """Reads every sensor, puts what it read end to end, and runs it through dense layers.

    `num_features` is the size of what it gives to the heads; `rows_at_once` says how many rows
    may go through it together without holding more memory than the rest of a run.
    """

    ROWS_AT_ONCE = 4096  # by arithmetic, 20,480 rows of 3x512 at once need 126 MB for the layers

    def __init__(self, sensors: Sensors, network: NetworkSettings) -> None:
        super().__init__()
        self.hidden = MLP(
            sum(sensors.vector_sizes),
            network.hidden_units,
            network.num_layers,
            network.activation,
            network.initialization,
        )
        self.num_features = network.hidden_units
        self.rows_at_once = self.ROWS_AT_ONCE

    def forward(self, inputs: Inputs) -> Tensor:
        """Inputs of B rows -> (B, num_features)."""
        features: Tensor = self.hidden(inputs[0])
        return features
