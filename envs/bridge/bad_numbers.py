"""Agents that send NaN or infinite numbers: their episodes are dropped, the others go on.

From such a number on an agent is answered with zeros and not heard, until its episode is over; then
its next one counts again.

Letters: N agents of a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs.batch import Actions, Bool, Choices, Int32, Int64

if TYPE_CHECKING:
    from envs.bridge.codec import AgentTable


@dataclass(frozen=True, slots=True)
class DroppedEpisode:
    """An episode that is not learnt from and not counted."""

    behavior: str  # its name, without team
    agent_id: int
    text: str  # complete for the user
    lanes: Int64  # (1,) void from now on; (0,) of an agent that never had a decision


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is left of the agents of a message."""

    ended: Bool  # (N,) which of those whose episode is over count
    going: Bool  # (N,) which of those that ask for a decision count
    bad_ended: Int64  # rows of new offenders
    bad_going: Int64
    ignored: frozenset[int]  # agents that are not heard from now on


@dataclass(slots=True)
class IgnoredAgents:
    """Which agents of one behaviour of one simulator are not heard, and whom to answer."""

    ids: frozenset[int] = frozenset()
    heard: Bool | None = field(default=None)  # (N,) of those that wait for an answer; None = all

    def sift(self, ended: AgentTable | None, going: AgentTable | None) -> Sifted | None:
        """Sorts out who counts, changing nothing yet; None = everybody does."""
        is_sound = (ended is None or ended.bad is None) and (going is None or going.bad is None)
        if is_sound and not self.ids:
            return None
        bad_ended, was_ended = _bad(ended), _among(ended, self.ids)
        over = set() if ended is None else set(ended.agent_id[was_ended].tolist())
        left = self.ids - over
        # An id may be used again for the next episode, in the message that ends the last one.
        bad_going, was_going = _bad(going), _among(going, left)
        new = set() if going is None else set(going.agent_id[bad_going].tolist())
        return Sifted(
            ~(bad_ended | was_ended),
            ~(bad_going | was_going),
            np.flatnonzero(bad_ended & ~was_ended),
            np.flatnonzero(bad_going & ~was_going),
            frozenset(left | new),
        )

    def forget(self) -> None:
        """Begins anew, as the agents do."""
        self.ids, self.heard = frozenset(), None

    def spread(self, given: Actions | None) -> Actions | None:
        """Gives answers for all that wait: those of agents that are heard, zeros for the others.

        To be called once per message; without any answers it gives none.
        """
        heard, self.heard = self.heard, None
        if heard is None or given is None:
            return given
        continuous = np.zeros((len(heard), given.continuous.shape[1]), np.float32)
        discrete: Int32 = np.zeros((len(heard), given.discrete.shape[1]), np.int32)
        continuous[heard], discrete[heard] = given.continuous, given.discrete
        return Actions(continuous, discrete)

    def pick(self, choices: Choices) -> Choices:
        """Gives what was chosen for those that are heard, of choices for all that waited."""
        heard, self.heard = self.heard, None
        return choices if heard is None else choices.some(heard)


def words_for_bad(
    behavior_id: str, agent_id: int, named: Sequence[tuple[str, NDArray[Any]]]
) -> str:
    """Says which number of an agent is not finite.

    Args:
        behavior_id: of the agent.
        agent_id: its number.
        named: everything that it has sent, with its name.
    """
    for name, numbers in named:
        flat = numbers.reshape(-1)
        bad = np.flatnonzero(~np.isfinite(flat))
        if len(bad):
            return (
                f"behaviour {behavior_id!r}, agent {agent_id}: {name} "
                f"holds {flat[bad[0]]} at index {bad[0]}, a finite number is expected. "
                "Look for a division by zero or a physics blow-up in the simulator."
            )
    raise ValueError(f"every number of agent {agent_id} is finite")


def _bad(table: AgentTable | None) -> Bool:
    if table is None or table.bad is None:
        return np.zeros(0 if table is None else len(table.reward), np.bool_)
    return table.bad


def _among(table: AgentTable | None, ids: frozenset[int]) -> Bool:
    if table is None:
        return np.zeros(0, np.bool_)
    found: Bool = np.isin(table.agent_id, list(ids))
    return found
