"""Specs of every kind of sensor, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.spec import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)

NONE = DimensionProperty.NONE
ALONG = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
VARIABLE = DimensionProperty.VARIABLE_SIZE


def kind_of(is_goal: bool) -> ObservationType:
    return ObservationType.GOAL_SIGNAL if is_goal else ObservationType.DEFAULT


def vector(size: int, name: str = "vector", *, is_goal: bool = False) -> ObservationSpec:
    return ObservationSpec((size,), (NONE,), kind_of(is_goal), name)


def image(
    channels: int,
    height: int,
    width: int,
    name: str = "camera",
    *,
    is_goal: bool = False,
    dtype: str = "uint8",
) -> ObservationSpec:
    shape = (channels, height, width)
    return ObservationSpec(shape, (NONE, ALONG, ALONG), kind_of(is_goal), name, dtype)


def entities(
    places: int, size: int, name: str = "crowd", *, is_goal: bool = False
) -> ObservationSpec:
    return ObservationSpec((places, size), (VARIABLE, NONE), kind_of(is_goal), name)


def behavior(
    *sensors: ObservationSpec, continuous: int = 2, branches: tuple[int, ...] = ()
) -> BehaviorSpec:
    return BehaviorSpec(list(sensors), ActionSpec(continuous, branches))


def random_obs(spec: BehaviorSpec, rows: int, seed: int = 0) -> list[Tensor]:
    """Noise for every sensor; about half of the entities are missing."""
    chance = torch.Generator().manual_seed(seed)
    obs = []
    for sensor in spec.observation_specs:
        shape = (rows, *sensor.shape)
        if sensor.dtype == "uint8":
            obs.append(torch.randint(0, 256, shape, generator=chance, dtype=torch.uint8))
            continue
        column = torch.randn(shape, generator=chance)
        if len(sensor.shape) == 2:
            column *= torch.rand((rows, sensor.shape[0], 1), generator=chance) < 0.5
        obs.append(column)
    return obs
