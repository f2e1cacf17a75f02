"""What a network is given: which sensors are vectors, and how rows of all of them travel.

Letters: B rows, D size of all vector observations end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from envs.spec import BehaviorSpec
from trainer.config.errors import UserError

# The vectors of B rows, end to end and normalised, (B, D), where there are any; then every other
# sensor as it is, (B, *shape), in sensor order. Never empty.
Inputs = tuple[Tensor, ...]


class UnsupportedBehaviorError(UserError):
    """The behaviour has observations or actions that this version cannot learn from."""


class SensorKind(Enum):
    """How a network reads a sensor."""

    VECTOR = "vector"


@dataclass(frozen=True, slots=True)
class Sensor:
    """One observation of an agent."""

    name: str
    kind: SensorKind
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sensors:
    """All observations of an agent, in sensor order."""

    all: tuple[Sensor, ...]

    @property
    def vector_sizes(self) -> tuple[int, ...]:
        """Lengths of the vectors."""
        return tuple(sensor.shape[0] for sensor in self.all if sensor.kind is SensorKind.VECTOR)

    def vectors(self, obs: Sequence[Tensor]) -> Tensor | None:
        """Puts the vectors end to end; B x (size,)... -> (B, D), or None without any."""
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
        if len(sensor.shape) != 1:
            raise UnsupportedBehaviorError(
                f"Behavior '{behavior}': sensor '{sensor.name}' has shape {tuple(sensor.shape)}. "
                f"This version learns from vector observations, shape (n,), only; cameras and "
                f"variable-length observations come later. Remove the sensor, or observe a vector."
            )
        shape = tuple(int(size) for size in sensor.shape)
        sensors.append(Sensor(sensor.name, SensorKind.VECTOR, shape))
    if not sensors:
        raise UnsupportedBehaviorError(
            f"Behavior '{behavior}' observes nothing. Give its agents at least one sensor, such as "
            f"a vector observation (Behavior Parameters > Vector Observation > Space Size)."
        )
    return Sensors(tuple(sensors))


def in_pieces(inputs: Inputs, num_rows: int) -> Iterator[Inputs]:
    """Yields the inputs of at most `num_rows` rows at a time."""
    return zip(*(torch.split(column, num_rows) for column in inputs), strict=True)
