"""From what an agent's sensors say to the features that its heads read.

Vectors pass as they are, each image through its own convolutional network, in sensor order; all
variable-length observations together become one vector, which comes last. Then dense layers.

Letters: B rows, D size of all vector observations end to end, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config.sensor_limits import objection_to_goal, objection_to_image
from trainer.config.settings import NetworkSettings
from trainer.nn.attention import EMBEDDING_SIZE, EntityAttention
from trainer.nn.conditioning import ConditionedMLP
from trainer.nn.encoders import ImageEncoder
from trainer.nn.mlp import MLP
from trainer.nn.sensors import Inputs, Sensor, SensorKind, Sensors, UnsupportedBehaviorError

# By arithmetic, 20,480 rows of 3x512 at once would need 126 MB for their layers.
MOST_ROWS_AT_ONCE = 4096
FLOATS_AT_ONCE = 2**25  # 134 MB, for what rows become on their way through images and the like


class NetworkBody(nn.Module):
    """Reads every sensor, puts what it read end to end, and runs it through dense layers.

    `num_features` is the size of what it gives to the heads; `rows_at_once` says how many rows
    may go through it together without holding more memory than the rest of a run.
    """

    def __init__(self, sensors: Sensors, network: NetworkSettings) -> None:
        """Builds the layers.

        Raises:
            UnsupportedBehaviorError: an image is too small for `vis_encode_type`, or a goal is a
                variable-length observation.
        """
        super().__init__()
        self._sensors = sensors.all
        self._vector_sizes = list(sensors.vector_sizes)
        images = sensors.of_kind(SensorKind.IMAGE)
        crowds = sensors.of_kind(SensorKind.ENTITIES)
        conditions = network.goal_conditioning_type == "hyper"
        goals = [sensor for sensor in sensors.all if sensor.is_goal and conditions]
        _require_large_enough(sensors.behavior, images, network)
        _require_fixed_size(sensors.behavior, goals, network)

        hidden = network.hidden_units
        self.encoders = nn.ModuleList(
            ImageEncoder(image.shape, network.vis_encode_type, hidden, network.initialization)
            for image in images
        )
        num_encoded = sum(self._vector_sizes) + hidden * len(images)
        num_inputs = num_encoded + (EMBEDDING_SIZE if crowds else 0)
        self.entities = None
        if crowds:
            shapes = [crowd.shape for crowd in crowds]
            self.entities = EntityAttention(shapes, num_encoded, network.activation)
        dense = (
            hidden,
            network.num_layers,
            network.activation,
            network.initialization,
            network.layer_norm,
        )
        self._goals = [sensor in goals for sensor in sensors.all if sensor not in crowds]
        num_goals = sum(
            hidden if goal.kind is SensorKind.IMAGE else goal.shape[0] for goal in goals
        )
        self.hidden: MLP | ConditionedMLP = (
            ConditionedMLP(num_inputs, num_goals, *dense) if goals else MLP(num_inputs, *dense)
        )
        self.num_features = hidden
        self._is_plain = not (images or crowds or goals)
        self.rows_at_once = self._rows_at_once()

    def _rows_at_once(self) -> int:
        floats_per_row = sum(
            part.floats_per_row
            for part in self.modules()
            if isinstance(part, (ImageEncoder, EntityAttention, ConditionedMLP))
        )
        return max(1, min(MOST_ROWS_AT_ONCE, FLOATS_AT_ONCE // max(1, floats_per_row)))

    def forward(self, inputs: Inputs) -> Tensor:
        """Inputs of B rows -> (B, num_features)."""
        if self._is_plain:
            features: Tensor = self.hidden(inputs[0])
            return features
        parts, crowds = self._read(inputs)
        encoded = None
        if parts:
            encoded = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        joined = encoded
        if self.entities is not None:
            mixed: Tensor = self.entities(crowds, encoded)
            joined = mixed if encoded is None else torch.cat([encoded, mixed], dim=1)
        if isinstance(self.hidden, MLP):
            features = self.hidden(joined)
            return features
        goals = [part for part, is_goal in zip(parts, self._goals, strict=True) if is_goal]
        features = self.hidden(joined, goals[0] if len(goals) == 1 else torch.cat(goals, dim=1))
        return features

    def _read(self, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        """Gives vectors and encoded images, (B, size)... in sensor order; and the entities."""
        columns = iter(inputs)
        vectors = iter(
            torch.split(next(columns), self._vector_sizes, 1) if self._vector_sizes else ()
        )
        encoders = iter(self.encoders)
        parts, crowds = [], []
        for sensor in self._sensors:
            match sensor.kind:
                case SensorKind.VECTOR:
                    parts.append(next(vectors))
                case SensorKind.IMAGE:
                    parts.append(next(encoders)(next(columns)))
                case SensorKind.ENTITIES:
                    crowds.append(next(columns))
        return parts, crowds


def _require_large_enough(behavior: str, images: list[Sensor], network: NetworkSettings) -> None:
    for image in images:
        objection = objection_to_image(image.name, image.shape, network)
        if objection is not None:
            raise UnsupportedBehaviorError(f"Behavior '{behavior}': {objection}")


def _require_fixed_size(behavior: str, goals: list[Sensor], network: NetworkSettings) -> None:
    for goal in goals:
        if goal.kind is SensorKind.ENTITIES:
            objection = objection_to_goal(goal.name, goal.shape, network)
            assert objection is not None  # the caller has looked at goal_conditioning_type
            raise UnsupportedBehaviorError(f"Behavior '{behavior}': {objection}")
