from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from png_files import SIGNATURE, chunk, numbered, png

from envs.bridge import images
from envs.bridge.images import CompressedImage, ImageError, decode_all, encode

Pixels = NDArray[np.uint8]


def decoded(data: bytes, shape: tuple[int, int, int], mapping: Sequence[int] = ()) -> Pixels:
    out = np.full(shape, 77, np.uint8)
    decode_all([CompressedImage(data, mapping, out)])
    return out


def test_one_png_becomes_three_planes() -> None:
    pixels = numbered(3, 4, 3)
    found = decoded(png(pixels), (3, 3, 4))
    # channel 2, row 1, column 3: 200 + 10 + 3
    assert found[2, 1, 3] == 213
    assert found[0, 2, 0] == 20
    np.testing.assert_array_equal(found, np.stack([pixels[:, :, c] for c in range(3)]))


def test_seven_channels_come_in_three_pngs_of_which_two_channels_are_cut() -> None:
    files = [numbered(2, 2, 3, first) for first in (0, 1, 2)]
    found = decoded(b"".join(png(file) for file in files), (7, 2, 2))
    # the first pixel of channel c of file f is f + 100 * c
    assert found[:, 0, 0].tolist() == [0, 100, 200, 1, 101, 201, 2]
    assert found[:, 1, 1].tolist() == [11, 111, 211, 12, 112, 212, 13]


def test_one_channel_is_the_mean_of_the_first_png_to_the_nearest_whole() -> None:
    first = np.array([[[0, 0, 1], [0, 1, 1], [10, 20, 36], [255, 255, 254]]], np.uint8)
    other = np.full((1, 4, 3), 200, np.uint8)
    found = decoded(png(first) + png(other), (1, 1, 4))
    assert found.tolist() == [[[0, 1, 22, 255]]]  # 1/3, 2/3, 22, 254.67


def test_mapping_reorders_averages_and_leaves_padding_out() -> None:
    files = png(np.array([[[10, 20, 40]]], np.uint8)) + png(np.array([[[100, 3, 7]]], np.uint8))
    assert decoded(files, (2, 1, 1), [1, 1, -1, 0, -1, -1]).tolist() == [[[100]], [[15]]]
    assert decoded(files, (2, 1, 1), [0, 0, 0, 1, 1, 1]).tolist() == [[[23]], [[37]]]  # 70/3, 110/3
    assert decoded(files, (4, 1, 1), [3, 2, 1, 0, -1, -1])[:, 0, 0].tolist() == [100, 40, 20, 10]
    # 10 and 3 and 7 make 20 / 3; 20 and 100 make 60
    assert decoded(files, (2, 1, 1), [0, 1, -1, 1, 0, 0])[:, 0, 0].tolist() == [7, 60]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ([0, 1], "mapping of length 2 found, 3 expected"),
        ([0, 1, 2, 3, 4, 5], "mapping of length 6 found, 3 expected"),
        ([0, 2, 2], r"\[0, 2, 2\] found; expected are all of 0 to 2"),
        ([0, 1, -1], r"\[0, 1, -1\] found; expected are all of 0 to 2"),
        ([0, 1, 3], "expected are all of 0 to 2"),
        ([0, 1, -2], "expected are all of 0 to 2"),
    ],
)
def test_mapping_that_does_not_fit_is_refused(mapping: list[int], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decoded(png(numbered(2, 2, 3)), (3, 2, 2), mapping)


def test_too_few_channels_are_refused() -> None:
    with pytest.raises(ImageError, match="3 channels in all found, at least 4"):
        decoded(png(numbered(2, 2, 3)), (4, 2, 2))


def test_other_size_is_refused_before_anything_is_unpacked() -> None:
    bomb = SIGNATURE + chunk(b"IHDR", bytes.fromhex("7fffffff7fffffff0802000000"))
    bomb += chunk(b"IDAT", b"not zlib") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="PNG of 2147483647 x 2147483647 pixels"):
        decoded(bomb, (3, 2, 2))
    with pytest.raises(ImageError, match=r"PNG of 2 x 5 pixels .* found, 5 x 2 expected"):
        decoded(png(numbered(2, 5, 3)), (3, 5, 2))
    with pytest.raises(ImageError, match=r"PNG of 3 x 2 pixels .* found, 2 x 2 expected"):
        decoded(png(numbered(2, 2, 3)) + png(numbered(3, 2, 3)), (6, 2, 2))


@pytest.mark.parametrize("kept", [0, 5, 8, 20, 40, -1, -13])
def test_truncated_png_is_refused(kept: int) -> None:
    with pytest.raises(ImageError, match=r"truncated|expected to begin|without a header"):
        decoded(png(numbered(2, 2, 3))[:kept], (3, 2, 2))


def test_bytes_behind_the_last_png_are_refused() -> None:
    with pytest.raises(ImageError, match="00 01 02 found where a PNG is expected"):
        decoded(png(numbered(2, 2, 3)) + b"\0\1\2", (3, 2, 2))


def test_damaged_pixels_are_refused() -> None:
    file = png(numbered(4, 4, 3))
    position = file.index(b"IDAT")
    for damage in (b"\0\0\0\0\0\0", b"\xff" * 12):
        broken = file[: position + 4] + damage + file[position + 4 + len(damage) :]
        with pytest.raises(ImageError, match="a damaged PNG found"):
            decoded(broken, (3, 4, 4))


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.data())
def test_any_damage_is_harmless_or_an_image_error(data: st.DataObject) -> None:
    file = bytearray(png(numbered(5, 4, 3)) + png(numbered(5, 4, 3)))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded(bytes(file), (5, 5, 4))
    except ImageError:
        return


def test_grey_and_transparent_files_count_as_three_channels() -> None:
    grey = numbered(2, 3, 1)
    np.testing.assert_array_equal(decoded(png(grey), (1, 2, 3))[0], grey[:, :, 0])
    np.testing.assert_array_equal(decoded(png(grey), (3, 2, 3))[1], grey[:, :, 0])
    pixels = numbered(2, 3, 4)
    np.testing.assert_array_equal(decoded(png(pixels), (3, 2, 3))[2], pixels[:, :, 2])


def test_sixteen_bits_are_refused() -> None:
    with pytest.raises(ImageError, match="16 bits per channel"):
        decoded(png(np.full((2, 2, 1), 40_000, np.uint16)), (1, 2, 2))


def test_filtered_files_of_another_encoder_are_read() -> None:
    y, x = np.mgrid[:20, :30]
    pixels = np.stack([y * 7 + x, x * 3, y * x % 251], axis=2).astype(np.uint8)
    pixels[5:9, 5:9] = 255
    assert Image.fromarray(pixels).size == (30, 20)
    data = encode(pixels)  # Pillow chooses another filter for every row
    np.testing.assert_array_equal(decoded(data, (3, 20, 30)), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("channels", range(1, 9))
def test_what_a_simulator_encodes_is_what_is_decoded(channels: int) -> None:
    pixels = np.random.default_rng(channels).integers(0, 256, (6, 5, channels), np.uint8)
    mapping = images.channel_mapping(channels)
    found = decoded(encode(pixels), (channels, 6, 5), mapping)
    np.testing.assert_array_equal(found, pixels.transpose(2, 0, 1))
    assert (mapping == []) == (channels in (1, 3))
    assert len(mapping) % 3 == 0


def test_many_images_go_where_they_belong_and_the_first_bad_one_is_named() -> None:
    outs = np.zeros((60, 3, 2, 2), np.uint8)
    files = [png(numbered(2, 2, 3, first)) for first in range(60)]
    decode_all([CompressedImage(f, (), out) for f, out in zip(files, outs, strict=True)])
    assert outs[:, 0, 0, 0].tolist() == list(range(60))
    assert outs[:, 2, 1, 1].tolist() == [(211 + first) % 256 for first in range(60)]
    files[17] = files[41] = b"?"
    with pytest.raises(ImageError) as caught:
        decode_all([CompressedImage(f, (), out) for f, out in zip(files, outs, strict=True)])
    assert caught.value.index == 17


def test_threads_of_the_pool_may_decode_without_waiting_for_each_other() -> None:
    file = png(numbered(2, 2, 3))
    start = threading.Barrier(images.pool()._max_workers)
    outs = np.zeros((start.parties + 6, 40, 3, 2, 2), np.uint8)

    def work(row: int) -> None:
        if row < start.parties:
            start.wait(timeout=60)  # all of the pool's threads are taken when they ask for helpers
        decode_all([CompressedImage(file, (), out) for out in outs[row]])

    for future in [images.pool().submit(work, row) for row in range(len(outs))]:
        future.result(timeout=60)
    assert (outs == outs[0, 0]).all()
    assert outs[0, 0, 1, 1, 1] == 111


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell")
def test_threads_are_as_many_as_cores_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)  # of the machine, not of our share of it
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9})
    assert images.pool.__wrapped__()._max_workers == 3
