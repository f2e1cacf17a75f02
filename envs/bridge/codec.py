"""Bytes of ML-Agents' messages to columns, and columns of actions to bytes.

This file and layout.py, which it uses for agent lists, are the only places of the trainer that know
field numbers. Nothing here loops over agents in Python, but for lists of a kind not seen before.

Letters: N agents of a list, C continuous action size, K discrete branches, L sum of branch sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from envs.batch import Actions, Bool, Float32, Int32
from envs.bridge.layout import AGENT_ID, GROUP_ID, IrregularError, RecordLayout
from envs.bridge.plan import DIGIT_WEIGHTS, Planner
from envs.bridge.proto import columns_pb2, communicator_pb2
from envs.errors import BadDataError
from envs.spec import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    sum_of_branches,
)

UNREADABLE = (
    "the simulator sent bytes that are no message of ML-Agents' protocol. Is something else than a "
    "simulator dialling this port, or does the simulator need another version of its package?"
)


def parse_message(data: bytes) -> columns_pb2.Message:
    """Reads the envelope of a message; agent lists stay bytes, for an AgentDecoder."""
    try:
        return columns_pb2.Message.FromString(data)
    except DecodeError as error:
        raise BadDataError(f"{len(data)} bytes received: {UNREADABLE}") from error


def build_spec(
    brain: communicator_pb2.BrainParametersProto, agent_infos: bytes
) -> BehaviorSpec | None:
    """Gives what a behaviour observes and does; None while no agent of it has been seen.

    Args:
        brain: the behaviour's own words; they tell of actions only.
        agent_infos: the list of agents that came with them; its first one shows the observations.

    Raises:
        BadDataError: unreadable, or a sensor of a kind that this trainer cannot read.
    """
    try:
        agents = communicator_pb2.UnityRLOutputProto.ListAgentInfoProto.FromString(agent_infos)
    except DecodeError as error:
        raise BadDataError(f"behaviour {brain.brain_name!r}: {UNREADABLE}") from error
    if not agents.value:
        return None
    observation_specs = [
        _observation_spec(brain.brain_name, index, observation)
        for index, observation in enumerate(agents.value[0].observations)
    ]
    return BehaviorSpec(observation_specs, _action_spec(brain))


def _observation_spec(
    behavior_id: str, index: int, observation: communicator_pb2.ObservationProto
) -> ObservationSpec:
    name = observation.name or f"obs_{index}"
    if observation.compression_type != communicator_pb2.NONE:
        raise BadDataError(_compressed(behavior_id, name))
    shape = tuple(observation.shape)
    properties = tuple(DimensionProperty(bits) for bits in observation.dimension_properties)
    return ObservationSpec(
        shape,
        properties or (DimensionProperty.UNSPECIFIED,) * len(shape),
        ObservationType(observation.observation_type),
        name,
    )


def _compressed(behavior_id: str, sensor: str) -> str:
    return (
        f"behaviour {behavior_id!r}, sensor {sensor!r}: PNG-compressed observations found, only "
        "uncompressed ones are supported yet. In Unity, set the sensor's Compression to None."
    )


def _action_spec(brain: communicator_pb2.BrainParametersProto) -> ActionSpec:
    typed = brain.action_spec
    if typed.num_continuous_actions or typed.num_discrete_actions:
        return ActionSpec(typed.num_continuous_actions, tuple(typed.discrete_branch_sizes))
    sizes = tuple(brain.vector_action_size_deprecated)  # from a peer older than protocol 1.3
    if brain.vector_action_space_type_deprecated == communicator_pb2.continuous:
        return ActionSpec(sizes[0] if sizes else 0, ())
    return ActionSpec(0, sizes)


class AgentTable(NamedTuple):
    """A decoded agent list, one row per agent in the order of the list."""

    obs: tuple[Float32, ...]  # one per sensor, each (N, *shape)
    reward: Float32  # (N,)
    group_reward: Float32  # (N,)
    done: Bool | None  # (N,) None = nobody
    max_step_reached: Bool | None  # (N,) None = nobody
    agent_id: Int32  # (N,) the very array of the last list when nothing has changed
    group_id: Int32  # (N,)
    action_mask: Bool | None  # (N, L) True = allowed; None without branches


class AgentDecoder:
    """Decodes the agent lists of one behaviour; remembers how they look, so as not to parse."""

    def __init__(self, behavior_id: str, spec: BehaviorSpec) -> None:
        self._behavior_id = behavior_id
        self._spec = spec
        self._shapes = [tuple(int(size) for size in o.shape) for o in spec.observation_specs]
        self._num_branches = sum_of_branches(spec)
        self._planner = Planner(self._num_branches, self._require_shapes)
        self._last_integers: dict[int, tuple[bytes, Int32]] = {}
        self._no_integers = np.zeros(0, np.int32)

    def decode(self, data: bytes) -> AgentTable | None:
        """Gives the agents of a list, None when it has none.

        Raises:
            BadDataError: unreadable bytes, another shape than the spec's, NaN or infinite numbers.
        """
        if not data:
            return None
        try:
            plan, columns = self._planner.read(data)
        except IrregularError:
            return self._decode_ordinarily(data)
        obs = plan.observations(data)
        num_rows = plan.num_rows
        table = AgentTable(
            obs,
            _given_or_zeros(columns.reward, num_rows),
            _given_or_zeros(columns.group_reward, num_rows),
            columns.done,
            columns.max_step_reached,
            self._integers(AGENT_ID, columns.agent_id, num_rows),
            self._integers(GROUP_ID, columns.group_id, num_rows),
            self._allowed(columns.forbidden, num_rows),
        )
        for column in (*obs, columns.reward, columns.group_reward):
            if column is not None and not _is_finite(column):
                self._refuse_infinity(table)
        return table

    def _integers(self, number: int, digits: NDArray[np.uint8] | None, num_rows: int) -> Int32:
        """Gives varints as numbers: shared, read-only, the last array if nothing has changed."""
        if digits is None:  # no agent has sent any
            if len(self._no_integers) != num_rows:
                self._no_integers = np.zeros(num_rows, np.int32)
                self._no_integers.setflags(write=False)
            return self._no_integers
        raw = digits.tobytes()
        last = self._last_integers.get(number)
        if last is not None and last[0] == raw:
            return last[1]
        # Only the lowest 32 bits count, as in protobuf.
        integers: Int32 = (digits @ DIGIT_WEIGHTS).astype(np.int32)
        integers.setflags(write=False)
        self._last_integers[number] = (raw, integers)
        return integers

    def _allowed(self, forbidden: Bool | None, num_rows: int) -> Bool | None:
        """Turns a mask around; one that no agent has sent allows everything."""
        if forbidden is not None:
            return ~forbidden
        return np.ones((num_rows, self._num_branches), np.bool_) if self._num_branches else None

    def _decode_ordinarily(self, data: bytes) -> AgentTable | None:
        """Decodes by field access what is legal but too uncommon for a plan; slow."""
        try:
            agents = communicator_pb2.UnityRLOutputProto.ListAgentInfoProto.FromString(data).value
        except DecodeError as error:
            raise BadDataError(f"behaviour {self._behavior_id!r}: {UNREADABLE}") from error
        if not agents:
            return None
        for agent in agents:
            found = [
                (tuple(o.shape), o.HasField("compressed_data"), 4 * len(o.float_data.data))
                for o in agent.observations
            ]
            self._require_observations(agent.id, found)
        action_mask = None
        if self._num_branches:
            action_mask = np.ones((len(agents), self._num_branches), np.bool_)
            for row, agent in enumerate(agents):
                if len(agent.action_mask) == self._num_branches:
                    action_mask[row] = ~np.array(agent.action_mask, np.bool_)
        table = AgentTable(
            tuple(
                np.array([a.observations[i].float_data.data for a in agents], np.float32).reshape(
                    len(agents), *shape
                )
                for i, shape in enumerate(self._shapes)
            ),
            np.array([agent.reward for agent in agents], np.float32),
            np.array([agent.group_reward for agent in agents], np.float32),
            np.array([agent.done for agent in agents], np.bool_),
            np.array([agent.max_step_reached for agent in agents], np.bool_),
            np.array([agent.id for agent in agents], np.int32),
            np.array([agent.group_id for agent in agents], np.int32),
            action_mask,
        )
        if not all(_is_finite(column) for column in (*table.obs, table.reward, table.group_reward)):
            self._refuse_infinity(table)
        return table

    def _require_shapes(self, record: bytes, layout: RecordLayout) -> None:
        """Checks a layout's observations against the spec; `record` is one such record."""
        found = [(s.shape, s.is_compressed, s.floats.num_bytes) for s in layout.sensors]
        expected = [(shape, False, 4 * math.prod(shape)) for shape in self._shapes]
        if found != expected:
            records = communicator_pb2.UnityRLOutputProto.ListAgentInfoProto.FromString(record)
            self._require_observations(records.value[0].id, found)

    def _require_observations(
        self, agent_id: int, found: list[tuple[tuple[int, ...], bool, int]]
    ) -> None:
        """Raises BadDataError unless (shape, is_compressed, float bytes) are as in the spec."""
        agent = f"behaviour {self._behavior_id!r}, agent {agent_id}"
        if len(found) != len(self._shapes):
            raise BadDataError(
                f"{agent}: {len(found)} observations found, {len(self._shapes)} expected as in the "
                "behaviour's first message. All agents of a behaviour need the same sensors, "
                "from the first step to the last."
            )
        for index, (shape, is_compressed, float_bytes) in enumerate(found):
            expected = self._shapes[index]
            sensor = self._spec.observation_specs[index].name
            if is_compressed:
                raise BadDataError(_compressed(self._behavior_id, sensor))
            if shape != expected or float_bytes != 4 * math.prod(expected):
                raise BadDataError(
                    f"{agent}, sensor {sensor!r}: shape {shape} with {float_bytes // 4} numbers "
                    f"found, {expected} expected as in the behaviour's first message. A sensor "
                    "must keep its shape, for all agents of a behaviour; compare their prefabs."
                )

    def _refuse_infinity(self, table: AgentTable) -> None:
        """Raises BadDataError for NaN and infinity, naming sensor and agent."""
        names = [f"sensor {o.name!r}" for o in self._spec.observation_specs]
        named = [*zip(names, table.obs, strict=True)]
        named += [("the reward", table.reward), ("the group reward", table.group_reward)]
        for name, column in named:
            flat = column.reshape(len(column), -1)
            bad = ~np.isfinite(flat)
            if bad.any():
                row, element = np.argwhere(bad)[0].tolist()
                raise BadDataError(
                    f"behaviour {self._behavior_id!r}, agent {int(table.agent_id[row])}: {name} "
                    f"holds {flat[row, element]} at index {element}, a finite number is expected. "
                    "Look for a division by zero or a physics blow-up in the simulator."
                )


def _is_finite(column: Float32) -> bool:
    # Several times faster than .all() on the few numbers of an ordinary message.
    return b"\0" not in np.isfinite(column).tobytes()


def _given_or_zeros(column: Float32 | None, num_rows: int) -> Float32:
    return np.zeros(num_rows, np.float32) if column is None else column


class ActionEncoder:
    """Encodes actions of one behaviour by writing numbers into a block of ready-made records."""

    def __init__(self, action_spec: ActionSpec) -> None:
        self._num_continuous = int(action_spec.continuous_size)
        self._branches = tuple(int(size) for size in action_spec.discrete_branches)
        self._block = np.empty((0, 0), np.uint8)
        # A branch's varint has the width of its largest index, so that all records are equal.
        self._widths = [max(1, math.ceil((size - 1).bit_length() / 7)) for size in self._branches]
        self._template = self._record()

    def _record(self) -> NDArray[np.uint8]:
        """Makes the record of zero actions and remembers where its numbers lie."""
        num_floats = self._num_continuous + len(self._branches)
        body = b""
        self._deprecated = self._typed = self._discrete = 0
        if num_floats:
            body += _length_delimited(1, bytes(4 * num_floats))
            self._deprecated = len(body) - 4 * num_floats
        if self._num_continuous:
            body += _length_delimited(6, bytes(4 * self._num_continuous))
            self._typed = len(body) - 4 * self._num_continuous
        if self._branches:
            zeros = b"".join(b"\x80" * (width - 1) + b"\x00" for width in self._widths)
            body += _length_delimited(7, zeros)
            self._discrete = len(body) - len(zeros)
        record = _length_delimited(1, body)
        shift = len(record) - len(body)
        self._deprecated += shift
        self._typed += shift
        self._discrete += shift
        return np.frombuffer(record, np.uint8)

    def zeros(self, num_rows: int) -> bytes:
        """Gives `num_rows` times the action of doing nothing."""
        return self._template.tobytes() * num_rows

    def encode(self, actions: Actions) -> bytes:
        """Gives the ListAgentActionProto that holds both the typed and the deprecated lists."""
        num_rows = len(actions)
        if len(self._block) < num_rows:
            self._block = np.tile(self._template, (num_rows, 1))
        block = self._block[:num_rows]
        width = 4 * self._num_continuous
        if width:
            raw = np.ascontiguousarray(actions.continuous, np.float32).view(np.uint8)
            block[:, self._deprecated : self._deprecated + width] = raw
            block[:, self._typed : self._typed + width] = raw
        if self._branches:
            discrete = actions.discrete
            floats = np.ascontiguousarray(discrete, np.float32).view(np.uint8)
            start = self._deprecated + width
            block[:, start : start + floats.shape[1]] = floats
            self._write_varints(block, discrete)
        return block.tobytes()

    def _write_varints(self, block: NDArray[np.uint8], discrete: Int32) -> None:
        if max(self._widths) == 1:
            block[:, self._discrete : self._discrete + len(self._branches)] = discrete
            return
        position = self._discrete
        for branch, width in enumerate(self._widths):
            for digit in range(width):
                continues = 0x80 if digit < width - 1 else 0
                block[:, position] = discrete[:, branch] >> 7 * digit & 0x7F | continues
                position += 1


STATUS_200 = bytes.fromhex("0a0308c801")  # UnityMessageProto.header.status


def encode_answer(
    actions: Mapping[str, bytes], side_channel: bytes = b"", *, is_reset: bool = False
) -> bytes:
    """Gives the message that answers a step: UnityMessageProto.unity_input.rl_input.

    Args:
        actions: by behaviour id, from ActionEncoder.
        side_channel: framed messages.
        is_reset: whether the simulator is to begin all episodes anew.
    """
    pieces: list[bytes] = []
    for behavior_id, encoded in actions.items():
        pieces += (_map_entry_head(behavior_id, len(encoded)), encoded)
    if is_reset:
        pieces.append(b"\x20\x01")  # command
    if side_channel:
        pieces.append(_length_delimited(5, side_channel))
    num_bytes = sum(map(len, pieces))
    rl_input = _head(1, num_bytes)
    return b"".join((STATUS_200, _head(3, len(rl_input) + num_bytes), rl_input, *pieces))


@lru_cache(maxsize=256)
def _map_entry_head(behavior_id: str, num_bytes: int) -> bytes:
    """Gives what stands before the `num_bytes` of a behaviour's actions in the map of them."""
    key_and_head = _length_delimited(1, behavior_id.encode()) + _head(2, num_bytes)
    return _head(1, len(key_and_head) + num_bytes) + key_and_head


def _head(number: int, num_bytes: int) -> bytes:
    """Gives tag and length of a length-delimited field."""
    length = bytearray((number << 3 | 2,))
    while num_bytes > 0x7F:
        length.append(num_bytes & 0x7F | 0x80)
        num_bytes >>= 7
    length.append(num_bytes)
    return bytes(length)


def _length_delimited(number: int, payload: bytes) -> bytes:
    return _head(number, len(payload)) + payload
