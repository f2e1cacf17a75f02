"""Lanes: the small numbers under which the trainer knows living agents.

A lane is one living agent of one simulator; lanes of one behaviour name are counted from 0,
whatever simulator or team they belong to, and are used again once their episode is over.

Letters: N agents of a message.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from envs.batch import Bool, Int32, Int64
from envs.errors import BadDataError

NOBODY = -1
MOST_AGENTS = 100_000  # living ones, of one behaviour of one simulator


class LanePool:
    """The lane numbers of one behaviour name, lowest first."""

    def __init__(self) -> None:
        self._free: Int64 = np.empty(0, np.int64)  # sorted
        self._retired: list[Int64] = []
        self._unsettled: list[AgentLanes] = []  # have ended lanes since the last `recycle`
        self._num_lanes = 0  # all lane numbers are below it

    def take(self, count: int) -> Int64:
        """Gives `count` lanes that nobody uses."""
        reused, self._free = self._free[:count], self._free[count:]
        fresh = np.arange(self._num_lanes, self._num_lanes + count - len(reused), dtype=np.int64)
        self._num_lanes += len(fresh)
        return np.concatenate([reused, fresh])

    def retire(self, lanes: Int64) -> None:
        """Takes lanes back, but for use only after the next `recycle`."""
        if len(lanes):
            self._retired.append(lanes)

    def settle_later(self, agents: AgentLanes) -> None:
        """Settles these agents at the next `recycle`; the others have nothing to settle."""
        self._unsettled.append(agents)

    def recycle(self) -> None:
        """Lets retired lanes be used again; the trainer knows of all endings so far."""
        for agents in self._unsettled:
            agents.settle()
        self._unsettled.clear()
        if self._retired:
            self._free = np.sort(np.concatenate([self._free, *self._retired]))
            self._retired.clear()


class AgentLanes:
    """Which lane each living agent of one behaviour of one simulator has."""

    def __init__(self, behavior_id: str, pool: LanePool) -> None:
        self._behavior_id = behavior_id
        self._pool = pool
        self._ids: Int32 = np.empty(0, np.int32)  # sorted
        self._lanes: Int64 = np.empty(0, np.int64)  # of these ids
        self._ended: list[Int64] = []  # since the last `settle`
        self._last_ids: Int32 = self._ids
        self._last_lanes: Int64 = self._lanes

    @property
    def lanes(self) -> Int64:
        """The lanes of all living agents, in no particular order."""
        return self._lanes

    def require_unique(self, agent_ids: Int32) -> None:
        """Raises BadDataError when an id stands twice among those that ask for a decision.

        Or when there are too many of them, in this message or alive.
        """
        if agent_ids is self._last_ids:
            return  # the usual case
        num_agents = max(len(agent_ids), len(self._ids))
        if num_agents > MOST_AGENTS:
            raise BadDataError(
                f"behaviour {self._behavior_id!r} has {num_agents} living agents, at most "
                f"{MOST_AGENTS} per simulator are expected. Do episodes end, and do agents keep "
                "their ids? Use fewer training areas."
            )
        if (agent_ids[1:] > agent_ids[:-1]).all():
            return  # usual too: another set, in order
        if len(np.unique(agent_ids)) == len(agent_ids):
            return
        ids, counts = np.unique(agent_ids, return_counts=True)
        raise BadDataError(
            f"behaviour {self._behavior_id!r}: agent {int(ids[counts.argmax()])} asks for "
            f"{int(counts.max())} decisions in one message, 1 is expected. The simulator must "
            "give every living agent an id of its own."
        )

    def of_decisions(self, agent_ids: Int32) -> Int64:
        """Gives (N,) lanes, new ones to agents not seen before; no id may stand there twice."""
        if agent_ids is self._last_ids or np.array_equal(agent_ids, self._last_ids):
            return self._last_lanes
        places, known = self._find(agent_ids)
        if not known.all():
            self._add(agent_ids[~known])
            places, _ = self._find(agent_ids)
        lanes = self._lanes[places]
        lanes.setflags(write=False)
        self._last_ids, self._last_lanes = agent_ids, lanes
        return lanes

    def of_terminals(self, agent_ids: Int32) -> Int64:
        """Gives (N,) lanes of agents whose episode is over, and ends these lanes.

        Agents that never had a decision have no lane: NOBODY.
        """
        places, known = self._find(agent_ids)
        lanes = np.full(len(agent_ids), NOBODY, np.int64)
        lanes[known] = self._lanes[places[known]]
        # An id that stands twice ends once; the second entry is of an agent without a decision.
        _, first = np.unique(agent_ids, return_index=True)
        repeated = np.ones(len(agent_ids), np.bool_)
        repeated[first] = False
        lanes[repeated] = NOBODY
        ended = places[known & ~repeated]
        self._pool.retire(self._lanes[ended])
        self._ended.append(self._lanes[ended])
        self._pool.settle_later(self)
        self._ids = np.delete(self._ids, ended)
        self._lanes = np.delete(self._lanes, ended)
        self._forget_last()
        return lanes

    def settle(self) -> None:
        """Takes note that the trainer knows of all endings so far."""
        self._ended.clear()

    def clear(self) -> Int64:
        """Ends all lanes; gives them, and those whose ending the trainer may not know of.

        A message of several env_steps may end some agents before it turns out to be bad.
        """
        lanes = np.concatenate([self._lanes, *self._ended])
        self._pool.retire(self._lanes)
        self._ids, self._lanes = np.empty(0, np.int32), np.empty(0, np.int64)
        self._ended.clear()
        self._forget_last()
        return lanes

    def _forget_last(self) -> None:
        self._last_ids, self._last_lanes = np.empty(0, np.int32), np.empty(0, np.int64)

    def _find(self, agent_ids: Int32) -> tuple[Int64, Bool]:
        """Gives for each id its place in the sorted table, and whether it is really there."""
        places = np.searchsorted(self._ids, agent_ids)
        inside = np.minimum(places, len(self._ids) - 1)
        if not len(self._ids):
            return places, np.zeros(len(agent_ids), np.bool_)
        return inside, self._ids[inside] == agent_ids

    def _add(self, agent_ids: Int32) -> None:
        newcomers, first = np.unique(agent_ids, return_index=True)
        lanes = np.empty(len(newcomers), np.int64)
        # The lowest lanes go to the agents that the simulator lists first.
        lanes[np.argsort(first)] = self._pool.take(len(newcomers))
        self._ids = np.concatenate([self._ids, newcomers])
        self._lanes = np.concatenate([self._lanes, lanes])
        order = np.argsort(self._ids)
        self._ids, self._lanes = self._ids[order], self._lanes[order]


class LaneTable:
    """The lanes of all agents of all simulators."""

    def __init__(self) -> None:
        self._pools: dict[str, LanePool] = {}
        self._agents: dict[tuple[int, str], tuple[str, AgentLanes]] = {}

    def agents(self, simulator: int, behavior_id: str, name: str) -> AgentLanes:
        """Gives the agents of one behaviour id of one simulator; `name` is the id without team."""
        key = (simulator, behavior_id)
        if key not in self._agents:
            pool = self._pools.setdefault(name, LanePool())
            self._agents[key] = (name, AgentLanes(behavior_id, pool))
        return self._agents[key][1]

    def recycle(self) -> None:
        """Lets lanes whose episodes have ended be used again."""
        for pool in self._pools.values():
            pool.recycle()

    def clear(self, simulators: Iterable[int]) -> dict[str, Int64]:
        """Ends all lanes of these simulators and gives them by behaviour name.

        Those that have ended since the last `recycle` are among them.
        """
        gone = set(simulators)
        found: dict[str, list[Int64]] = {}
        for (simulator, _), (name, agents) in self._agents.items():
            if simulator in gone:
                found.setdefault(name, []).append(agents.clear())
        return {name: np.sort(np.concatenate(lanes)) for name, lanes in found.items()}
