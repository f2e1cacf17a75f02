"""Plays environments in this process and writes down, per environment, what the trainer hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.batch import Actions
from envs.fleet import FleetPlan, SimulatorLoss, SimulatorMessage
from envs.in_process.copies import InProcessPlan
from envs.registry import open_simulators
from envs.simulators import Simulators

# What was said of an agent: ("asks" or kind of end, its observation, its reward).
Entry = tuple[str, list[float], float]


def plan(env: str, num_areas: int, **changes: Any) -> FleetPlan:
    keys = {"kwargs", "wrappers", "behavior_name"}
    own = {key: changes.pop(key) for key in keys & changes.keys()}
    wanted: dict[str, Any] = {"num_areas": num_areas, "restarts_rate_limit_n": -1, **changes}
    return FleetPlan(launch=None, in_process=InProcessPlan(env=env, **own), **wanted)


@dataclass
class Books:
    """All that was said, by lane, in the order of the lanes' beginnings."""

    lives: list[list[Entry]] = field(default_factory=list)
    losses: list[SimulatorLoss] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    lost: list[list[Entry]] = field(default_factory=list)  # lives that ended without an end
    last: SimulatorMessage | None = None
    _open: dict[int, list[Entry]] = field(default_factory=dict)

    def hear(self, items: Sequence[SimulatorMessage | SimulatorLoss]) -> None:
        for item in items:
            if isinstance(item, SimulatorLoss):
                self.losses.append(item)
                self.void(item.lanes)
                continue
            self.last = item
            for drop in item.dropped:
                self.dropped.append(drop.text)
                self.void({drop.behavior: drop.lanes})
            for terminals in item.terminals.values():
                for row, lane in enumerate(terminals.lane.tolist()):
                    kind = "truncated" if terminals.truncated[row] else "terminated"
                    entry = kind, terminals.obs[0][row].tolist(), float(terminals.reward[row])
                    self._open.pop(lane).append(entry)
            for decisions in item.decisions.values():
                assert len(set(decisions.agent_id.tolist())) == len(decisions)
                for row, lane in enumerate(decisions.lane.tolist()):
                    if lane not in self._open:
                        self._open[lane] = []
                        self.lives.append(self._open[lane])
                    entry = "asks", decisions.obs[0][row].tolist(), float(decisions.reward[row])
                    self._open[lane].append(entry)

    def void(self, lanes: dict[str, Any]) -> None:
        for lane in (lane for some in lanes.values() for lane in some.tolist()):
            self.lost.append(self._open.pop(lane))


def answer(simulators: Simulators, books: Books, actions: Sequence[int]) -> None:
    """Sends one branch index per agent that waits, in the order of the message."""
    assert books.last is not None
    for behavior_id, decisions in books.last.decisions.items():
        given = np.array(actions, np.int32).reshape(len(decisions), 1)
        empty = np.zeros((len(decisions), 0), np.float32)
        simulators.send(books.last.simulator, {behavior_id: Actions(empty, given)})
    if not books.last.decisions:
        simulators.send(books.last.simulator, {})


def play(wanted: FleetPlan, turns: Sequence[Sequence[int]]) -> Books:
    books = Books()
    with open_simulators(wanted) as simulators:
        books.hear(simulators.recv(1.0))
        for actions in turns:
            answer(simulators, books, actions)
            books.hear(simulators.recv(1.0))
    return books
