"""Spoils real inputs: byte by byte, and by what they are made of.

All choices come from a `random.Random`, so that hypothesis and atheris can both make them.
"""

from __future__ import annotations

import copy
import random
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fuzz_targets import seeds
from google.protobuf.message import DecodeError

from envs.bridge.http2 import PREFACE, frame
from envs.bridge.images import SIGNATURE
from envs.bridge.layout import VARINT, IrregularError, fields_of
from envs.bridge.proto import columns_pb2, communicator_pb2

INTEGERS = (0, 1, 2, 3, 5, 7, 127, 128, 255, 256, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
HUGE = (2**35, 2**63, 2**64 - 1)
FLOATS = (0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 3e38, 1e-45)
TEXTS = (
    b"", b"?team=", b"A?team=x", b"//[", b"../../x", b"\xff\xfe", b"\0", b"x" * 300, b"1.5a1",
    b"1.99", b"a\nb", "\u0663".encode(), b"B?team=99999999999999999999", b"/etc/passwd",
)  # fmt: skip
FOREIGN = ("Other?team=0", "HybridEnv?team=1", "../../x", "\u0663", "x" * 300, "")
COLUMNS = ("continuous", "discrete", "log_probs")
INDICES = (-1, 0, 1, 2, 3, 5, 2**31 - 1, -(2**31))


def spoil_bytes(data: bytes, choose: random.Random) -> bytes:
    """Changes, drops, doubles or inserts some bytes."""
    spoilt = bytearray(data)
    start = choose.randrange(len(spoilt) + 1)
    size = choose.choice((1, 1, 2, 4, 8, 40))
    match choose.randrange(7):
        case 0 if spoilt:
            spoilt[start % len(spoilt)] ^= 1 << choose.randrange(8)
        case 1 if spoilt:
            spoilt[start % len(spoilt)] = choose.randrange(256)
        case 2:
            del spoilt[start : start + size]
        case 3:
            spoilt[start:start] = spoilt[start : start + size]
        case 4:
            spoilt[start:start] = bytes(choose.randrange(256) for _ in range(size))
        case 5:
            order = choose.choice("<>")
            number = choose.choice((*INTEGERS[:-2], 2**31 - 1))
            spoilt[start : start + 4] = struct.pack(f"{order}I", number)
        case _:
            del spoilt[start:]
    return bytes(spoilt)


# ---- protobuf -----------------------------------------------------------------------------------


@dataclass
class Node:
    """A field of a message; `value` is a list of fields where it is a message itself."""

    number: int
    wire_type: int
    value: bytes | list[Node]


def varint(value: int) -> bytes:
    """Gives a varint of up to 64 bits."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def parsed(data: bytes, descriptor: object) -> list[Node]:
    """Takes a message apart, as deep as the schema says; IrregularError when it is none."""
    fields = getattr(descriptor, "fields_by_number", {})
    nodes = []
    for number, wire_type, (start, size) in fields_of(data, 0, len(data)):
        value: bytes | list[Node] = data[start : start + size]
        below = fields[number].message_type if number in fields else None
        if wire_type == 2 and below is not None:
            assert isinstance(value, bytes)
            value = parsed(value, below)
        nodes.append(Node(number, wire_type, value))
    return nodes


def written(nodes: Sequence[Node]) -> bytes:
    """Puts a message together again."""
    pieces = []
    for node in nodes:
        value = node.value if isinstance(node.value, bytes) else written(node.value)
        size = varint(len(value)) if node.wire_type == 2 else b""
        pieces += [varint(node.number << 3 | node.wire_type), size, value]
    return b"".join(pieces)


def all_lists(nodes: list[Node]) -> list[list[Node]]:
    """Gives a message and every message in it."""
    found = [nodes]
    for node in nodes:
        if isinstance(node.value, list):
            found += all_lists(node.value)
    return found


def spoil_message(data: bytes, choose: random.Random, descriptor: object) -> bytes:
    """Changes fields: other values, missing, doubled, moved, or of another message."""
    try:
        root = parsed(data, descriptor)
    except IrregularError:
        return spoil_bytes(data, choose)
    messages = [nodes for nodes in all_lists(root) if nodes]
    if not messages:
        return spoil_bytes(data, choose)
    nodes = choose.choice(messages)
    index = choose.randrange(len(nodes))
    node = nodes[index]
    match choose.randrange(8):
        case 0:
            del nodes[index]
        case 1:
            nodes.insert(choose.randrange(len(nodes) + 1), node)
        case 2:
            nodes[index:index] = [node] * choose.choice((2, 40, 300))
        case 3:
            choose.shuffle(nodes)
        case 4:
            donor = choose.choice(choose.choice(messages))
            number = choose.choice((node.number, donor.number))
            nodes[index] = Node(number, donor.wire_type, copy.deepcopy(donor.value))
        case 5:
            node.number = choose.choice((1, 2, 3, 4, 7, 8, 9, 10, 11, 13, 14, 15, 99, 1002, 1003))
        case _:
            spoil_value(choose.choice(messages), choose)
    return written(root)


def spoil_value(nodes: list[Node], choose: random.Random) -> None:
    """Gives one field another value of its type."""
    plain = [node for node in nodes if isinstance(node.value, bytes)]
    if not plain:
        return
    node = choose.choice(plain)
    assert isinstance(node.value, bytes)
    if node.wire_type == VARINT:
        node.value = varint(choose.choice((*INTEGERS, *HUGE)))
    elif node.wire_type == 5:
        node.value = struct.pack("<f", choose.choice(FLOATS))
    elif choose.randrange(3) == 0:
        node.value = choose.choice(TEXTS)
    elif choose.randrange(2) == 0:  # a packed list, perhaps
        node.value = b"".join(
            varint(choose.choice((*INTEGERS, *HUGE))) for _ in range(choose.randrange(5))
        )
    elif len(node.value) >= 4 and choose.randrange(2) == 0:
        start = choose.randrange(len(node.value) // 4) * 4
        number = struct.pack("<f", choose.choice(FLOATS))
        node.value = node.value[:start] + number + node.value[start + 4 :]
    else:
        node.value = spoil_bytes(node.value, choose)


# ---- messages of assigned env_steps ---


@dataclass(frozen=True)
class Schema:
    """Which fields of a message are messages; stands for a descriptor of protobuf."""

    fields_by_number: Mapping[int, Below]


@dataclass(frozen=True)
class Below:
    """A field that holds a message."""

    message_type: object


def as_columns() -> Schema:
    """Gives the schema of columns.proto with agent lists that are taken apart as well."""

    def below(name: str) -> tuple[int, Below]:
        field = fields[name]
        return field.number, Below(field.message_type)

    agents = Below(communicator_pb2.UnityRLOutputProto.DESCRIPTOR)
    fields = columns_pb2.Played.DESCRIPTOR.fields_by_name
    played = Schema({fields["rl_output"].number: agents, **dict([below("choices")])})
    fields = columns_pb2.Output.DESCRIPTOR.fields_by_name
    output = Schema(
        {
            fields["rl_output"].number: agents,
            fields["played"].number: Below(played),
            **dict([below("choices")]),
        }
    )
    field = columns_pb2.Message.DESCRIPTOR.fields_by_name["unity_output"]
    return Schema({field.number: Below(output)})


def spoil_played(data: bytes, choose: random.Random) -> bytes:
    """Changes env_steps and choices as wholes; sometimes any field."""
    try:
        message = columns_pb2.Message.FromString(data)
    except DecodeError:
        return spoil_bytes(data, choose)
    output = message.unity_output
    env_steps: list[columns_pb2.Played | columns_pb2.Output] = [*output.played, output]
    env_step, other = choose.choice(env_steps), choose.choice(env_steps)
    agent_infos, foreign = env_step.rl_output.agent_infos, choose.choice(FOREIGN)
    own = next(iter(agent_infos), foreign)
    match choose.randrange(13):
        case 0 if output.played:
            del output.played[choose.randrange(len(output.played))]
        case 1:
            output.played.add().CopyFrom(choose.choice(output.played or [columns_pb2.Played()]))
        case 2:
            output.played.extend([columns_pb2.Played()] * choose.choice((1, 250, 5000)))
        case 3:
            env_step.choices[own].CopyFrom(other.choices[own])
        case 4:
            agent_infos[own] = other.rl_output.agent_infos[own]
        case 5:
            spoil_choices(env_step.choices[own], choose)
        case 6:
            env_step.choices[foreign].CopyFrom(env_step.choices[own])
        case 7:
            agent_infos[foreign] = agent_infos[own]
        case 8:
            garbage = choose.choice((data, agent_infos[own] * 50, bytes(9999), b"\x6a\0" * 5000))
            choose.choice(
                (
                    lambda: agent_infos.update({own: garbage}),
                    lambda: setattr(env_step.rl_output, "side_channel", garbage),
                    lambda: setattr(env_step.choices[own], choose.choice(COLUMNS), garbage),
                )
            )()
        case 9:
            for number in range(choose.choice((3, 300, 3000))):
                choose.choice((env_step.choices, agent_infos))[f"B{number}?team=0"]
        case 10:
            env_step.choices.clear()
        case 11:
            output.rl_initialization_output.brain_parameters.add(brain_name=foreign)
        case _:
            return spoil_message(data, choose, as_columns())
    return message.SerializeToString()


def spoil_choices(choices: columns_pb2.Choices, choose: random.Random) -> None:
    """Gives a column another size, or other numbers."""
    name = choose.choice(COLUMNS)
    column = bytearray(getattr(choices, name))
    match choose.randrange(4):
        case 0:
            column += bytes(choose.choice((1, 4, 400, 100_000)))
        case 1:
            del column[choose.randrange(len(column) + 1) :]
        case 2:
            column[:] = getattr(choices, choose.choice(COLUMNS))
        case _ if column:
            as_float = struct.pack("<f", choose.choice(FLOATS))
            numbers = choose.choice((as_float, struct.pack("<i", choose.choice(INDICES))))
            start = choose.randrange(len(column) // 4 or 1) * 4
            column[start : start + 4] = numbers
    setattr(choices, name, bytes(column))


# ---- the others ---------------------------------------------------------------------------------


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Takes PNG files apart, as far as they go: kind and data; the signature has the kind ""."""
    found, position = [], 0
    while position < len(data):
        if data.startswith(SIGNATURE, position):
            found.append((b"", b""))
            position += len(SIGNATURE)
            continue
        size = int.from_bytes(data[position : position + 4])
        found.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += size + 12
    return found


def joined(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Writes PNG chunks with right lengths and checksums."""
    return b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        if kind
        else SIGNATURE
        for kind, data in chunks
    )


def header(choose: random.Random) -> bytes:
    """Gives an IHDR of a size, depth, colour and interlacing that need not fit anything."""
    sizes = (0, 1, 3, 4, 5, 6, 7, 8, 9, 60_000, 2**31 - 1)
    return struct.pack(
        ">IIBBBBB",
        choose.choice(sizes),
        choose.choice(sizes),
        choose.choice((1, 2, 4, 8, 8, 16, 0)),
        choose.choice((0, 2, 2, 3, 4, 6, 1)),
        choose.randrange(2),
        choose.randrange(2),
        choose.randrange(3),
    )


def spoil_png(data: bytes, choose: random.Random) -> bytes:
    """Changes chunks of PNG files, keeping their checksums right."""
    chunks = chunks_of(data)
    if not chunks:
        return spoil_bytes(data, choose)
    index = choose.randrange(len(chunks))
    match choose.randrange(6):
        case 0:
            chunks[index : index + 1] = []
        case 1:
            chunks.insert(choose.randrange(len(chunks) + 1), chunks[index])
        case 2:
            chunks.insert(choose.randrange(1, len(chunks) + 1), (b"IHDR", header(choose)))
        case 3 if chunks[index][0] == b"IHDR":
            kept = chunks[index][1][: choose.choice((0, 8))]
            chunks[index] = (b"IHDR", kept + header(choose)[len(kept) :])
        case 4:
            kind = choose.choice((b"acTL", b"fcTL", b"fdAT", b"tRNS", b"PLTE", b"zTXt", b"iCCP",
                                  b"iTXt", b"eXIf", b"gAMA", b"cHRM", b"pHYs", b"IDAT", b"IEND",
                                  b"\0\1\2\3"))  # fmt: skip
            body = choose.choice((b"", struct.pack(">II", 1, 0), bytes(26), b"a\0\0" + bytes(9),
                                  b"a\0\0" + zlib.compress(bytes(5000)),
                                  struct.pack(">IIIII", 0, 9, 9, 0, 0) + bytes(6)))  # fmt: skip
            chunks.insert(choose.randrange(1, len(chunks) + 1), (kind, body))
        case _:
            kind, body = chunks[index]
            chunks[index] = (kind, spoil_bytes(body, choose))
    return joined(chunks)


def spoil_frames(data: bytes, choose: random.Random) -> bytes:
    """Changes HTTP/2 frames, keeping their lengths right."""
    if not data.startswith(PREFACE):
        return spoil_bytes(data, choose)
    frames, position = [], len(PREFACE)
    while position + 9 <= len(data):
        size = int.from_bytes(data[position : position + 3])
        stream = int.from_bytes(data[position + 5 : position + 9])
        body = data[position + 9 : position + 9 + size]
        frames.append((data[position + 3], data[position + 4], stream, body))
        position += 9 + size
    if not frames:
        return spoil_bytes(data, choose)
    index = choose.randrange(len(frames))
    kind, flags, stream, body = frames[index]
    match choose.randrange(8):
        case 0:
            del frames[index]
        case 1:
            frames.insert(choose.randrange(len(frames) + 1), frames[index])
        case 2:
            choose.shuffle(frames)
        case 3:
            frames[index] = (choose.randrange(11), flags, stream, body)
        case 4:
            frames[index] = (kind, choose.randrange(256), stream, body)
        case 5:
            frames[index] = (
                kind,
                flags,
                choose.choice((*INTEGERS[:-2], stream + 2 & 0xFFFFFFFF)),
                body,
            )
        case 6:
            new = choose.choice((b"", bytes(4), bytes(5), b"\xff" * 4, b"\0\4\xff\xff\xff\xff",
                                 b"\0\5" + bytes(4), b"\x7f\xff\xff\xff\xff\xff\x0f", b"\x82" * 40,
                                 b"\x40" + b"\x7f\xff\x7f" + bytes(9), bytes(8)))  # fmt: skip
            frames.insert(choose.randrange(len(frames) + 1),
                          (choose.randrange(10), choose.randrange(256), stream, new))  # fmt: skip
        case _:
            frames[index] = (kind, flags, stream, spoil_bytes(body, choose))
    return PREFACE + b"".join(frame(*one) for one in frames)


def spoil_side_channel(data: bytes, choose: random.Random) -> bytes:
    """Changes lengths, channels and numbers."""
    if choose.randrange(3) == 0:
        return spoil_bytes(data, choose)
    spoilt = bytearray(data)
    if len(spoilt) >= 24:
        start = choose.choice((0, 16, 20, choose.randrange(len(spoilt) - 4)))
        spoilt[start : start + 4] = struct.pack("<i", choose.choice((0, 1, 4, 30, -1, -(2**31),
                                                                     2**31 - 1)))  # fmt: skip
    return bytes(spoilt) + (data if choose.randrange(3) == 0 else b"")


YAML_PIECES = (
    "&a", "*a", "<<: *a", "<<: [*a, *a]", "!!int ''", "!!int", "!!float x", "!!bool maybe",
    "!!timestamp never", "!!map x", "!!seq x", "!!set x", "!!binary x", "!!python/object:os.system",
    "!!null x", "!!str [a]", "{", "}", "[", "]", ": ", "- ", "? ", "---", "...", "%YAML 1.1", "|",
    ">", "'", '"', "#", "\t", "~", "=", "<<", "1e999", ".inf", ".nan", "-0", "0x" + "f" * 4000,
    "1:" * 300 + "1", "9" * 5000, "2001-99-99", "2001-01-01", "\u2028", "\x85", "\0", "\ufeff",
    "on", "null", "[" * 60, "{a: " * 60, "a: &b [*b]", "behaviors", "default_settings",
    "environment_parameters", "trainer_type: ppo", "lambda", "0o17", "1_000", "\\x", "!", "!!", "@",
)  # fmt: skip


def spoil_yaml(data: bytes, choose: random.Random) -> bytes:
    """Changes lines and words of a settings file."""
    lines = data.split(b"\n")
    index = choose.randrange(len(lines))
    piece = choose.choice(YAML_PIECES).encode()
    key, colon, value = lines[index].partition(b":")
    match choose.randrange(8):
        case 0:
            lines[index] = key + colon + b" " + piece
        case 1:
            lines[index] = key + colon + b" " + piece + value
        case 2:
            lines.insert(index, key[: len(key) - len(key.lstrip())] + piece)
        case 3:
            lines.insert(choose.randrange(len(lines)), lines[index])
        case 4:
            del lines[index : index + choose.choice((1, 1, 3))]
        case 5:
            lines[index] = choose.choice((b"  ", b"    ", b"")) + lines[index]
        case 6:
            lines[index] = key.replace(key.strip() or b" ", piece) + colon + value
        case _:
            return spoil_bytes(data, choose)
    return b"\n".join(lines)


# ---- all ----------------------------------------------------------------------------------------

MESSAGE = communicator_pb2.UnityMessageProto.DESCRIPTOR
AGENT_LIST = communicator_pb2.UnityRLOutputProto.ListAgentInfoProto.DESCRIPTOR
SPOILERS: dict[str, tuple[int, Callable[[bytes, random.Random], bytes]]] = {
    # By target: how many bytes of an input choose its context, and what spoils the rest.
    "greeting": (0, lambda data, choose: spoil_message(data, choose, MESSAGE)),
    "first": (1, lambda data, choose: spoil_message(data, choose, MESSAGE)),
    "later": (1, lambda data, choose: spoil_message(data, choose, MESSAGE)),
    "played": (2, spoil_played),
    "agents": (1, lambda data, choose: spoil_message(data, choose, AGENT_LIST)),
    "side_channel": (0, spoil_side_channel),
    "image": (4, spoil_png),
    "http2": (1, spoil_frames),
    "yaml": (0, spoil_yaml),
}


def spoilt(name: str, data: bytes, choose: random.Random) -> bytes:
    """Gives an input of a target with some things changed."""
    num_chosen, spoil = SPOILERS[name]
    context, rest = bytearray(data[:num_chosen]), data[num_chosen:]
    for _ in range(choose.choice((1, 1, 1, 2, 2, 3, 5, 9))):
        rest = spoil(rest, choose) if choose.randrange(4) else spoil_bytes(rest, choose)
    if context and choose.randrange(8) == 0:
        context[choose.randrange(len(context))] = choose.randrange(256)
    return bytes(context) + rest


def any_input(name: str, choose: random.Random) -> bytes:
    """Gives a spoilt input of the corpus; now and then the end of one behind another's begin."""
    known = seeds(name)
    data = choose.choice(known)
    if choose.randrange(10) == 0:
        other = choose.choice(known)
        data = data[: choose.randrange(len(data) + 1)] + other[choose.randrange(len(other) + 1) :]
    return spoilt(name, data, choose)
