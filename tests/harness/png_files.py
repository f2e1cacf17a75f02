"""PNG files made by hand, so that tests of the decoder need no other encoder."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # by channels: grey, RGB, RGBA


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: NDArray[Any]) -> bytes:
    """One PNG file of (height, width, channels) uint8 or uint16 pixels, without filters."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    return (
        SIGNATURE
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def numbered(height: int, width: int, channels: int, first: int = 0) -> NDArray[np.uint8]:
    """Pixels that tell where they belong: first + 100 * channel + 10 * row + column."""
    y, x, c = np.meshgrid(range(height), range(width), range(channels), indexing="ij")
    pixels: NDArray[np.uint8] = (first + 100 * c + 10 * y + x).astype(np.uint8)
    return pixels
