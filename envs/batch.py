"""Columns that walk between simulators and trainer: one row per agent, leading axis N.

Letters: N agents, C continuous action size, K discrete branches, L sum of branch sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Uint8 = NDArray[np.uint8]
Observations = NDArray[np.float32] | NDArray[np.uint8]  # a sensor's spec says which
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

ACTION_LIMIT = 3.0  # ML-Agents sends clip(action, -3, 3) / 3 to the simulator


def require_rows(columns: dict[str, NDArray[np.generic]], num_rows: int) -> None:
    """Raises ValueError, naming the column, unless every column has `num_rows` rows."""
    for name, column in columns.items():
        if len(column) != num_rows:
            raise ValueError(f"column {name} has {len(column)} rows, expected {num_rows}")


@dataclass(frozen=True, slots=True)
class AgentColumns:
    """What a simulator says of N agents of one behaviour, in the order of its message.

    A *lane* is one living agent of one simulator, numbered from 0 per behaviour name; a lane ends
    with its agent's episode, and an agent that restarts gets another one. Lane numbers are reused
    after their episode has ended, so a table indexed by lane stays as small as the crowd.
    """

    obs: tuple[Observations, ...]  # one per sensor, each (N, *shape), of the sensor's dtype
    reward: Float32  # (N,) since the agent's previous message, in the simulator's own unit
    lane: Int64  # (N,)
    agent_id: Int32  # (N,) an episode's number, unique in its simulator
    simulator: Int32  # (N,)
    team: Int32  # (N,)
    group_id: Int32  # (N,) 0 = no group
    group_reward: Float32  # (N,)

    def __post_init__(self) -> None:
        num_rows = len(self.reward)
        if (
            num_rows
            == len(self.lane)
            == len(self.agent_id)
            == len(self.simulator)
            == len(self.team)
            == len(self.group_id)
            == len(self.group_reward)
        ):  # the usual case, once per message, without building dicts
            for column in self.obs:
                if len(column) != num_rows:
                    break
            else:
                return
        require_rows({f"obs[{i}]": column for i, column in enumerate(self.obs)}, len(self.reward))
        require_rows(
            {
                "lane": self.lane,
                "agent_id": self.agent_id,
                "simulator": self.simulator,
                "team": self.team,
                "group_id": self.group_id,
                "group_reward": self.group_reward,
            },
            len(self.reward),
        )

    def __len__(self) -> int:
        return len(self.reward)


@dataclass(frozen=True, slots=True)
class Decisions(AgentColumns):
    """N agents that wait for an action."""

    action_mask: Bool | None = None  # (N, L) True = allowed, as in ONNX; None without branches


@dataclass(frozen=True, slots=True)
class Terminals(AgentColumns):
    """N agents whose episode is over; `obs` is the last thing they saw, and they get no action."""

    truncated: Bool  # (N,) True = cut short (max step), False = ended by the task


@dataclass(frozen=True, slots=True)
class Actions:
    """Answers to N decisions, row for row, as the simulator is to receive them."""

    continuous: Float32  # (N, C), already clipped and scaled to -1..1
    discrete: Int32  # (N, K) branch indices

    def __post_init__(self) -> None:
        if len(self.discrete) != len(self.continuous):
            require_rows({"discrete": self.discrete}, len(self.continuous))

    def __len__(self) -> int:
        return len(self.continuous)

    @staticmethod
    def concatenate(parts: Sequence[Actions]) -> Actions:
        """Puts several batches of the same behaviour end to end."""
        return Actions(
            np.concatenate([part.continuous for part in parts]),
            np.concatenate([part.discrete for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Choices:
    """What a policy chose for N agents, as it drew it; what learning needs to know of it."""

    continuous: Float32  # (N, C), neither clipped nor scaled
    discrete: Int64  # (N, K) branch indices
    log_probs: Float32  # (N, C + K), per dimension and branch

    def __len__(self) -> int:
        return len(self.log_probs)

    def actions(self) -> Actions:
        """Gives what the simulator is to receive: limited, and scaled to -1..1."""
        limited = self.continuous
        if limited.size:
            limited = np.clip(limited, -ACTION_LIMIT, ACTION_LIMIT) / np.float32(ACTION_LIMIT)
        return Actions(limited, self.discrete.astype(np.int32))

    def some(self, which: Bool) -> Choices:
        """Gives the rows that are True in `which` (N,)."""
        return Choices(self.continuous[which], self.discrete[which], self.log_probs[which])
