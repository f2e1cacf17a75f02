"""What a behaviour observes and how it acts: mlagents-envs' own types, plus what they lack."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from mlagents_envs.base_env import ActionSpec, DimensionProperty, ObservationType

__all__ = [
    "CHANNELS_LAST",
    "VARIABLE_LENGTH",
    "VECTOR",
    "VISUAL",
    "ActionSpec",
    "BehaviorId",
    "BehaviorSpec",
    "DimensionProperty",
    "ObservationSpec",
    "ObservationType",
    "parse_behavior_id",
    "sum_of_branches",
    "vector_sensor",
]

# The dimension properties that sensors have behind the bridge, whatever a simulator calls them.
VECTOR = (DimensionProperty.NONE,)  # (n,)
VISUAL = (  # (C, H, W)
    DimensionProperty.NONE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
)
VARIABLE_LENGTH = (  # (most entities, entity size)
    DimensionProperty.VARIABLE_SIZE,
    DimensionProperty.NONE,
)
# Images (H, W, C), as Unity's packages before 3.0 send them; only between bridge and simulator.
CHANNELS_LAST = (*VISUAL[1:], *VISUAL[:1])


class ObservationSpec(NamedTuple):
    """One sensor: mlagents-envs' type of this name, and what its columns are made of.

    `dtype` is "float32", or "uint8": the columns hold 0 to 255 and stand for value / 255, as images
    do that came as PNG.
    """

    shape: tuple[int, ...]  # of one observation
    dimension_property: tuple[DimensionProperty, ...]  # one per axis
    observation_type: ObservationType
    name: str
    dtype: str = "float32"


class BehaviorSpec(NamedTuple):
    """What a behaviour observes, sensor by sensor, and how it acts."""

    observation_specs: list[ObservationSpec]
    action_spec: ActionSpec


def vector_sensor(name: str, size: int) -> ObservationSpec:
    """Gives the spec of an ordinary vector observation."""
    return ObservationSpec((size,), VECTOR, ObservationType.DEFAULT, name)


class BehaviorId(NamedTuple):
    """A behaviour id of the wire, `Walker?team=1`, taken apart."""

    name: str
    team: int


@lru_cache  # asked for in every message
def parse_behavior_id(behavior_id: str) -> BehaviorId:
    """Splits `Name?team=N` into name and team; without a query the team is 0."""
    parts = urlsplit(behavior_id)
    team = parse_qs(parts.query).get("team", ["0"])[0]
    return BehaviorId(parts.path, int(team))


def sum_of_branches(spec: BehaviorSpec) -> int:
    """Gives L, the length of an action mask: the sum of all discrete branch sizes."""
    return int(sum(spec.action_spec.discrete_branches))
