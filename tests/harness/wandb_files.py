"""Reads the files of wandb's offline mode."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK_BYTES = 32768


def records(path: Path) -> Iterator[Any]:
    """Reads wandb's file: LevelDB's log format behind 7 bytes, a protobuf record in each entry."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole entry, or the last part of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def rows(logs: Path, id: str) -> list[dict[str, float]]:
    """Gives the rows of a tracked run's history, of all its files in the order of their start."""
    found = []
    for path in sorted(logs.glob(f"wandb/offline-run-*/run-{id}.wandb")):
        for record in records(path):
            if record.HasField("history"):
                items = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                items.pop("_runtime")
                found.append(items)
    return found
