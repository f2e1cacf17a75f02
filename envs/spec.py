"""What a behaviour observes and how it acts: mlagents-envs' own types, plus what they lack."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationType,
)

__all__ = [
    "ActionSpec",
    "BehaviorId",
    "BehaviorSpec",
    "DimensionProperty",
    "ObservationSpec",
    "ObservationType",
    "parse_behavior_id",
    "sum_of_branches",
]


class ObservationSpec(NamedTuple):
    """One sensor: mlagents-envs' four fields, and how its columns are stored.

    Images are (C, H, W). With dtype "uint8" their numbers stand for value / 255.
    """

    shape: tuple[int, ...]
    dimension_property: tuple[DimensionProperty, ...]
    observation_type: ObservationType
    name: str
    dtype: str = "float32"


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
