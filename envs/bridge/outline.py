"""How many fields a long message has, counted before it is parsed.

Parsing makes an object of each sub-message, a hundred bytes or more for two bytes on the wire: a
message of the largest legal size could ask for tens of gigabytes. Short messages are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from envs.bridge.layout import LENGTH_DELIMITED, LIST_VALUE, IrregularError, fields_of
from envs.errors import BadDataError

if TYPE_CHECKING:
    Outline: TypeAlias = Mapping[int, "Outline"]

UNREADABLE = (
    "the simulator sent bytes that are no message of ML-Agents' protocol. Is something else than a "
    "simulator dialling this port, or does the simulator need another version of its package?"
)
SHORT_BYTES = 1 << 20
MOST_FIELDS = 1 << 20  # counting them takes a second; ten of each of a hundred thousand agents

# Which fields hold messages whose own fields are counted too.
RL_OUTPUT, INTRODUCTION, PLAYED = 1, 2, 1002  # of an output; the first also of 1002: number 2
ENVELOPE: Outline = {2: {RL_OUTPUT: {}, INTRODUCTION: {}, PLAYED: {2: {}}}}
AGENT_LIST: Outline = {LIST_VALUE: {}}


def require_few_fields(data: bytes, outline: Outline) -> None:
    """Raises BadDataError for a long message of more fields than may be parsed.

    Args:
        data: the message.
        outline: ENVELOPE or AGENT_LIST, what it is.
    """
    if len(data) <= SHORT_BYTES:
        return
    try:
        _count(data, 0, len(data), outline, 0)
    except IrregularError as error:
        raise BadDataError(f"{len(data)} bytes received ({error}): {UNREADABLE}") from error


def _count(data: bytes, start: int, end: int, outline: Outline, so_far: int) -> int:
    for field in fields_of(data, start, end):
        so_far += 1
        if so_far > MOST_FIELDS:
            raise BadDataError(
                f"a message of {len(data)} bytes with more than {MOST_FIELDS} fields found, at "
                f"most so many expected. Use fewer agents or sensors, or send fewer things at once."
            )
        below = outline.get(field.number)
        if below is not None and field.wire_type == LENGTH_DELIMITED:
            so_far = _count(data, field.value.start, sum(field.value), below, so_far)
    return so_far
