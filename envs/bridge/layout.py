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
CONTINUES = 0x80  # the bit that says another byte of this varint follows
PAYLOAD = 0x7F


class IrregularError(Exception):
    """A record is legal or broken in a way that only an ordinary parser should judge."""


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
    numbers: dict[int, Span]  # field number -> its bytes; fields that proto3 left out are missing
    action_mask: Span | None
    sensors: tuple[Sensor, ...]
    checked: Index  # positions whose bytes must be as they are in the record this was made from
    checked_bits: Bytes  # which bits of them
    structure: bytes  # what these bits are

    @staticmethod
    def of(record: bytes) -> RecordLayout:
        """Reads the structure of one record; IrregularError when it is not an ordinary one."""
        _, body = read_varint(record, 1)
        numbers: dict[int, Span] = {}
        action_mask: Span | None = None
        sensors = []
        bits = np.full(len(record), 0xFF, np.uint8)
        for field in fields_of(record, body, len(record)):
            span = field.value
            stretch = slice(span.start, span.start + span.num_bytes)
            if field.number == OBSERVATIONS:
                sensors.append(_sensor(record, field))
                floats = sensors[-1].floats
                bits[floats.start : floats.start + floats.num_bytes] = 0
            elif field.number == ACTION_MASK:
                if action_mask is not None or field.wire_type != LENGTH_DELIMITED:
                    raise IrregularError("an action mask in pieces")
                action_mask = span
                bits[stretch] = CONTINUES
                if any(byte & CONTINUES for byte in record[stretch]):
                    raise IrregularError("a truth value of several bytes")
            elif field.number in NUMBERS:
                if field.number in numbers or field.wire_type != NUMBERS[field.number]:
                    raise IrregularError("a number given twice, or of another type")
                numbers[field.number] = span
                bits[stretch] = CONTINUES if field.wire_type == VARINT else 0
                if span.num_bytes == MAX_VARINT_BYTES:
                    bits[span.start + MAX_VARINT_BYTES - 1] = 0xFF  # only its lowest bit may be set
        (checked,) = np.nonzero(bits)
        structure = np.frombuffer(record, np.uint8)[checked] & bits[checked]
        return RecordLayout(
            len(record),
            numbers,
            action_mask,
            tuple(sensors),
            checked,
            bits[checked],
            structure.tobytes(),
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
    while position < end:
        if data[position] != LIST_TAG:
            raise IrregularError("something else among the records")
        length, body = read_varint(data, position + 1)
        position = body + length
        starts.append(position)
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

    All bytes that matter, but for the floats of observations, are fetched with one `take`:
    first the structure of all records, then one column after the other. A record that lacks a
    field points to byte 0 with no bit let through, which reads as proto3's default of zero.
    """

    def __init__(self, groups: Sequence[LayoutGroup], num_rows: int, num_branches: int) -> None:
        self.num_rows = num_rows
        index = [(g.starts[:, None] + g.layout.checked).ravel() for g in groups]
        bits = [np.tile(g.layout.checked_bits, len(g.rows)) for g in groups]
        self._structure = b"".join(g.layout.structure * len(g.rows) for g in groups)
        self._slices: dict[int, slice] = {}
        end = len(self._structure)
        for number in (*NUMBERS, ACTION_MASK):
            width = self._width(groups, number, num_branches)
            if width:
                column_index, column_bits = self._column(groups, number, width)
                index.append(column_index.ravel())
                bits.append(column_bits.ravel())
                self._slices[number] = slice(end, end + num_rows * width)
                end += num_rows * width
        self._index = np.concatenate(index)
        self._bits = np.concatenate(bits)
        self._last_integers: dict[int, tuple[bytes, NDArray[np.int32]]] = {}
        self._float_starts = []
        self._num_float_bytes = []
        for sensor in range(len(groups[0].layout.sensors)):
            starts = np.empty(num_rows, np.intp)
            for group in groups:
                starts[group.rows] = group.starts + group.layout.sensors[sensor].floats.start
            self._float_starts.append(starts)
            self._num_float_bytes.append(groups[0].layout.sensors[sensor].floats.num_bytes)

    @staticmethod
    def _width(groups: Sequence[LayoutGroup], number: int, num_branches: int) -> int:
        """Gives the bytes per row that a column needs, 0 when no record has it."""
        if number == ACTION_MASK:
            # A mask of another length is as good as none (reference, section 5).
            masks = (g.layout.action_mask for g in groups)
            return num_branches * any(m is not None and m.num_bytes == num_branches for m in masks)
        return max(g.layout.numbers.get(number, Span(0, 0)).num_bytes for g in groups)

    def _column(
        self, groups: Sequence[LayoutGroup], number: int, width: int
    ) -> tuple[Index, Bytes]:
        """Gives index and bits, both (N, width), that fetch one field of every record."""
        index = np.zeros((self.num_rows, width), np.intp)
        bits = np.zeros((self.num_rows, width), np.uint8)
        is_varint = NUMBERS.get(number, VARINT) == VARINT
        for group in groups:
            layout = group.layout
            is_mask = number == ACTION_MASK
            span = layout.action_mask if is_mask else layout.numbers.get(number)
            if span is None or (is_mask and span.num_bytes != width):
                continue
            within = np.arange(span.num_bytes) + span.start
            rows = group.rows[:, None]
            columns = np.arange(span.num_bytes)
            index[rows, columns] = group.starts[:, None] + within
            bits[rows, columns] = PAYLOAD if is_varint else 0xFF
        return index, bits

    def read(self, data: bytes) -> Columns | None:
        """Gives the scalar columns of a list of this plan's length; None: its structure differs."""
        gathered = np.frombuffer(data, np.uint8).take(self._index)
        gathered &= self._bits
        if gathered[: len(self._structure)].tobytes() != self._structure:
            return None
        return Columns(
            self._floats(gathered, REWARD),
            self._floats(gathered, GROUP_REWARD),
            self._truths(gathered, DONE),
            self._truths(gathered, MAX_STEP_REACHED),
            self._integers(gathered, AGENT_ID),
            self._integers(gathered, GROUP_ID),
            self._masks(gathered),
        )

    def observations(self, data: bytes) -> list[NDArray[np.float32]]:
        """Gives the floats of each sensor, (N, floats), after `read` has accepted the list."""
        found = []
        for starts, num_bytes in zip(self._float_starts, self._num_float_bytes, strict=True):
            if num_bytes == 0:
                found.append(np.empty((self.num_rows, 0), np.float32))
                continue
            # Every stretch of num_bytes in the message is an item; fancy indexing copies ours.
            stretches = np.ndarray(
                (len(data) - num_bytes + 1,), f"V{num_bytes}", data, strides=(1,)
            )
            floats = stretches[starts].view(np.float32)
            found.append(floats.reshape(self.num_rows, num_bytes // 4))
        return found

    def _floats(self, gathered: Bytes, number: int) -> NDArray[np.float32] | None:
        where = self._slices.get(number)
        return None if where is None else gathered[where].copy().view(np.float32)

    def _truths(self, gathered: Bytes, number: int) -> NDArray[np.bool_] | None:
        where = self._slices.get(number)
        if where is None:
            return None
        digits = gathered[where].reshape(self.num_rows, -1)
        truths: NDArray[np.bool_] = digits.max(axis=1) != 0
        return truths

    def _masks(self, gathered: Bytes) -> NDArray[np.bool_] | None:
        where = self._slices.get(ACTION_MASK)
        return None if where is None else gathered[where].reshape(self.num_rows, -1) != 0

    def _integers(self, gathered: Bytes, number: int) -> NDArray[np.int32] | None:
        """Gives varints as int32; the very array of the last call where nothing has changed."""
        where = self._slices.get(number)
        if where is None:
            return None
        raw = gathered[where].tobytes()
        last = self._last_integers.get(number)
        if last is not None and last[0] == raw:
            return last[1]
        digits = gathered[where].reshape(self.num_rows, -1).astype(np.uint64)
        shifts = np.arange(digits.shape[1], dtype=np.uint64) * np.uint64(7)
        # Negative numbers take ten bytes and wrap around 64, then 32 bits, as in protobuf.
        integers: NDArray[np.int32] = np.add.reduce(digits << shifts, axis=1).astype(np.int32)
        integers.setflags(write=False)
        self._last_integers[number] = (raw, integers)
        return integers


def group_by_layout(
    data: bytes, starts: Sequence[int], layouts: list[RecordLayout]
) -> list[LayoutGroup]:
    """Finds the layout of every record, adding to `layouts` those that are new.

    Args:
        data: an agent list.
        starts: from `record_starts`.
        layouts: layouts of earlier lists.

    Raises:
        IrregularError: a record is not an ordinary one.
    """
    edges = np.array(starts, np.intp)
    lengths = np.diff(edges)
    buffer = np.frombuffer(data, np.uint8)
    groups = []
    for length in np.unique(lengths).tolist():
        (rows,) = np.nonzero(lengths == length)
        candidates = [layout for layout in layouts if layout.num_bytes == length]
        while len(rows):
            if not candidates:
                first = edges[rows[0]]
                candidates = [RecordLayout.of(data[first : first + length])]
                layouts.extend(candidates)
            layout = candidates.pop()
            found = buffer[edges[rows][:, None] + layout.checked] & layout.checked_bits
            fits = (found == np.frombuffer(layout.structure, np.uint8)).all(axis=1)
            if fits.any():
                groups.append(LayoutGroup(layout, rows[fits], edges[rows[fits]]))
            rows = rows[~fits]
    return groups
