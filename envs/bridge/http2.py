"""Words of HTTP/2 (RFC 9113) and of gRPC over it that both ends of a connection need."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES = 9
MESSAGE_HEADER_BYTES = 5  # a byte for compression, four for the length
LARGEST_WINDOW = 2**31 - 1
LARGEST_FRAME = 2**24 - 1
INITIAL_WINDOW = 65_535
INITIAL_FRAME = 16_384
RECEIVE_BYTES = 1 << 18


class Frame(IntEnum):
    """Types of frames (section 6); others are skipped."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Flags of frames."""

    END_STREAM = 0x1
    ACK = 0x1  # of SETTINGS and PING
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    """Settings of a peer that matter here (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Gives a frame with its header."""
    # Three bytes of length are the high and low part of 24 bits.
    size = len(payload)
    return struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings_frame(settings: dict[Setting, int]) -> bytes:
    """Gives the frame that tells the peer our settings."""
    payload = b"".join(struct.pack(">HI", key, value) for key, value in settings.items())
    return frame(Frame.SETTINGS, 0, 0, payload)


def window_update(increment: int, stream: int = 0) -> bytes:
    """Lets the peer send so many more bytes; on stream 0, on the whole connection."""
    return frame(Frame.WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def header_text(text: str) -> bytes:
    """Gives a string in HPACK (RFC 7541, section 5.2), plainly.

    Raises:
        ValueError: it has 127 characters or more, whose length would need another form.
    """
    if len(text) >= 127:
        raise ValueError(f"{text!r} is too long for a header here")
    return bytes([len(text)]) + text.encode("ascii")


def long_text(words: bytes) -> bytes:
    """Gives a string of any length in HPACK, plainly (RFC 7541, sections 5.1 and 5.2)."""
    if len(words) < 127:
        return bytes([len(words)]) + words
    length, rest = bytearray([127]), len(words) - 127
    while rest >= 128:
        length.append(rest & 127 | 128)
        rest >>= 7
    length.append(rest)
    return bytes(length) + words


def without_padding(payload: bytes, flags: int) -> bytes:
    """Gives the payload of a DATA or HEADERS frame without what only hides its length.

    Raises:
        IndexError: it has less than the padding that it speaks of.
    """
    if not flags & Flag.PADDED:
        return payload
    end = len(payload) - payload[0]
    if end < 1:
        raise IndexError("a frame is shorter than its padding")
    return payload[1:end]
