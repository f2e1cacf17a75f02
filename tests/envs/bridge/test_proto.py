"""The committed generated code is current, and both schemas read the same bytes."""

from __future__ import annotations

from pathlib import Path

from envs.bridge.proto import columns_pb2, communicator_pb2
from envs.bridge.proto.generate import PROTO_DIRECTORY, generate


def test_committed_code_equals_regenerated_code(tmp_path: Path) -> None:
    regenerated = generate(tmp_path)
    assert len(regenerated) == 4
    for path in regenerated:
        committed = PROTO_DIRECTORY / path.name
        assert path.read_text() == committed.read_text(), (
            f"{committed.name} is stale: run python -m envs.bridge.proto.generate"
        )


def test_columns_schema_reads_and_writes_the_bytes_of_the_ordinary_one() -> None:
    ordinary = communicator_pb2.AgentInfoProto(id=300, reward=1.5, action_mask=[True, False])
    observation = ordinary.observations.add(shape=[2], dimension_properties=[1], name="sensor")
    observation.float_data.data.extend([0.25, -3.0])

    fast = columns_pb2.AgentInfo.FromString(ordinary.SerializeToString())

    assert fast.action_mask == b"\x01\x00"
    # little-endian IEEE 754: 0.25 = 0x3e800000, -3.0 = 0xc0400000
    assert fast.observations[0].float_data.data == bytes.fromhex("0000803e000040c0")
    assert fast.SerializeToString() == ordinary.SerializeToString()
