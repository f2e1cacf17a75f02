"""Small inputs that ask for a lot; and, as a program, what each costs.

    python tests/fuzz/bombs.py      # JSON: name -> [outcome, bytes of the input, bytes of memory]

It runs in a process of its own, whose memory tells what protobuf, Pillow and libyaml take as well.
"""

from __future__ import annotations

import json
import logging
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import fuzz_targets
from fuzz_mutations import joined, varint
from fuzz_targets import TARGETS, Peer, conversations

from envs.bridge import side_channels
from envs.bridge.images import SIGNATURE
from envs.bridge.layout import length_delimited
from envs.bridge.proto.communicator_pb2 import (
    PNG,
    AgentInfoProto,
    BrainParametersProto,
    ObservationProto,
    UnityMessageProto,
    UnityRLOutputProto,
)

CPU_S = 60.0
SIZE = 32  # of images; what the target `image` can expect at most
BEHAVIOR = "Bomb?team=0"
AgentList = UnityRLOutputProto.ListAgentInfoProto


def ihdr(width: int, height: int, bits: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)


def zeros(num_bytes: int) -> bytes:
    """Deflates zeros, a thousand to one."""
    return zlib.compress(bytes(num_bytes), 9)


def png(header: bytes, data: bytes, *before: tuple[bytes, bytes]) -> bytes:
    chunks = [(b"", b""), (b"IHDR", header), *before, (b"IDAT", data), (b"IEND", b"")]
    return joined(chunks)


def as_image(file: bytes, mapping: bytes = b"") -> bytes:
    """An input of the target `image` that expects (3, SIZE, SIZE)."""
    return bytes([2, SIZE - 1, SIZE - 1, len(mapping)]) + mapping + file


ROWS = zlib.compress(bytes(SIZE * (3 * SIZE + 1)))
GOOD = ihdr(SIZE, SIZE)


def first_message(
    *agents: AgentInfoProto, raw: bytes = b"", behavior_id: str = BEHAVIOR, **actions: object
) -> bytes:
    """An input of the target `first` with a behaviour of its own; `raw` comes behind the agents."""
    message = UnityMessageProto()
    message.header.status = 200
    brain = BrainParametersProto(brain_name=behavior_id, is_training=True)
    words = {"num_continuous_actions": 1, **actions}
    for name, value in words.items():
        if isinstance(value, list):
            getattr(brain.action_spec, name).extend(value)
            brain.action_spec.num_discrete_actions = len(value)
        else:
            setattr(brain.action_spec, name, value)
    message.unity_output.rl_initialization_output.brain_parameters.append(brain)
    listed = AgentList(value=agents).SerializeToString() + raw
    entry = length_delimited(1, behavior_id.encode()) + length_delimited(2, listed)
    rl_output = length_delimited(1, length_delimited(2, entry))
    return b"\0" + message.SerializeToString() + length_delimited(2, rl_output)


def agent(number: int = 0, shape: tuple[int, ...] = (1,), **fields: object) -> AgentInfoProto:
    info = AgentInfoProto(id=number + 1, **fields)  # type: ignore[arg-type]  # protobuf's own words
    observation = info.observations.add(shape=shape, name="n")
    observation.float_data.data.append(1.0)
    return info


def camera(shape: tuple[int, ...], file: bytes) -> AgentInfoProto:
    observation = ObservationProto(
        shape=shape, dimension_properties=[1, 2, 2], compression_type=PNG, compressed_data=file
    )
    return AgentInfoProto(id=1, observations=[observation])


def acted(number: int, raw: bytes, *, as_assigned: int = 4) -> bytes:
    """An input of the target `played`: fields of an output behind recorded env_steps.

    Args:
        number: of the conversation; 0 has cameras, 1 numbers and branches.
        raw: the fields.
        as_assigned: how many env_steps were assigned; 4 come.
    """
    conversation = conversations("played")[number]
    data = conversation.later[-1] + length_delimited(2, raw)
    return bytes([number, as_assigned]) + data


def in_long(number: int, payload: bytes) -> bytes:
    """A field whose number takes more than a byte."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def entries(number: int, num: int) -> bytes:
    """A map of an output: `num` behaviours of which nothing is said."""
    return b"".join(in_long(number, length_delimited(1, f"B{i}".encode())) for i in range(num))


def records(infos: list[AgentInfoProto]) -> bytes:
    return AgentList(value=infos).SerializeToString()


def unknown_field(num_bytes: int) -> bytes:
    """A record with one sensor and a field that nobody knows."""
    body = agent().SerializeToString() + varint(99 << 3 | 2) + varint(num_bytes) + bytes(num_bytes)
    return length_delimited(1, body)


def statistics(num: int) -> bytes:
    writer = side_channels.Writer
    payloads = [writer().string(f"k{i}").float32(1.0).int32(0).payload() for i in range(num)]
    return b"".join(side_channels.frame(side_channels.STATS, payload) for payload in payloads)


def laughs(num_levels: int) -> bytes:
    lines = [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}' if level else 'x'] * 10)}]"
        for level in range(num_levels)
    ]
    return "\n".join(lines).encode()


def merges(num_keys: int, num_merges: int) -> bytes:
    keys = ", ".join(f"k{i}: 1" for i in range(num_keys))
    return f"a: &a {{{keys}}}\nb: {{<<: [{', '.join(['*a'] * num_merges)}]}}".encode()


LARGE = 2**31 - 1
Bomb = tuple[str, Callable[[], bytes], str]  # target, input, outcome
BOMBS: dict[str, Bomb] = {
    "png claims 60000 x 60000": (
        "image", lambda: as_image(png(ihdr(60_000, 60_000), zeros(10_000_000))), "ImageError"),
    "second header of 13000 x 13000": (
        "image",
        lambda: as_image(png(GOOD, zeros(100_000_000), (b"IHDR", ihdr(13_000, 13_000)))),
        "ImageError"),
    "png inflates to 100 megabytes": (
        "image", lambda: as_image(png(GOOD, zeros(100_000_000))), "works"),
    "text chunk inflates to 100 megabytes": (
        "image",
        lambda: as_image(png(GOOD, ROWS, (b"zTXt", b"k\0\0" + zeros(100_000_000)))), "ImageError"),
    "profile inflates to 100 megabytes": (
        "image",
        lambda: as_image(png(GOOD, ROWS, (b"iCCP", b"k\0\0" + zeros(100_000_000)))), "ImageError"),
    "png without half of its pixels": (
        "image", lambda: as_image(png(GOOD, ROWS[: len(ROWS) // 2])), "ImageError"),
    "png of 16 bits": (
        "image",
        lambda: as_image(png(ihdr(SIZE, SIZE, 16, 0), zlib.compress(bytes(SIZE * (2 * SIZE + 1))))),
        "ImageError"),
    "png with a palette": (
        "image",
        lambda: as_image(png(ihdr(SIZE, SIZE, 8, 3), zlib.compress(bytes(SIZE * (SIZE + 1))),
                             (b"PLTE", b"\1\2\3"))), "works"),
    "interlaced png": (
        "image", lambda: as_image(png(ihdr(SIZE, SIZE, interlaced=1), zeros(20_000))), "works"),
    "animated png": (
        "image",
        lambda: as_image(png(GOOD, ROWS, (b"acTL", struct.pack(">II", 2**31, 0)))), "works"),
    "gif behind a png's signature": (
        "image", lambda: as_image(SIGNATURE + b"GIF89a" + bytes(100)), "ImageError"),
    "a jpeg": ("image", lambda: as_image(b"\xff\xd8\xff\xe0" + bytes(100)), "ImageError"),
    "a thousand pngs for one channel": (
        "image", lambda: as_image(png(GOOD, ROWS) * 1000, bytes(31)), "ImageError"),
    "camera of 60000 x 60000": (
        "first",
        lambda: first_message(camera((3, 60_000, 60_000), png(ihdr(60_000, 60_000), zeros(10**7)))),
        "UnsupportedSpaceError"),
    "camera of 4000 x 4000 and 1000 channels": (
        "first",
        lambda: first_message(camera((1000, 4000, 4000), png(ihdr(4000, 4000), zeros(10**7)))),
        "BadDataError"),
    "camera of two thousand million channels": (
        "first", lambda: first_message(camera((LARGE, 1, 1), png(ihdr(1, 1), zeros(4)))),
        "UnsupportedSpaceError"),
    "vector of two thousand million numbers": (
        "first", lambda: first_message(agent(shape=(LARGE,))), "UnsupportedSpaceError"),
    "two thousand million actions": (
        "first", lambda: first_message(agent(), num_continuous_actions=LARGE),
        "UnsupportedSpaceError"),
    "fewer than no actions": (
        "first", lambda: first_message(agent(), num_continuous_actions=-1),
        "UnsupportedSpaceError"),
    "branch of two thousand million actions": (
        "first", lambda: first_message(agent(), discrete_branch_sizes=[LARGE]),
        "UnsupportedSpaceError"),
    "masks for agents that send none": (
        "first",
        lambda: first_message(*[agent(i) for i in range(20_000)], discrete_branch_sizes=[100_000]),
        "BadDataError"),
    "one agent with a mask among many": (
        "first",
        lambda: first_message(
            *[agent(i, action_mask=[True] * (100_000 if i == 7 else 0)) for i in range(5_000)],
            discrete_branch_sizes=[100_000]), "BadDataError"),
    "half a million empty agents": (
        "first", lambda: first_message(agent(), raw=b"\x0a\0" * 500_000), "BadDataError"),
    "a million empty observations": (
        "first",
        lambda: first_message(agent(), raw=length_delimited(1, b"\x6a\0" * 1_100_000)),
        "BadDataError"),
    "one long agent among short ones": (
        "first",
        lambda: first_message(
            raw=records([agent(i) for i in range(30_000)]) + unknown_field(15_000)),
        "BadDataError"),
    "agents that all look different": (
        "first",
        lambda: first_message(raw=b"".join(unknown_field(10_000 + i) for i in range(100))),
        "BadDataError"),
    "a million assigned env_steps": (
        "played", lambda: acted(0, in_long(1002, b"") * 1_100_000), "BadDataError"),
    "a million env_steps with choices": (
        "played", lambda: acted(1, in_long(1002, length_delimited(1, b"")) * 1_100_000),
        "BadDataError"),
    "agents of a hundred thousand behaviours": (
        "played", lambda: acted(1, length_delimited(1, entries(2, 100_000))), "BadDataError"),
    "agents of a hundred thousand behaviours, not assigned": (
        "first", lambda: first_message(agent()) + length_delimited(
            2, length_delimited(1, entries(2, 100_000))), "BadDataError"),
    "choices of a hundred thousand behaviours": (
        "played", lambda: acted(1, entries(1003, 100_000)), "BadDataError"),
    "choices of ten megabytes": (
        "played", lambda: acted(1, in_long(1003, length_delimited(1, b"HybridEnv?team=0")
            + length_delimited(2, length_delimited(1, bytes(10_000_000))))), "BadDataError"),
    "half a million empty agents in an assigned env_step": (
        "played", lambda: acted(1, length_delimited(1, length_delimited(2, length_delimited(
            1, b"HybridEnv?team=0") + length_delimited(2, b"\x0a\0" * 500_000)))), "BadDataError"),
    "forty thousand statistics": (
        "side_channel", lambda: statistics(40_000), "BadDataError"),
    "a billion laughs": ("yaml", lambda: laughs(12), "ConfigError"),
    "a billion keys by <<": ("yaml", lambda: merges(20_000, 50_000), "ConfigError"),
    "nested ten thousand deep": ("yaml", lambda: b"a: " + b"[" * 10_000, "ConfigError"),
    "number of many parts": ("yaml", lambda: b"a: " + b"1:" * 100_000 + b"1", "ConfigError"),
    "number of many digits": ("yaml", lambda: b"a: 0x" + b"f" * 100_000, "ConfigError"),
    "ten thousand unknown keys": (
        "yaml", lambda: "\n".join(f"k{i}: 1" for i in range(10_000)).encode(), "ConfigError"),
}  # fmt: skip


def peak_bytes() -> int:
    """Gives the most memory that this process has had since the last `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> int:
    """Begins to measure anew; gives the memory that is in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def main() -> None:
    """Runs those that are named, or all, and prints what they cost."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    peer = Peer()  # imports, and first uses of numpy, protobuf and Pillow
    peer.hear(conversations()[0].greeting)
    for name in ("image", "yaml", "first"):
        fuzz_targets.TARGETS[name].check(fuzz_targets.seeds(name)[0], CPU_S)
    costs = {}
    for name in sys.argv[1:] or BOMBS:
        target, make, _ = BOMBS[name]
        data = make()
        before = forget_peak()
        try:
            outcome = TARGETS[target].check(data, CPU_S)
        except Exception as error:
            outcome = f"DEFECT: {type(error).__name__}: {error}"[:300]
        costs[name] = [outcome, len(data), peak_bytes() - before]
    json.dump(costs, sys.stdout)


if __name__ == "__main__":
    main()
