"""Some of the agents of a decoded list.

Letters: N agents of the list.
"""

from __future__ import annotations

import numpy as np

from envs.batch import Bool, Int64
from envs.bridge.codec import AgentTable


def split(table: AgentTable) -> tuple[AgentTable | None, AgentTable | None]:
    """Gives the agents whose episode is over, and those that ask for a decision."""
    done = table.done
    if done is None or not done.any():
        return None, table
    ended, going = done.nonzero()[0], (~done).nonzero()[0]
    return rows_of(table, ended), rows_of(table, going) if len(going) else None


def rows_of(table: AgentTable, rows: Int64) -> AgentTable:
    """Gives some rows of a table, as copies."""

    def pick(column: Bool | None) -> Bool | None:
        return None if column is None else column[rows]

    return AgentTable(
        tuple(column[rows] for column in table.obs),
        table.reward[rows],
        table.group_reward[rows],
        pick(table.done),
        pick(table.max_step_reached),
        table.agent_id[rows],
        table.group_id[rows],
        pick(table.action_mask),
        pick(table.bad),
    )


def some_rows(table: AgentTable, which: Bool) -> AgentTable | None:
    """Gives the rows of a table that are True in `which` (N,); None if there are none."""
    return rows_of(table, np.flatnonzero(which)) if which.any() else None
