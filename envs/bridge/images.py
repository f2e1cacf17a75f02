"""PNG images of visual sensors to channels of bytes, by several threads, and back.

On the wire a visual sensor is one or more complete PNG files, end to end, of three channels each.
Which of these become which channels of the observation, a channel mapping may say.

Pillow lets other threads run while it decodes, so messages are decoded as they arrive, beside the
trainer's own work (Session.decode_ahead), and the images of one message by all processors at once.

Letters: C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from envs.batch import Uint8
from envs.bridge.limits import shown_numbers

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS_PER_PNG = 3
PADDING = -1  # in a channel mapping: a channel that is only there to fill up a PNG
MIN_IMAGES_PER_THREAD = 4  # below, another thread costs more than it brings
FAST_COMPRESSION = 1  # zlib's; images only travel to another process

# A PNG is its signature and chunks of length, type, data and checksum; the first is IHDR, which
# begins with width and height, the last is IEND.
CHUNK_OVERHEAD = 12
SIZE_AT = len(SIGNATURE) + 8


class ImageError(ValueError):
    """Compressed data that is not the image which was expected; says why, but not whose it is."""

    def __init__(self, why: str, index: int = 0) -> None:
        super().__init__(why)
        self.index = index  # among the images that were decoded together


class CompressedImage(NamedTuple):
    """One observation of a visual sensor as it came, and where its pixels are to go."""

    data: bytes
    mapping: Sequence[int]  # of each channel in the PNGs: its channel in `out`, or PADDING
    out: Uint8  # (C, H, W)


@lru_cache(maxsize=1)
def pool() -> ThreadPoolExecutor:
    """Gives the threads that decode; they are shared by all simulators."""
    return ThreadPoolExecutor(_num_threads(), thread_name_prefix="images")


def _num_threads() -> int:
    """Counts the cores this process may use, where the system tells; a cluster lends out few."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decode_all(images: Sequence[CompressedImage]) -> None:
    """Decodes images, in as many threads as are free; waits until all are done.

    Raises:
        ImageError: of the first image that is damaged or not as expected.
    """
    failures: dict[int, ImageError] = {}
    work = iter(list(enumerate(images)))  # threads take turns at it

    def take_turns() -> None:
        for index, image in work:
            try:
                decode(image)
            except ImageError as error:
                failures[index] = error

    num_helpers = min(_num_threads() - 1, len(images) // MIN_IMAGES_PER_THREAD - 1)
    helpers = [pool().submit(take_turns) for _ in range(num_helpers)]
    take_turns()
    for helper in helpers:
        # One that has not begun has nothing left to do; to wait for it could take forever when
        # this is one of the pool's own threads.
        if not helper.cancel():
            helper.result()
    if failures:
        index = min(failures)
        raise ImageError(str(failures[index]), index) from failures[index]


def decode(image: CompressedImage) -> None:
    """Decodes one observation into its `out`.

    Channels that share a target are averaged and rounded to a whole number of 255ths.

    Raises:
        ImageError: damaged, of another size, or with a mapping that does not fit.
    """
    num_channels, height, width = image.out.shape
    files = split(image.data)
    for file in files:
        if png_size(file) != (height, width):
            found_height, found_width = png_size(file)
            raise ImageError(
                f"a PNG of {found_height} x {found_width} pixels (height x width) found, "
                f"{height} x {width} expected"
            )
    if image.mapping and len(files) > num_channels:
        raise ImageError(
            f"{len(files)} PNGs found for {num_channels} channels; at most one for each expected"
        )
    num_found = CHANNELS_PER_PNG * len(files)
    if image.mapping and len(image.mapping) != num_found:
        raise ImageError(
            f"a channel mapping of length {len(image.mapping)} found, {num_found} expected: one "
            f"number for each of the {CHANNELS_PER_PNG} channels of each PNG"
        )
    sources = _sources(tuple(image.mapping), num_found, num_channels)
    needed = {channel // CHANNELS_PER_PNG for channels in sources for channel in channels}
    size = (width, height)
    pixels = {index: _pixels(files[index], size) for index in sorted(needed)}  # each (H, W, 3)
    for target, channels in zip(image.out, sources, strict=True):
        planes = [pixels[c // CHANNELS_PER_PNG][:, :, c % CHANNELS_PER_PNG] for c in channels]
        if len(planes) == 1:
            target[:] = planes[0]
        else:
            total = np.sum(planes, axis=0, dtype=np.uint32)
            target[:] = (total + len(planes) // 2) // len(planes)


@lru_cache(maxsize=256)
def _sources(
    mapping: tuple[int, ...], num_found: int, num_expected: int
) -> tuple[tuple[int, ...], ...]:
    """Gives for each expected channel the decoded ones that make it up."""
    if not mapping:
        if num_expected == 1:
            return (tuple(range(CHANNELS_PER_PNG)),)  # grey scale
        if num_found < num_expected:
            raise ImageError(
                f"PNGs with {num_found} channels in all found, at least {num_expected} expected"
            )
        return tuple((channel,) for channel in range(num_expected))
    targets = set(mapping) - {PADDING}
    if targets != set(range(num_expected)):
        raise ImageError(
            f"the channel mapping {shown_numbers(mapping, '[]')} found; expected are all of 0 to "
            f"{num_expected - 1}, one for each channel of the observation, and {PADDING} for "
            "channels to leave out"
        )
    sources: list[list[int]] = [[] for _ in range(num_expected)]
    for channel, target in enumerate(mapping):
        if target != PADDING:
            sources[target].append(channel)
    return tuple(map(tuple, sources))


def _pixels(file: bytes, size: tuple[int, int]) -> Uint8:
    """Decodes one PNG file, (H, W, 3), whose header says that it has this width and height."""
    try:
        with PngImageFile(BytesIO(file)) as image:
            if image.size != size:
                raise ImageError(f"a PNG with a second header found, of {image.size} pixels")
            image.load()
            if image.mode == "RGB":
                return np.asarray(image)
            if "16" in image.mode or image.mode == "I":
                raise ImageError("a PNG of 16 bits per channel found, 8 bits expected")
            return np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # whatever a decoder may think of bytes from outside
        raise ImageError(f"a damaged PNG found: {error}") from error


def split(data: bytes) -> list[bytes]:
    """Takes PNG files apart that lie end to end; at least one.

    Raises:
        ImageError: no PNG, or one that is cut off.
    """
    files: list[bytes] = []
    start = 0
    while start < len(data) or not files:
        if not data.startswith(SIGNATURE, start):
            found = data[start : start + len(SIGNATURE)].hex(" ") or "nothing"
            raise ImageError(f"{found} found where a PNG is expected to begin")
        position = start + len(SIGNATURE)
        kind = b""
        while kind != b"IEND":
            num_bytes = int.from_bytes(data[position : position + 4])
            kind = data[position + 4 : position + 8]
            if position == start + len(SIGNATURE) and kind != b"IHDR":
                raise ImageError("a PNG without a header found")
            position += CHUNK_OVERHEAD + num_bytes
            if position > len(data):
                raise ImageError(
                    f"a truncated PNG found: {len(data) - start} bytes, at least "
                    f"{position - start} expected"
                )
        files.append(data[start:position])
        start = position
    return files


def png_size(file: bytes) -> tuple[int, int]:
    """Gives height and width of a PNG file that `split` has given."""
    width, height = np.frombuffer(file, ">u4", 2, SIZE_AT).tolist()
    return height, width


# ---- the simulator's side -----------------------------------------------------------------------


def channel_mapping(num_channels: int) -> list[int]:
    """Gives the mapping that `encode`'s PNGs need, none for 1 and 3 channels."""
    if num_channels in (1, CHANNELS_PER_PNG):
        return []
    return [*range(num_channels), *[PADDING] * (-num_channels % CHANNELS_PER_PNG)]


def encode(pixels: Uint8) -> bytes:
    """Gives an image (H, W, C) as PNG files of three channels each, end to end."""
    height, width, num_channels = pixels.shape
    if num_channels == 1:
        return _png(np.repeat(pixels, CHANNELS_PER_PNG, axis=2))
    fill = np.zeros((height, width, -num_channels % CHANNELS_PER_PNG), np.uint8)
    filled: NDArray[np.uint8] = np.concatenate([pixels, fill], axis=2)
    return b"".join(
        _png(filled[:, :, first : first + CHANNELS_PER_PNG])
        for first in range(0, filled.shape[2], CHANNELS_PER_PNG)
    )


def _png(pixels: Uint8) -> bytes:
    file = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(file, "PNG", compress_level=FAST_COMPRESSION)
    return file.getvalue()
