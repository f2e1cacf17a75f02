"""Whole agent lists by the layouts of their records, with a handful of numpy calls.

A list mixes few layouts (agents with and without a reward, agents that end), but in ever new
orders, as proto3 leaves out what is zero. So the layouts are kept as tables, and a MessagePlan for
an order not seen before costs only some look-ups in them; it also reads the next list, if that has
the same structure.

Letters: N agents of the list, L sum of branch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.bridge.layout import (
    ACTION_MASK,
    AGENT_ID,
    DONE,
    GROUP_ID,
    GROUP_REWARD,
    MAX_STEP_REACHED,
    NUM_SCALAR_BYTES,
    REWARD,
    SCALARS,
    WIDTHS,
    Bytes,
    IrregularError,
    RecordLayout,
    read_varint,
    record_starts,
)

# Lists of one behaviour have few lengths (all agents, some agents); more are forgotten.
MAX_PLANS = 8
MAX_LAYOUTS = 32
MAX_CELLS = 1 << 23  # positions that a plan, or all tables of mixtures, may hold; 75 MB
DIGIT_WEIGHTS = np.array([1 << 7 * digit for digit in range(WIDTHS[AGENT_ID])], np.int64)
FLOAT_BYTES = 4


class Columns(NamedTuple):
    """The scalar columns of a list; None where no record of it has the field."""

    reward: NDArray[np.float32] | None
    group_reward: NDArray[np.float32] | None
    done: NDArray[np.bool_] | None
    max_step_reached: NDArray[np.bool_] | None
    agent_id: Bytes | None  # (N, 5) digits of varints
    group_id: Bytes | None  # (N, 5)
    forbidden: NDArray[np.bool_] | None  # (N, L)


class Mixture:
    """The layouts that one list mixes, as tables with a row for each layout.

    A row tells where the bytes of the scalar columns are, then those of the structure, then where
    each sensor's floats begin; all counted from the record's end, so negative. A layout that lacks
    a byte points to its first one with no bit let through, which reads as proto3's zero.
    """

    def __init__(self, layouts: Sequence[RecordLayout], used: set[int]) -> None:
        """Makes the tables; rows of layouts that are not `used` stay empty."""
        numbers = frozenset[int]().union(*(layouts[kind].numbers for kind in used))
        sources = {number: SCALARS[number] for number in WIDTHS if number in numbers}
        scalar_width = len(layouts[0].scalars)
        if any(layouts[kind].has_mask for kind in used):
            sources[ACTION_MASK] = slice(NUM_SCALAR_BYTES, scalar_width)
        columns: dict[int, slice] = {}
        chosen: list[int] = []  # which of a layout's scalars; floats come first
        for number, source in sources.items():
            columns[number] = slice(len(chosen), len(chosen) + source.stop - source.start)
            chosen += range(source.start, source.stop)
        self.reward, self.group_reward = columns.get(REWARD), columns.get(GROUP_REWARD)
        self.done, self.max_step = columns.get(DONE), columns.get(MAX_STEP_REACHED)
        self.agent_id, self.group_id = columns.get(AGENT_ID), columns.get(GROUP_ID)
        self.mask = columns.get(ACTION_MASK)
        self.first_checked = len(chosen)
        sensors = layouts[min(used)].sensors
        width = len(chosen) + max(len(layouts[kind].checked) for kind in used) + len(sensors)
        width += -width % FLOAT_BYTES  # so that every row's floats begin where a float may
        self.width = width
        self.float_starts = range(width - len(sensors), width)
        # An item as long as a sensor's floats, whatever they are: numpy copies it in one piece.
        self.items = [np.dtype((np.void, sensor.floats.num_bytes)) for sensor in sensors]
        self.shapes = [sensor.shape for sensor in sensors]
        self.positions = np.zeros((len(layouts), width), np.intp)
        self.bits = np.zeros((len(layouts), width), np.uint8)
        structure = np.zeros((len(layouts), width), np.uint8)
        self.num_bytes = np.array([layout.num_bytes for layout in layouts], np.intp)
        for kind in used:
            layout = layouts[kind]
            self.positions[kind, : len(chosen)] = layout.scalars[chosen]
            self.bits[kind, : len(chosen)] = layout.scalar_bits[chosen]
            checked = slice(len(chosen), len(chosen) + len(layout.checked))
            self.positions[kind, checked] = layout.checked
            self.bits[kind, checked] = layout.checked_bits
            structure[kind, checked] = np.frombuffer(layout.structure, np.uint8)
            for column, sensor in zip(self.float_starts, layout.sensors, strict=True):
                # A sensor without floats may begin where the list ends.
                self.positions[kind, column] = sensor.floats.start if sensor.floats[1] else 0
        self.positions -= self.num_bytes[:, None]
        self.structure = structure[:, self.first_checked :].copy()


class MessagePlan:
    """Reads every agent list that has the structure of the one it was made for.

    All bytes that matter, but for the floats of observations, are fetched with one `take`: of each
    record its scalars, then its structure.
    """

    def __init__(self, mixture: Mixture, kinds: bytes) -> None:
        """Plans for one record after the other; `kinds` are their rows in the tables."""
        self.kinds = kinds
        self.num_rows = len(kinds)
        self.is_steady = False  # whether the last two lists of this length had this structure
        self._mixture = mixture
        rows = np.frombuffer(kinds, np.uint8)
        self.num_cells = len(kinds) * mixture.width
        if self.num_cells > MAX_CELLS:  # one long record beside many short ones is enough
            raise IrregularError("a list too long to plan")
        self._index = mixture.positions.take(rows, 0)
        self._index += mixture.num_bytes.take(rows).cumsum()[:, None]  # where the records end
        self._bits = mixture.bits.take(rows, 0)
        self._structure = mixture.structure.take(rows, 0).tobytes()

    def read(self, data: bytes) -> Columns | None:
        """Gives the scalar columns of a list of this plan's length; None: its structure differs."""
        mixture = self._mixture
        gathered = np.frombuffer(data, np.uint8).take(self._index)
        gathered &= self._bits
        if gathered[:, mixture.first_checked :].tobytes() != self._structure:
            return None
        # Written out, as a call for each of these costs more than what it would do.
        reward, group_reward = mixture.reward, mixture.group_reward
        done, max_step, mask = mixture.done, mixture.max_step, mixture.mask
        agent_id, group_id = mixture.agent_id, mixture.group_id
        floats = gathered.view(np.float32)
        return Columns(
            None if reward is None else floats[:, reward.start // FLOAT_BYTES].copy(),
            None if group_reward is None else floats[:, group_reward.start // FLOAT_BYTES].copy(),
            None if done is None else gathered[:, done.start] != 0,
            None if max_step is None else gathered[:, max_step.start] != 0,
            None if agent_id is None else gathered[:, agent_id],
            None if group_id is None else gathered[:, group_id],
            None if mask is None else gathered[:, mask] != 0,
        )

    def observations(self, data: bytes) -> tuple[NDArray[np.float32], ...]:
        """Gives each sensor's column, (N, *shape), after `read` has accepted the list."""
        found = []
        mixture = self._mixture
        for column, item, sensor_shape in zip(
            mixture.float_starts, mixture.items, mixture.shapes, strict=True
        ):
            num_bytes, shape = item.itemsize, (self.num_rows, *sensor_shape)
            if num_bytes == 0:
                found.append(np.empty(shape, np.float32))
                continue
            # Every stretch of the message is an item of this array; fancy indexing copies ours.
            stretches = np.ndarray((len(data) - num_bytes + 1,), item, data, strides=(1,))
            found.append(stretches[self._index[:, column]].view(np.float32).reshape(shape))
        return tuple(found)


class Planner:
    """Finds plans for the agent lists of one behaviour; learns the layouts of their records.

    Args:
        num_branches: L.
        accept: called with a record and its layout when a layout is new; may raise.
    """

    def __init__(self, num_branches: int, accept: Callable[[bytes, RecordLayout], None]) -> None:
        self._num_branches = num_branches
        self._accept = accept
        self._plans: dict[int, MessagePlan] = {}  # by length of the list
        self._layouts: list[RecordLayout] = []
        self._most_layouts = min(MAX_LAYOUTS, MAX_CELLS // (NUM_SCALAR_BYTES + num_branches))
        self._mixtures: dict[frozenset[int], Mixture] = {}
        # Length and first field tell a record's layout, mostly; `read` finds out when they do not.
        self._heads: list[bytes] = []  # of each layout
        self._head_bytes = 0
        self._by_head: dict[bytes, tuple[int, int]] = {}  # the last such layout, its record bytes

    def read(self, data: bytes) -> tuple[MessagePlan, Columns]:
        """Gives the scalar columns of a list, and the plan that gives its observations.

        Raises:
            IrregularError: a record is not an ordinary one.
        """
        if len(self._layouts) > self._most_layouts:
            self._forget()
        plan = self._plans.get(len(data))
        if plan is not None and plan.is_steady:
            columns = plan.read(data)
            if columns is not None:
                return plan, columns
            plan.is_steady = False
        for find in (self._guess, self._recognise):
            kinds = find(data)
            if kinds is None:
                continue
            is_again = plan is not None and plan.kinds == kinds
            if plan is None or not is_again:
                plan = self._plan(kinds)
            columns = plan.read(data)
            if columns is not None:
                plan.is_steady = is_again
                self._remember(data, plan)
                return plan, columns
        raise AssertionError("a plan must read the list that it was made for")

    def _forget(self) -> None:
        for memory in (self._plans, self._layouts, self._mixtures, self._heads, self._by_head):
            memory.clear()

    def _remember(self, data: bytes, plan: MessagePlan) -> None:
        if plan.num_cells > MAX_CELLS // MAX_PLANS:
            self._plans.clear()
        elif len(data) not in self._plans and len(self._plans) >= MAX_PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[len(data)] = plan

    def _plan(self, kinds: bytes) -> MessagePlan:
        used = frozenset(kinds)
        mixture = self._mixtures.get(used)
        if mixture is None:
            mixture = Mixture(self._layouts, set(used))
            num_cells = sum(known.positions.size for known in self._mixtures.values())
            if len(self._mixtures) >= MAX_LAYOUTS or num_cells > MAX_CELLS:
                self._mixtures.clear()
            self._mixtures[used] = mixture
        return MessagePlan(mixture, kinds)

    def _guess(self, data: bytes) -> bytes | None:
        """Guesses each record's layout by its first bytes; None when one is unknown."""
        by_head, width = self._by_head, self._head_bytes
        kinds = []
        position, end = 0, len(data)
        try:
            while position < end:
                kind, num_bytes = by_head[data[position : position + width]]
                kinds.append(kind)
                position += num_bytes
        except KeyError:
            return None
        return bytes(kinds) if position == end else None

    def _recognise(self, data: bytes) -> bytes:
        """Finds each record's layout by all of its structure, learning those that are new."""
        edges = np.array(record_starts(data), np.intp)
        lengths = edges[1:] - edges[:-1]
        buffer = np.frombuffer(data, np.uint8)
        kinds = np.zeros(len(lengths), np.uint8)
        for length in sorted(set(lengths.tolist())):
            (rows,) = np.nonzero(lengths == length)
            candidates = [k for k, known in enumerate(self._layouts) if known.num_bytes == length]
            while len(rows):
                if not candidates:
                    first = int(edges[rows[0]])
                    candidates = [self._learn(data[first : first + length])]
                kind = candidates.pop()
                layout = self._layouts[kind]
                found = buffer.take(edges[rows][:, None] + layout.checked) & layout.checked_bits
                fits = (found == np.frombuffer(layout.structure, np.uint8)).all(axis=1)
                kinds[rows[fits]] = kind
                rows = rows[~fits]
        self._head_bytes = min(map(len, self._heads))
        newest = [*range(len(self._layouts)), *sorted(set(kinds.tolist()))]
        self._by_head = {
            self._heads[kind][: self._head_bytes]: (kind, self._layouts[kind].num_bytes)
            for kind in newest
        }
        return kinds.tobytes()

    def _learn(self, record: bytes) -> int:
        layout = RecordLayout.of(record, self._num_branches)
        self._accept(record, layout)
        if len(self._layouts) * len(layout.scalars) > MAX_CELLS:
            raise IrregularError("layouts of too many actions")
        if len(self._layouts) > np.iinfo(np.uint8).max:
            raise IrregularError("more layouts in one list than have a number")
        self._layouts.append(layout)
        _, body = read_varint(record, 1)
        self._heads.append(record[: body + 1])
        self._mixtures.clear()  # their tables have no row for it
        return len(self._layouts) - 1
