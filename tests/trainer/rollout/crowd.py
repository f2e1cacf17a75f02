"""Agents whose numbers tell who they are: what agent a sees at its decision t is 100 a + t.

A row of a rollout is right if its reward is its observation + 0.5, its action + 0.25 and its
log-probability the negative of it; what follows it is 1 more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from envs.batch import Choices, Decisions, Float32, Int64, Terminals
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.rollout.rollout import Rollout
from trainer.rollout.segments import take
from trainer.rollout.steplog import StepLog

FIRST_REWARD = 9999.0  # comes with an agent's first message, and belongs to no decision
GROUP_REWARD = 0.125


@dataclass(frozen=True, slots=True)
class Seen:
    """Agent `agent`, living in `lane`, was heard of for the `step`-th time."""

    lane: int
    agent: int
    step: int


def vector_spec() -> BehaviorSpec:
    sensor = ObservationSpec((1,), (DimensionProperty.NONE,), Kind.DEFAULT, "who")
    return BehaviorSpec([sensor], ActionSpec(1, ()))


def new_log(capacity: int = 64) -> StepLog:
    return StepLog(vector_spec(), capacity)


def obs_of(seen: Sequence[Seen]) -> Float32:
    return np.array([[100 * one.agent + one.step] for one in seen], dtype=np.float32)


def reward_of(seen: Sequence[Seen]) -> Float32:
    rewards = [
        100 * one.agent + one.step - 1 + 0.5 - GROUP_REWARD if one.step else FIRST_REWARD
        for one in seen
    ]
    return np.array(rewards, dtype=np.float32)


def lanes_of(seen: Sequence[Seen]) -> Int64:
    return np.array([one.lane for one in seen], dtype=np.int64)


def decisions(seen: Sequence[Seen]) -> Decisions:
    count = len(seen)
    zeros = np.zeros(count, np.int32)
    return Decisions(
        obs=(obs_of(seen),),
        reward=reward_of(seen),
        lane=lanes_of(seen),
        agent_id=np.array([one.agent for one in seen], np.int32),
        simulator=zeros,
        team=zeros,
        group_id=zeros,
        group_reward=np.full(count, GROUP_REWARD, np.float32),
    )


def terminals(seen: Sequence[Seen], truncated: Sequence[bool]) -> Terminals:
    batch = decisions(seen)
    return Terminals(
        obs=batch.obs,
        reward=batch.reward,
        lane=batch.lane,
        agent_id=batch.agent_id,
        simulator=batch.simulator,
        team=batch.team,
        group_id=batch.group_id,
        group_reward=batch.group_reward,
        truncated=np.array(truncated, np.bool_),
    )


def decide(log: StepLog, *batches: Sequence[Seen]) -> None:
    """Lets agents ask, and answers each with a number of its own."""
    rows = log.append([decisions(batch) for batch in batches])
    obs = log.columns["obs_0"][rows].copy()
    log.record(rows, Choices(obs + np.float32(0.25), np.zeros((len(obs), 0), np.int64), -obs))


def end(log: StepLog, seen: Seen, truncated: bool = False) -> None:
    log.close(terminals([seen], [truncated]))


@dataclass(frozen=True, slots=True)
class Segment:
    """What a rollout says of one segment, as numbers that name agent and step."""

    obs: tuple[float, ...]
    follows: float | None  # None: terminated


def segments_of(rollout: Rollout, reward: torch.Tensor) -> list[Segment]:
    """Cuts a rollout up, and checks that each row holds the numbers of one decision."""
    obs = rollout.obs[0][:, 0]
    assert torch.equal(reward, obs + 0.5)
    assert torch.equal(rollout.continuous[:, 0], obs + 0.25)
    assert torch.equal(rollout.log_probs[:, 0], -obs)
    starts = rollout.segment_starts.tolist()
    assert starts[0] == 0
    assert starts[-1] == len(rollout)
    found = []
    for i, (start, stop) in enumerate(pairwise(starts)):
        follows = None if rollout.terminated[i] else rollout.bootstrap_obs[0][i, 0].item()
        found.append(Segment(tuple(obs[start:stop].tolist()), follows))
    return found


def taken(log: StepLog, time_horizon: int = 1000) -> list[Segment]:
    return segments_of(*take(log, time_horizon, torch.device("cpu")))
