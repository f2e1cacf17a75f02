"""Agent records written in place: the simulator's half of the fast path.

An ordinary encoder builds one object per agent and step. Here the record of an agent is built once
by protobuf; each step then only overwrites the numbers, through numpy views. For that, every record
has the same length: zeros are written out where protobuf would leave them away, and ids start where
they take four bytes (`FIRST_AGENT_ID`). Any protobuf reader understands the result.

Images of bytes go as PNG, whose length varies: they are put between the pieces of such a record.

Letters: C channels, H height, W width, L sum of branch sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.batch import Float32, Observations, Uint8
from envs.bridge import images
from envs.bridge.layout import LIST_VALUE, OBSERVATIONS, head, length_delimited
from envs.bridge.proto.communicator_pb2 import (
    DEFAULT,
    GOAL_SIGNAL,
    NONE,
    PNG,
    AgentInfoProto,
    CompressionTypeProto,
    ObservationProto,
)
from envs.spec import CHANNELS_LAST, VISUAL, ObservationSpec, ObservationType

# Varints from 2**21 to 2**28 - 1 take four bytes.
FIRST_AGENT_ID = 1 << 21
LAST_AGENT_ID = (1 << 28) - 1


class ImageColumn(NamedTuple):
    """A sensor that goes as PNG."""

    sensor: ObservationSpec
    pixels: Uint8  # (rows, H, W, C)
    place: int  # where in a record without images it belongs


class AgentRecords:
    """Rows of one behaviour's agents, ready to send.

    `obs`, `reward`, `done`, `truncated` and `forbidden` are columns of what `rows` gives: write
    into them in place. All rows begin as zeros, not done, with the id FIRST_AGENT_ID. Columns of
    images are (rows, H, W, C), however their sensor's shape and properties let them lie on the
    wire.
    """

    def __init__(
        self, sensors: Sequence[ObservationSpec], num_rows: int, num_masked: int = 0
    ) -> None:
        """Builds the rows.

        Args:
            sensors: what an agent observes.
            num_rows: how many.
            num_masked: L, how many actions a mask speaks of; 0 = agents send none.
        """
        if min((size for sensor in sensors for size in sensor.shape), default=1) < 1:
            raise ValueError(f"a sensor without elements among {sensors}")
        numeric = [sensor for sensor in sensors if sensor.dtype != "uint8"]
        body, offsets, ends = _template(numeric, num_masked)
        # A record with images has another length every time, and gets its prefix in the end.
        has_images = len(numeric) < len(sensors)
        prefix = b"" if has_images else head(LIST_VALUE, len(body))
        columns = {"reward": "<f4", "done": "u1", "truncated": "u1", "agent_id": "4u1"}
        if num_masked:
            columns["forbidden"] = f"({num_masked},)u1"
        formats: list[object] = [columns[name] for name in columns]
        formats += [("<f4", sensor.shape) for sensor in numeric]
        layout = np.dtype(
            {
                "names": [*columns, *(f"obs{i}" for i in range(len(numeric)))],
                "formats": formats,
                "offsets": [len(prefix) + offset for offset in offsets],
                "itemsize": len(prefix) + len(body),
            }
        )
        self.block = np.empty((num_rows, len(prefix) + len(body)), np.uint8)
        self.block[:] = np.frombuffer(prefix + body, np.uint8)
        rows = self.block.view(layout)[:, 0]
        self.reward: Float32 = rows["reward"]
        self.done: NDArray[np.uint8] = rows["done"]
        self.truncated: NDArray[np.uint8] = rows["truncated"]
        self._agent_id: NDArray[np.uint8] = rows["agent_id"]  # (rows, 4)
        self.forbidden: NDArray[np.uint8] = (  # (rows, L), 1 where an action is not allowed
            rows["forbidden"] if num_masked else np.empty((num_rows, 0), np.uint8)
        )
        self._images: list[ImageColumn] = []
        obs: list[Observations] = []
        for sensor in sensors:
            num_before = len(obs) - len(self._images)  # sensors that are no images
            if sensor.dtype == "uint8":
                channels, height, width = channels_first(sensor)
                pixels = np.empty((num_rows, height, width, channels), np.uint8)
                self._images.append(ImageColumn(sensor, pixels, ends[num_before]))
                obs.append(pixels)
            else:
                obs.append(_as_images(sensor, rows[f"obs{num_before}"]))
        self.obs: tuple[Observations, ...] = tuple(obs)
        for column in (self.reward, self.done, self.truncated, self.forbidden, *self.obs):
            column[...] = 0

    def set_agent_id(self, row: int, agent_id: int) -> None:
        """Writes an id, FIRST_AGENT_ID to LAST_AGENT_ID, into a row."""
        if not FIRST_AGENT_ID <= agent_id <= LAST_AGENT_ID:
            raise ValueError(f"agent id {agent_id} is not a varint of four bytes")
        self._agent_id[row] = (
            agent_id & 0x7F | 0x80,
            agent_id >> 7 & 0x7F | 0x80,
            agent_id >> 14 & 0x7F | 0x80,
            agent_id >> 21,
        )

    def rows(self, num_rows: int) -> bytes:
        """Gives the first `num_rows` rows as a serialised ListAgentInfoProto."""
        if not self._images:
            return self.block[:num_rows].tobytes()
        return b"".join([self._with_images(row) for row in range(num_rows)])

    def _with_images(self, row: int) -> bytes:
        """Gives one row, its images between its other observations."""
        body = self.block[row].tobytes()
        pieces: list[bytes] = []
        position = 0
        for sensor, pixels, place in self._images:
            pieces += (body[position:place], self.compressed(sensor, pixels[row]))
            position = place
        pieces.append(body[position:])
        return length_delimited(LIST_VALUE, b"".join(pieces))

    def compressed(self, sensor: ObservationSpec, pixels: Uint8) -> bytes:
        """Gives an image (H, W, C) as a field of an agent."""
        observation = _observation(sensor, PNG)
        observation.compressed_data = images.encode(pixels)
        observation.compressed_channel_mapping.extend(images.channel_mapping(pixels.shape[2]))
        return length_delimited(OBSERVATIONS, observation.SerializeToString())


def channels_first(sensor: ObservationSpec) -> tuple[int, ...]:
    """Gives the shape (C, H, W) of an image sensor."""
    shape = tuple(sensor.shape)
    return (shape[2], *shape[:2]) if sensor.dimension_property == CHANNELS_LAST else shape


def _as_images(sensor: ObservationSpec, column: Float32) -> Float32:
    """Shows images that are (C, H, W) in their record as (H, W, C); leaves others alone."""
    return column.transpose(0, 2, 3, 1) if sensor.dimension_property == VISUAL else column


def _template(
    sensors: Sequence[ObservationSpec], num_masked: int
) -> tuple[bytes, list[int], list[int]]:
    """Gives a record without zeros, and where its numbers begin and its parts end.

    The numbers are reward, done, truncated, id, the mask if there is one, and each sensor's data;
    the parts, what comes before the sensors, and each sensor.
    """
    body = b""
    offsets = []
    # Serialised one by one, in the order of field numbers, so that each value ends its piece.
    for piece, size in (
        (AgentInfoProto(reward=1.0), 4),
        (AgentInfoProto(done=True), 1),
        (AgentInfoProto(max_step_reached=True), 1),
        (AgentInfoProto(id=FIRST_AGENT_ID), 4),
        (AgentInfoProto(action_mask=[True] * num_masked), num_masked),
    ):
        body += piece.SerializeToString()
        if size:
            offsets.append(len(body) - size)
    parts = [len(body)]
    for sensor in sensors:
        ones, twos = (_numbers(sensor, fill) for fill in (b"\x01", b"\x02"))
        data_begin = next(i for i, byte in enumerate(ones) if byte != twos[i])
        offsets.append(len(body) + data_begin)
        body += ones
        parts.append(len(body))
    if AgentInfoProto.FromString(body).SerializeToString() != body:
        raise AssertionError("protobuf writes the fields of an agent in another order")
    return body, offsets, parts


def _numbers(sensor: ObservationSpec, fill: bytes) -> bytes:
    """Gives this observation as a field of an agent, every byte of its data being `fill`."""
    observation = _observation(sensor, NONE)
    numbers = np.frombuffer(fill * 4 * math.prod(sensor.shape), "<f4")
    observation.float_data.data.extend(numbers.tolist())
    return length_delimited(OBSERVATIONS, observation.SerializeToString())


def _observation(sensor: ObservationSpec, compression: CompressionTypeProto) -> ObservationProto:
    """Gives an observation without its data."""
    return ObservationProto(
        shape=sensor.shape,
        compression_type=compression,
        dimension_properties=[int(bits) for bits in sensor.dimension_property],
        observation_type=GOAL_SIGNAL
        if sensor.observation_type == ObservationType.GOAL_SIGNAL
        else DEFAULT,
        name=sensor.name,
    )
