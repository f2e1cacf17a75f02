"""What one Exchange of a simulator says, decoded."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from envs.batch import Choices, Decisions, Terminals
from envs.bridge.bad_numbers import DroppedEpisode
from envs.bridge.side_channels import StatsMessage
from envs.spec import BehaviorSpec

NOTHING: Mapping[str, Choices] = MappingProxyType({})


class SimulatorMessage(NamedTuple):
    """One Exchange of one simulator, decoded; by behaviour id, and only what is not empty.

    A tuple, since there is one for every few agent-steps: a frozen dataclass takes four times as
    long to make.
    """

    simulator: int
    new_behaviors: dict[str, BehaviorSpec]  # first seen from this simulator in this message
    decisions: dict[str, Decisions]
    terminals: dict[str, Terminals]  # without agents that never had a decision
    stats: tuple[StatsMessage, ...]
    dropped: tuple[DroppedEpisode, ...] = ()  # their lanes are void before anything else happens
    # Of a simulator that acts: what it chose for the decisions before, before anything else ...
    choices: Mapping[str, Choices] = NOTHING
    earlier: tuple[SimulatorMessage, ...] = ()  # ... and env_steps that come before this one
