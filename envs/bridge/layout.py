"""Where in the bytes of an agent's record each number lies.

A message of one behaviour is a list of AgentInfoProto records. Records of one kind differ only in
their numbers; tags, lengths and names (the *structure*) are the same byte for byte. A RecordLayout
is what one record looks like; plan.py reads whole lists by it.

Letters: L sum of branch sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from envs.bridge.limits import MOST_DIMENSIONS
from envs.bridge.proto import columns_pb2
from envs.errors import BadDataError

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
# Tags, lengths and names of one record; a position of each is remembered. Usual: 40 per sensor.
MAX_STRUCTURE_BYTES = 1 << 14
MAX_FIELDS = 1 << 13  # of one record
MAX_RECORDS = 1 << 18  # of one list; twice as many as agents may live, and some
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


def head(number: int, num_bytes: int) -> bytes:
    """Gives tag and length of a length-delimited field."""
    length = bytearray((number << 3 | LENGTH_DELIMITED,))
    while num_bytes > PAYLOAD:
        length.append(num_bytes & PAYLOAD | CONTINUES)
        num_bytes >>= 7
    length.append(num_bytes)
    return bytes(length)


def length_delimited(number: int, payload: bytes) -> bytes:
    """Gives a field that holds bytes, text or another message."""
    return head(number, len(payload)) + payload


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
        for number, field in enumerate(fields_of(record, body, len(record))):
            if number == MAX_FIELDS:
                raise IrregularError("a record of too many fields")
            stretch = slice(field.value.start, sum(field.value))
            if field.number == OBSERVATIONS:
                sensors.append(_sensor(record, field))
                floats = sensors[-1].floats
                bits[floats.start : sum(floats)] = 0
            elif field.number == ACTION_MASK:
                if mask is not None or field.wire_type != LENGTH_DELIMITED:
                    raise IrregularError("an action mask in pieces")
                if field.value.num_bytes > MAX_STRUCTURE_BYTES:
                    raise IrregularError("too much that is no number")
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
        if np.count_nonzero(bits) > MAX_STRUCTURE_BYTES:
            raise IrregularError("too much that is no number")
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
    floats = None
    structure_bytes = num_bytes
    for part in fields_of(record, start, end):
        if part.number not in (COMPRESSED_DATA, FLOAT_DATA):
            continue
        if floats is not None or part.wire_type != LENGTH_DELIMITED:
            raise IrregularError("observation data in pieces")
        floats = Span(part.value.start, 0)
        structure_bytes -= part.value.num_bytes
        if part.number == FLOAT_DATA:
            inner = list(fields_of(record, part.value.start, sum(part.value)))
            if len(inner) > 1 or any(f[:2] != (FLOATS, LENGTH_DELIMITED) for f in inner):
                raise IrregularError("floats in pieces, or not packed")
            floats = inner[0].value if inner else floats
    if structure_bytes > MAX_STRUCTURE_BYTES:
        raise IrregularError("too much that is no number")
    try:
        observation = columns_pb2.Observation.FromString(record[start:end])
    except DecodeError as error:
        raise IrregularError("an unreadable observation") from error
    is_compressed = observation.HasField("compressed_data")
    if len(observation.shape) > MOST_DIMENSIONS:
        raise IrregularError("an observation of too many dimensions")
    return Sensor(tuple(observation.shape), is_compressed, floats or Span(start, 0))


def record_starts(data: bytes) -> list[int]:
    """Gives where each record of an agent list begins, and the list's length at the end.

    Raises:
        IrregularError: there is something else in it.
        BadDataError: there are too many.
    """
    starts = [0]
    position, end = 0, len(data)
    try:
        while position < end:
            if len(starts) > MAX_RECORDS:
                raise BadDataError(
                    f"a list of more than {MAX_RECORDS} agents found, at most so many expected in "
                    "a message. Use fewer training areas."
                )
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
