"""Agent records of equal length, written in place: the simulator's half of the fast path.

An ordinary encoder builds one object per agent and step. Here the message of a behaviour is built
once by protobuf; each step then only overwrites the numbers, through numpy views. For that, every
record has the same length: zeros are written out where protobuf would leave them away, and ids
start where they take four bytes (`FIRST_AGENT_ID`). Any protobuf reader understands the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.batch import Float32
from envs.bridge.proto.communicator_pb2 import (
    NONE,
    AgentInfoProto,
    ObservationProto,
    UnityRLOutputProto,
)

# Varints from 2**21 to 2**28 - 1 take four bytes.
FIRST_AGENT_ID = 1 << 21
LAST_AGENT_ID = (1 << 28) - 1

NO_DIMENSION_PROPERTY = 1  # DimensionProperty.NONE: a plain vector, nothing to exploit


class VectorSensor(NamedTuple):
    """Name and length of one vector observation."""

    name: str
    size: int


class AgentRecords:
    """Rows of one behaviour's agents, ready to send.

    `obs`, `reward`, `done` and `truncated` are views of the bytes that `rows` gives: write into
    them in place. All rows begin as zeros, not done, with the id FIRST_AGENT_ID.
    """

    def __init__(self, sensors: Sequence[VectorSensor], num_rows: int) -> None:
        if min((sensor.size for sensor in sensors), default=1) < 1:
            raise ValueError(f"a sensor without elements among {sensors}")
        record, offsets = _template(sensors)
        columns = {"reward": "<f4", "done": "u1", "truncated": "u1", "agent_id": "4u1"}
        formats: list[object] = [columns[name] for name in columns]
        formats += [("<f4", (sensor.size,)) for sensor in sensors]
        names = [*columns, *(f"obs{i}" for i in range(len(sensors)))]
        layout = np.dtype(
            {"names": names, "formats": formats, "offsets": offsets, "itemsize": len(record)}
        )
        self.block = np.empty((num_rows, len(record)), np.uint8)
        self.block[:] = np.frombuffer(record, np.uint8)
        rows = self.block.view(layout)[:, 0]
        self.obs: tuple[Float32, ...] = tuple(rows[f"obs{i}"] for i in range(len(sensors)))
        self.reward: Float32 = rows["reward"]
        self.done: NDArray[np.uint8] = rows["done"]
        self.truncated: NDArray[np.uint8] = rows["truncated"]
        self._agent_id: NDArray[np.uint8] = rows["agent_id"]  # (rows, 4)
        self.done[:] = 0
        self.truncated[:] = 0
        self.reward[:] = 0.0
        for column in self.obs:
            column[...] = 0.0

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
        return self.block[:num_rows].tobytes()


def _template(sensors: Sequence[VectorSensor]) -> tuple[bytes, list[int]]:
    """Gives a record without zeros, and where in it its numbers begin.

    These are reward, done, truncated, id, and each sensor's data.
    """
    body = b""
    ends = []
    # Serialised one by one, in the order of field numbers, so that each value ends its piece.
    for piece in (
        AgentInfoProto(reward=1.0),
        AgentInfoProto(done=True),
        AgentInfoProto(max_step_reached=True),
        AgentInfoProto(id=FIRST_AGENT_ID),
    ):
        body += piece.SerializeToString()
        ends.append(len(body))
    offsets = [end - size for end, size in zip(ends, (4, 1, 1, 4), strict=True)]
    for sensor in sensors:
        ones, twos = (_observation(sensor, fill) for fill in (b"\x01", b"\x02"))
        data_begin = next(i for i, byte in enumerate(ones) if byte != twos[i])
        offsets.append(len(body) + data_begin)
        body += ones
    agent = AgentInfoProto.FromString(body)
    record = UnityRLOutputProto.ListAgentInfoProto(value=[agent]).SerializeToString()
    if not record.endswith(body):
        raise AssertionError("protobuf writes the fields of an agent in another order")
    return record, [len(record) - len(body) + offset for offset in offsets]


def _observation(sensor: VectorSensor, fill: bytes) -> bytes:
    """Gives an agent that has only this observation, every byte of its data being `fill`."""
    observation = ObservationProto(
        shape=[sensor.size],
        compression_type=NONE,
        dimension_properties=[NO_DIMENSION_PROPERTY],
        name=sensor.name,
    )
    observation.float_data.data.extend(np.frombuffer(fill * 4 * sensor.size, "<f4").tolist())
    return AgentInfoProto(observations=[observation]).SerializeToString()
