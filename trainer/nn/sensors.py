"""What a network is given: how each sensor is to be read, and how rows of all of them travel.

Letters: B rows, D size of all vector observations end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from envs.spec import BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from trainer.config.errors import UserError

# The vectors of B rows, end to end and normalised, (B, D), where there are any; then every other
# sensor as it is, (B, *shape), in sensor order. Never empty.
Inputs = tuple[Tensor, ...]


class UnsupportedBehaviorError(UserError):
    """The behaviour has observations or actions that this version cannot learn from."""


class SensorKind(Enum):
    """How a network reads a sensor."""

    VECTOR = "vector"  # (size,)
    IMAGE = "image"  # (channels, height, width)
    ENTITIES = "entities"  # (places, entity size), unused places are zeros


@dataclass(frozen=True, slots=True)
class Sensor:
    """One observation of an agent."""

    name: str
    kind: SensorKind
    shape: tuple[int, ...]
    is_goal: bool
    is_bytes: bool  # numbers stand for value / 255; images only


@dataclass(frozen=True, slots=True)
class Sensors:
    """All observations of an agent, in sensor order."""

    behavior: str
    all: tuple[Sensor, ...]

    @property
    def vector_sizes(self) -> tuple[int, ...]:
        """Lengths of the vectors."""
        return tuple(sensor.shape[0] for sensor in self.of_kind(SensorKind.VECTOR))

    def of_kind(self, kind: SensorKind) -> list[Sensor]:
        """Picks the sensors that are read in this way, in sensor order."""
        return [sensor for sensor in self.all if sensor.kind is kind]

    def vectors(self, obs: Sequence[Tensor]) -> Tensor | None:
        """Puts the vectors end to end; (B, size)... -> (B, D), or None without any."""
        found = [
            column
            for sensor, column in zip(self.all, obs, strict=True)
            if sensor.kind is SensorKind.VECTOR
        ]
        if not found:
            return None
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def others(self, obs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Picks what is no vector, each (B, *shape)."""
        return tuple(
            column
            for sensor, column in zip(self.all, obs, strict=True)
            if sensor.kind is not SensorKind.VECTOR
        )


def sensors_of(spec: BehaviorSpec, behavior: str) -> Sensors:
    """Says how each observation of a behaviour is to be read.

    Raises:
        UnsupportedBehaviorError: a sensor is nothing that a network here can read, or there is
            nothing to observe.
    """
    sensors = []
    for sensor in spec.observation_specs:
        kind = _kind_of(sensor)
        is_bytes = sensor.dtype == "uint8"
        if kind is None or (is_bytes and kind is not SensorKind.IMAGE):
            words = ", ".join(DimensionProperty(flag).name for flag in sensor.dimension_property)
            raise UnsupportedBehaviorError(
                f"Behavior '{behavior}': sensor '{sensor.name}' has shape {tuple(sensor.shape)}, "
                f"dimension properties ({words}) and dtype {sensor.dtype}. Expected a vector (n,), "
                f"an image (channels, height, width), which may be uint8, or entities of "
                f"variable number (places, size) with the properties (VARIABLE_SIZE, NONE). "
                f"Remove the sensor, or let it observe one of these."
            )
        shape = tuple(int(size) for size in sensor.shape)
        is_goal = sensor.observation_type == ObservationType.GOAL_SIGNAL
        sensors.append(Sensor(sensor.name, kind, shape, is_goal, is_bytes))
    if not sensors:
        raise UnsupportedBehaviorError(
            f"Behavior '{behavior}' observes nothing. Give its agents at least one sensor, such as "
            f"a vector observation (Behavior Parameters > Vector Observation > Space Size)."
        )
    return Sensors(behavior, tuple(sensors))


def _kind_of(sensor: ObservationSpec) -> SensorKind | None:
    """Goes by the number of axes, and by whether one of them varies in length."""
    varies = [DimensionProperty.VARIABLE_SIZE in flag for flag in sensor.dimension_property]
    if any(size < 1 for size in sensor.shape):
        return None
    match len(sensor.shape), varies:
        case 1, [False]:
            return SensorKind.VECTOR
        case 2, [True, False]:
            return SensorKind.ENTITIES
        case 3, [False, False, False]:
            return SensorKind.IMAGE
        case _:
            return None


def in_pieces(inputs: Inputs, num_rows: int) -> Iterator[Inputs]:
    """Yields the inputs of at most `num_rows` rows at a time."""
    return zip(*(torch.split(column, num_rows) for column in inputs), strict=True)
