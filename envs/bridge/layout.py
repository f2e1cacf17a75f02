"""Where in the bytes of agent records each number lies, so that numpy can gather whole columns.

A message of one behaviour is a list of AgentInfoProto records. Records of one kind differ only in
their numbers; tags, lengths and names (the *structure*) are the same byte for byte. A RecordLayout
is what one record looks like; a MessagePlan is the same for a whole list, and reads the next list
that has the same structure with a handful of numpy calls, whatever mixture of records it holds.

Letters: N agents of the list, L sum of branch sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from envs.bridge.proto import columns_pb2

Bytes = NDArray[np.uint8]
Index = NDArray[np.intp]

# Field numbers of ListAgentInfoProto, AgentInfoProto, ObservationProto and FloatData.
LIST_VALUE = 1
REWARD, DONE, MAX_STEP_REACHED, AGENT_ID, ACTION_MASK = 7, 8, 9, 10, 11
OBSERVATIONS, GROUP_ID, GROUP_REWARD = 13, 14, 15
COMPRESSED_DATA, FLOAT_DATA = 3, 4
FLOATS = 1

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
NUMBERS = {REWARD: FIXED32, GROUP_REWARD: FIXED32} | dict.fromkeys(
    (DONE, MAX_STEP_REACHED, AGENT_ID, GROUP_ID), VARINT
)
MAX_VARINT_BYTES = 10
MAX_FIELD_NUMBER = (1 << 29) - 1
LIST_TAG = LIST_VALUE << 3 | LENGTH_DELIMITED
# The scalar columns of one record, end to end, each as wide as its widest varint may be.
WIDTHS = {REWARD: 4, GROUP_REWARD: 4, DONE: 1, MAX_STEP_REACHED: 1, AGENT_ID: 5, GROUP_ID: 5}
NUM_SCALAR_BYTES = sum(WIDTHS.values())
CONTINUES = 0x80  # the bit that says another byte of this varint follows
PAYLOAD = 0x7F


class IrregularError(Exception):
    """A record is legal or broken in a way that only an ordinary parser should judge."""


def _scalar_slices() -> dict[int, slice]:
    slices, start = {}, 0
    for number, width in WIDTHS.items():
        slices[number] = slice(start, start + width)
        start += width
    return slices


SCALARS = _scalar_slices()
DIGIT_WEIGHTS = np.array([1 << 7 * digit for digit in range(WIDTHS[AGENT_ID])], np.int64)


class Span(NamedTuple):
    """A stretch of a record."""

    start: int
    num_bytes: int


class Sensor(NamedTuple):
    """One observation of a record: what it says of itself, and where its floats are."""

    shape: tuple[int, ...]
    is_compressed: bool
    floats: Span


class Field(NamedTuple):
    """One field as it lies on the wire: `value` is the payload without tag and length."""

    number: int
    wire_type: int
    value: Span


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Gives the varint at `position` and the position behind it; IrregularError past the end."""
    value = shift = 0
    for index in range(position, min(position + MAX_VARINT_BYTES, len(data))):
        byte = data[index]
        value |= (byte & PAYLOAD) << shift
        if byte < CONTINUES:
            if shift == 63 and byte > 1:
                break
            return value, index + 1
        shift += 7
    raise IrregularError("a varint without end, or of more than 64 bits")


def fields_of(data: bytes, start: int, end: int) -> Iterator[Field]:
    """Yields the fields of the message that lies in data[start:end]."""
    position = start
    while position < end:
        tag, position = read_varint(data, position)
        wire_type = tag & 7
        value_start = position
        if wire_type == VARINT:
            _, position = read_varint(data, position)
        elif wire_type == FIXED32:
            position += 4
        elif wire_type == FIXED64:
            position += 8
        elif wire_type == LENGTH_DELIMITED:
            num_bytes, value_start = read_varint(data, position)
            position = value_start + num_bytes
        else:
            raise IrregularError(f"wire type {wire_type}")
        if position > end or not 0 < tag >> 3 <= MAX_FIELD_NUMBER:
            raise IrregularError("a field that leaves its message, or has no legal number")
        yield Field(tag >> 3, wire_type, Span(value_start, position - value_start))


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """One kind of agent record, its list tag and length included."""

    num_bytes: int
    numbers: frozenset[int]  # fields that are there; proto3 leaves out what is zero
    has_mask: bool
    sensors: tuple[Sensor, ...]
    checked: Index  # positions whose bytes must be as they are in the record this was made from
    checked_bits: Bytes  # which bits of them
    structure: bytes  # what these bits are
    scalars: Index  # positions of the scalar columns' bytes, then of the mask's; 0 where missing
    scalar_bits: Bytes  # which bits of them count; none where missing

    @staticmethod
    def of(record: bytes, num_branches: int) -> RecordLayout:
        """Reads the structure of one record; IrregularError when it is not an ordinary one.

        Args:
            record: with its list tag and length.
            num_branches: L; a mask of another length is as good as none.
        """
        _, body = read_varint(record, 1)
        numbers: set[int] = set()
        mask: Span | None = None
        sensors = []
        bits = np.full(len(record), 0xFF, np.uint8)
        scalars = np.zeros(NUM_SCALAR_BYTES + num_branches, np.intp)
        scalar_bits = np.zeros(NUM_SCALAR_BYTES + num_branches, np.uint8)
        for field in fields_of(record, body, len(record)):
            stretch = slice(field.value.start, sum(field.value))
            if field.number == OBSERVATIONS:
                sensors.append(_sensor(record, field))
                floats = sensors[-1].floats
                bits[floats.start : sum(floats)] = 0
            elif field.number == ACTION_MASK:
                if mask is not None or field.wire_type != LENGTH_DELIMITED:
                    raise IrregularError("an action mask in pieces")
                if any(byte & CONTINUES for byte in record[stretch]):
                    raise IrregularError("a truth value of several bytes")
                mask = field.value
                bits[stretch] = CONTINUES
                if mask.num_bytes == num_branches:
                    scalars[NUM_SCALAR_BYTES:] = np.arange(*stretch.indices(len(record)))
                    scalar_bits[NUM_SCALAR_BYTES:] = PAYLOAD
            elif field.number in NUMBERS:
                if field.number in numbers or field.wire_type != NUMBERS[field.number]:
                    raise IrregularError("a number given twice, or of another type")
                num_bytes = field.value.num_bytes
                if num_bytes > WIDTHS[field.number]:
                    raise IrregularError("a negative number, or a truth value of several bytes")
                numbers.add(field.number)
                is_varint = field.wire_type == VARINT
                bits[stretch] = CONTINUES if is_varint else 0
                first = SCALARS[field.number].start
                column = slice(first, first + num_bytes)
                scalars[column] = np.arange(*stretch.indices(len(record)))
                scalar_bits[column] = PAYLOAD if is_varint else 0xFF
        (checked,) = np.nonzero(bits)
        structure = np.frombuffer(record, np.uint8)[checked] & bits[checked]
        return RecordLayout(
            num_bytes=len(record),
            numbers=frozenset(numbers),
            has_mask=mask is not None and mask.num_bytes == num_branches > 0,
            sensors=tuple(sensors),
            checked=checked,
            checked_bits=bits[checked],
            structure=structure.tobytes(),
            scalars=scalars,
            scalar_bits=scalar_bits,
        )


def _sensor(record: bytes, field: Field) -> Sensor:
    """Reads one observation of a record, whose floats must come in one piece."""
    if field.wire_type != LENGTH_DELIMITED:
        raise IrregularError("an observation that is no message")
    start, num_bytes = field.value
    end = start + num_bytes
    try:
        observation = columns_pb2.Observation.FromString(record[start:end])
    except DecodeError as error:
        raise IrregularError("an unreadable observation") from error
    floats = None
    for part in fields_of(record, start, end):
        if part.number not in (COMPRESSED_DATA, FLOAT_DATA):
            continue
        if floats is not None or part.wire_type != LENGTH_DELIMITED:
            raise IrregularError("observation data in pieces")
        floats = Span(part.value.start, 0)
        if part.number == FLOAT_DATA:
            inner = list(fields_of(record, part.value.start, sum(part.value)))
            if len(inner) > 1 or any(f[:2] != (FLOATS, LENGTH_DELIMITED) for f in inner):
                raise IrregularError("floats in pieces, or not packed")
            floats = inner[0].value if inner else floats
    is_compressed = observation.HasField("compressed_data")
    return Sensor(tuple(observation.shape), is_compressed, floats or Span(start, 0))


def record_starts(data: bytes) -> list[int]:
    """Gives where each record of an agent list begins, and the list's length at the end."""
    starts = [0]
    position, end = 0, len(data)
    try:
        while position < end:
            if data[position] != LIST_TAG:
                raise IrregularError("something else among the records")
            length = data[position + 1]
            if length < CONTINUES:
                position += 2 + length
            elif (second := data[position + 2]) < CONTINUES:
                position += 3 + (length & PAYLOAD | second << 7)
            else:
                length, body = read_varint(data, position + 1)
                position = body + length
            starts.append(position)
    except IndexError as error:
        raise IrregularError("the last record's length is cut off") from error
    if position != end:
        raise IrregularError("the last record is cut off")
    return starts


class LayoutGroup(NamedTuple):
    """The rows of a list that have one layout."""

    layout: RecordLayout
    rows: Index
    starts: Index  # where these rows' records begin


class Columns(NamedTuple):
    """The scalar columns of a list; None where no record of it has the field."""

    reward: NDArray[np.float32] | None
    group_reward: NDArray[np.float32] | None
    done: NDArray[np.bool_] | None
    max_step_reached: NDArray[np.bool_] | None
    agent_id: NDArray[np.int32] | None
    group_id: NDArray[np.int32] | None
    forbidden: NDArray[np.bool_] | None  # (N, L)


class MessagePlan:
    """Reads every agent list that has the structure of the one it was made from.

    All bytes that matter, but for the floats of observations, are fetched with one `take`: one
    scalar column after the other, then the structure of all records. A record that lacks a field
    points to byte 0 with no bit let through, which reads as proto3's zero.
    """

    def __init__(self, groups: Sequence[LayoutGroup], num_rows: int) -> None:
        self.num_rows = num_rows
        self._obs_shapes = [(num_rows, *sensor.shape) for sensor in groups[0].layout.sensors]
        sensors = groups[0].layout.sensors
        width = len(groups[0].layout.scalars)
        scalars = np.empty((num_rows, width), np.intp)
        scalar_bits = np.empty((num_rows, width), np.uint8)
        self._float_starts = [np.empty(num_rows, np.intp) for _ in sensors]
        # An item as long as a sensor's floats, whatever they are: numpy copies it in one piece.
        self._float_items = [np.dtype((np.void, sensor.floats.num_bytes)) for sensor in sensors]
        checked, checked_bits, structure = [], [], []
        for layout, rows, starts in groups:
            positions = starts[:, None] + layout.checked
            checked.append(positions.reshape(-1))
            checked_bits.append(np.broadcast_to(layout.checked_bits, positions.shape).reshape(-1))
            structure.append(layout.structure * len(rows))
            scalars[rows] = starts[:, None] + layout.scalars
            scalar_bits[rows] = layout.scalar_bits
            for column, sensor in zip(self._float_starts, layout.sensors, strict=True):
                column[rows] = starts + sensor.floats.start
        numbers = frozenset[int]().union(*(group.layout.numbers for group in groups))
        columns = {number: SCALARS[number] for number in WIDTHS if number in numbers}
        if any(group.layout.has_mask for group in groups):
            columns[ACTION_MASK] = slice(NUM_SCALAR_BYTES, width)
        # Columns of floats come first, so that they begin where a float may begin.
        slices: dict[int, slice] = {}
        self._num_scalars = 0
        for number, stretch in columns.items():
            end = self._num_scalars + num_rows * (stretch.stop - stretch.start)
            slices[number] = slice(self._num_scalars, end)
            self._num_scalars = end
        self._reward, self._group_reward = slices.get(REWARD), slices.get(GROUP_REWARD)
        self._done, self._max_step = slices.get(DONE), slices.get(MAX_STEP_REACHED)
        self._agent_id, self._group_id = slices.get(AGENT_ID), slices.get(GROUP_ID)
        self._mask = slices.get(ACTION_MASK)
        scalar_index = [scalars[:, stretch].reshape(-1) for stretch in columns.values()]
        column_bits = [scalar_bits[:, stretch].reshape(-1) for stretch in columns.values()]
        self._index = np.concatenate([*scalar_index, *checked])
        self._bits = np.concatenate([*column_bits, *checked_bits])
        self._structure = b"".join(structure)
        self._last_integers: dict[int, tuple[bytes, NDArray[np.int32]]] = {}

    def read(self, data: bytes) -> Columns | None:
        """Gives the scalar columns of a list of this plan's length; None: its structure differs."""
        gathered = np.frombuffer(data, np.uint8).take(self._index)
        gathered &= self._bits
        if gathered[self._num_scalars :].tobytes() != self._structure:
            return None
        # Written out, as a call for each of these costs more than what it would do.
        reward, group_reward = self._reward, self._group_reward
        done, max_step, mask = self._done, self._max_step, self._mask
        return Columns(
            None if reward is None else gathered[reward].view(np.float32),
            None if group_reward is None else gathered[group_reward].view(np.float32),
            None if done is None else gathered[done] != 0,
            None if max_step is None else gathered[max_step] != 0,
            None if self._agent_id is None else self._integers(gathered[self._agent_id], AGENT_ID),
            None if self._group_id is None else self._integers(gathered[self._group_id], GROUP_ID),
            None if mask is None else (gathered[mask] != 0).reshape(self.num_rows, -1),
        )

    def observations(self, data: bytes) -> tuple[NDArray[np.float32], ...]:
        """Gives each sensor's column, (N, *shape), after `read` has accepted the list."""
        found = []
        for starts, item, shape in zip(
            self._float_starts, self._float_items, self._obs_shapes, strict=True
        ):
            num_bytes = item.itemsize
            if num_bytes == 0:
                found.append(np.empty(shape, np.float32))
                continue
            # Every stretch of the message is an item of this array; fancy indexing copies ours.
            stretches = np.ndarray((len(data) - num_bytes + 1,), item, data, strides=(1,))
            found.append(stretches[starts].view(np.float32).reshape(shape))
        return tuple(found)

    def _integers(self, varints: Bytes, number: int) -> NDArray[np.int32]:
        """Gives varints as int32; the very array of the last call where nothing has changed."""
        raw = varints.tobytes()
        last = self._last_integers.get(number)
        if last is not None and last[0] == raw:
            return last[1]
        # Only the lowest 32 bits count, as in protobuf.
        digits = varints.reshape(self.num_rows, -1)
        integers: NDArray[np.int32] = (digits @ DIGIT_WEIGHTS).astype(np.int32)
        integers.setflags(write=False)
        self._last_integers[number] = (raw, integers)
        return integers


def group_by_layout(
    data: bytes, starts: Sequence[int], layouts: list[RecordLayout], num_branches: int
) -> list[LayoutGroup]:
    """Finds the layout of every record, adding to `layouts` those that are new.

    Args:
        data: an agent list.
        starts: from `record_starts`.
        layouts: layouts of earlier lists.
        num_branches: L.

    Raises:
        IrregularError: a record is not an ordinary one.
    """
    edges = np.array(starts, np.intp)
    lengths = edges[1:] - edges[:-1]
    buffer = np.frombuffer(data, np.uint8)
    groups = []
    for length in sorted(set(lengths.tolist())):
        (rows,) = np.nonzero(lengths == length)
        candidates = [layout for layout in layouts if layout.num_bytes == length]
        while len(rows):
            if not candidates:
                first = starts[rows[0]]
                candidates = [RecordLayout.of(data[first : first + length], num_branches)]
                layouts.extend(candidates)
            layout = candidates.pop()
            found = buffer.take(edges[rows][:, None] + layout.checked) & layout.checked_bits
            fits = (found == np.frombuffer(layout.structure, np.uint8)).all(axis=1)
            if fits.any():
                groups.append(LayoutGroup(layout, rows[fits], edges[rows[fits]]))
                rows = rows[~fits]
    return groups
