"""Bytes of ML-Agents' messages to columns, and columns of actions to bytes.

This file and layout.py, which it uses for agent lists, are the only places of the trainer that know
field numbers. Nothing here loops over agents in Python, but for lists of a kind not seen before,
and for agents with PNG images, each of which is different in length and slow to decode anyway.

Letters: N agents of a list, C continuous action size, K discrete branches, L sum of branch sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from envs.batch import Actions, Bool, Float32, Int32, Observations, Uint8
from envs.bridge import bad_numbers, images, limits
from envs.bridge.images import CompressedImage, ImageError
from envs.bridge.layout import (
    AGENT_ID,
    GROUP_ID,
    IrregularError,
    RecordLayout,
    head,
    length_delimited,
)
from envs.bridge.outline import AGENT_LIST, ENVELOPE, UNREADABLE, require_few_fields
from envs.bridge.plan import DIGIT_WEIGHTS, Planner
from envs.bridge.proto import columns_pb2, communicator_pb2
from envs.errors import BadDataError
from envs.spec import ActionSpec, BehaviorSpec, sum_of_branches

AgentInfo = communicator_pb2.AgentInfoProto
SHORT = 16  # numbers that Python adds up sooner than numpy


def parse_message(data: bytes) -> columns_pb2.Message:
    """Reads the envelope of a message; agent lists stay bytes, for an AgentDecoder."""
    require_few_fields(data, ENVELOPE)
    try:
        return columns_pb2.Message.FromString(data)
    except DecodeError as error:
        raise BadDataError(f"{len(data)} bytes received: {UNREADABLE}") from error


class AgentTable(NamedTuple):
    """A decoded agent list, one row per agent in the order of the list."""

    obs: tuple[Observations, ...]  # one per sensor, each (N, *shape)
    reward: Float32  # (N,)
    group_reward: Float32  # (N,)
    done: Bool | None  # (N,) None = nobody
    max_step_reached: Bool | None  # (N,) None = nobody
    agent_id: Int32  # (N,) the very array of the last list when nothing has changed
    group_id: Int32  # (N,)
    action_mask: Bool | None  # (N, L) True = allowed; None without branches
    bad: Bool | None = None  # (N,) True = something of it is NaN or infinite; None = nothing is


Tables = dict[str, AgentTable | None]  # by behaviour id


class AgentDecoder:
    """Decodes the agent lists of one behaviour; remembers how they look, so as not to parse.

    With images it remembers nothing, and any thread may use it.

    Args:
        behavior_id: for messages.
        spec: what its agents must observe.
        channels_last: sensors whose images are (H, W, C) on the wire.
    """

    def __init__(
        self, behavior_id: str, spec: BehaviorSpec, channels_last: frozenset[int] = frozenset()
    ) -> None:
        self._behavior_id = behavior_id
        self._spec = spec
        self.action_spec = spec.action_spec
        self._channels_last = channels_last
        self._shapes = []  # on the wire
        for index, sensor in enumerate(spec.observation_specs):
            shape = tuple(int(size) for size in sensor.shape)
            self._shapes.append((*shape[1:], shape[0]) if index in channels_last else shape)
        self._image_sensors = [
            index for index, sensor in enumerate(spec.observation_specs) if sensor.dtype == "uint8"
        ]
        self.has_images = bool(self._image_sensors)
        self._num_branches = sum_of_branches(spec)
        self.most_rows = limits.most_rows(spec.observation_specs, self._num_branches)
        self._row_bytes = limits.largest_row_bytes(spec.observation_specs, spec.action_spec)
        self.num_lists = 1  # that a message may hold, and that share these rows
        self._planner = Planner(self._num_branches, self._require_shapes)
        self._last_integers: dict[int, tuple[bytes, Int32]] = {}
        self._no_integers = np.zeros(0, np.int32)

    def most_steps(self, num_rows: int) -> int:
        """Gives how many env_steps of up to `num_rows` agents one message may hold."""
        return limits.most_steps(self._row_bytes, num_rows, self.most_rows)

    def _require_fewer(self, num_rows: int) -> None:
        most = self.most_rows // self.num_lists
        if num_rows > most:
            raise limits.too_many_rows(self._behavior_id, num_rows, most)

    def decode(self, data: bytes) -> AgentTable | None:
        """Gives the agents of a list, None when it has none.

        Raises:
            BadDataError: unreadable bytes, another shape than the spec's, or too many agents.
        """
        if not data:
            return None
        if self.has_images:
            return self._decode_ordinarily(data)
        try:
            plan, columns = self._planner.read(data)
        except IrregularError:
            return self._decode_ordinarily(data)
        obs = plan.observations(data)
        if self._channels_last:
            obs = tuple(self._channels_first(index, column) for index, column in enumerate(obs))
        num_rows = plan.num_rows
        self._require_fewer(num_rows)
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
                return _marked(table)
        return table

    def _channels_first(self, sensor: int, column: Float32) -> Float32:
        """Turns images (N, H, W, C) into (N, C, H, W), as a view: the step log copies them."""
        return column.transpose(0, 3, 1, 2) if sensor in self._channels_last else column

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
        agents = self._parsed(data)
        if not agents:
            return None
        self._require_fewer(len(agents))
        for agent in agents:
            self._require_number_of_observations(agent.id, len(agent.observations))
            where = f"behaviour {self._behavior_id!r}, agent {agent.id}"
            found = [
                (
                    limits.dimensions(where, o.shape),
                    o.HasField("compressed_data"),
                    4 * len(o.float_data.data),
                )
                for o in agent.observations
            ]
            self._require_observations(agent.id, found)
        action_mask = None
        if self._num_branches:
            action_mask = np.ones((len(agents), self._num_branches), np.bool_)
            for row, agent in enumerate(agents):
                if len(agent.action_mask) == self._num_branches:
                    action_mask[row] = ~np.array(agent.action_mask, np.bool_)
        pixels = self._images(agents)
        table = AgentTable(
            tuple(
                pixels[index] if index in pixels else self._floats(agents, index)
                for index in range(len(self._shapes))
            ),
            np.array([agent.reward for agent in agents], np.float32),
            np.array([agent.group_reward for agent in agents], np.float32),
            np.array([agent.done for agent in agents], np.bool_),
            np.array([agent.max_step_reached for agent in agents], np.bool_),
            np.array([agent.id for agent in agents], np.int32),
            np.array([agent.group_id for agent in agents], np.int32),
            action_mask,
        )
        numbers = [column for column in table.obs if column.dtype != np.uint8]
        if not all(_is_finite(column) for column in (*numbers, table.reward, table.group_reward)):
            return _marked(table)
        return table

    def _parsed(self, data: bytes) -> Sequence[AgentInfo]:
        """Parses a list of agents with protobuf."""
        require_few_fields(data, AGENT_LIST)
        try:
            return communicator_pb2.UnityRLOutputProto.ListAgentInfoProto.FromString(data).value
        except DecodeError as error:
            raise BadDataError(f"behaviour {self._behavior_id!r}: {UNREADABLE}") from error

    def _floats(self, agents: Sequence[AgentInfo], sensor: int) -> Float32:
        """Gives the column of a sensor that sends numbers, which have been counted."""
        size = math.prod(self._shapes[sensor])
        column = np.empty((len(agents), size), np.float32)
        for row, agent in enumerate(agents):
            column[row] = np.fromiter(agent.observations[sensor].float_data.data, np.float32, size)
        return self._channels_first(sensor, column.reshape(len(agents), *self._shapes[sensor]))

    def _images(self, agents: Sequence[AgentInfo]) -> dict[int, Uint8]:
        """Gives the columns of sensors that send PNGs, by sensor."""
        columns: dict[int, Uint8] = {}
        for index in self._image_sensors:
            shape = self._spec.observation_specs[index].shape
            columns[index] = np.empty((len(agents), *shape), np.uint8)
        compressed = [
            CompressedImage(
                agent.observations[index].compressed_data,
                agent.observations[index].compressed_channel_mapping,
                column[row],
            )
            for row, agent in enumerate(agents)
            for index, column in columns.items()
        ]
        try:
            images.decode_all(compressed)
        except ImageError as error:
            row, which = divmod(error.index, len(columns))
            sensor = self._spec.observation_specs[self._image_sensors[which]]
            raise BadDataError(
                f"behaviour {self._behavior_id!r}, agent {agents[row].id}, sensor {sensor.name!r} "
                f"of shape {self._shapes[self._image_sensors[which]]}: {error}. The simulator, or "
                "what compresses its images, is at fault."
            ) from error
        return columns

    def _require_shapes(self, record: bytes, layout: RecordLayout) -> None:
        """Checks a layout's observations against the spec; `record` is one such record."""
        found = [(s.shape, s.is_compressed, s.floats.num_bytes) for s in layout.sensors]
        expected = [(shape, False, 4 * math.prod(shape)) for shape in self._shapes]
        if found != expected:
            self._require_observations(self._parsed(record)[0].id, found)

    def _require_number_of_observations(self, agent_id: int, num_found: int) -> None:
        if num_found != len(self._shapes):
            raise BadDataError(
                f"behaviour {self._behavior_id!r}, agent {agent_id}: {num_found} observations "
                f"found, {len(self._shapes)} expected as in the behaviour's first message. All "
                "agents of a behaviour need the same sensors, from the first step to the last."
            )

    def _require_observations(
        self, agent_id: int, found: list[tuple[tuple[int, ...], bool, int]]
    ) -> None:
        """Raises BadDataError unless (shape, is_compressed, float bytes) are as in the spec."""
        self._require_number_of_observations(agent_id, len(found))
        agent = f"behaviour {self._behavior_id!r}, agent {agent_id}"
        for index, (shape, is_compressed, float_bytes) in enumerate(found):
            expected = self._shapes[index]
            where = f"{agent}, sensor {self._spec.observation_specs[index].name!r}"
            is_image = index in self._image_sensors
            if is_compressed != is_image:
                words = ("plain numbers", "PNG images")
                raise BadDataError(
                    f"{where}: {words[is_compressed]} found, {words[is_image]} expected as in the "
                    "behaviour's first message. A sensor must keep its compression, for all agents "
                    "of a behaviour; compare their prefabs."
                )
            float_size = 0 if is_image else 4 * math.prod(expected)
            if shape != expected or float_bytes != float_size:
                numbers = "" if is_image else f" with {float_bytes // 4} numbers"
                raise BadDataError(
                    f"{where}: shape {limits.shown_numbers(shape)}{numbers} found, {expected} "
                    "expected as in the behaviour's first message. A sensor must keep its shape, "
                    "for all agents of a behaviour; compare their prefabs."
                )

    def words_for_bad(self, table: AgentTable, row: int) -> str:
        """Says which number of an agent is not finite, naming sensor and agent."""
        names = [f"sensor {o.name!r}" for o in self._spec.observation_specs]
        named = [*zip(names, table.obs, strict=True)]
        named += [("the reward", table.reward), ("the group reward", table.group_reward)]
        of_row = [(name, column[row]) for name, column in named]
        return bad_numbers.words_for_bad(self._behavior_id, int(table.agent_id[row]), of_row)


def decode_lists(data: bytes, decoders: Mapping[str, AgentDecoder], num_steps: int) -> list[Tables]:
    """Decodes those agent lists of a message that have a decoder here, env_step by env_step.

    A message of another number of env_steps is refused anyway, and gives [].
    """
    output = parse_message(data).unity_output
    if len(output.played) + 1 != num_steps:  # before there is an object for each
        return []
    steps = [*(played.rl_output for played in output.played), output.rl_output]
    return [
        {
            behavior_id: decoder.decode(step.agent_infos[behavior_id])
            for behavior_id, decoder in decoders.items()
            if behavior_id in step.agent_infos
        }
        for step in steps
    ]


def _marked(table: AgentTable) -> AgentTable:
    """Marks the agents that have sent NaN or infinite numbers."""
    bad = np.zeros(len(table.reward), np.bool_)
    for column in (*table.obs, table.reward, table.group_reward):
        bad |= ~np.isfinite(column).reshape(len(bad), -1).all(axis=1)
    return table._replace(bad=bad)


def _is_finite(column: Observations) -> bool:
    # A sum is quick, and finite unless one of the numbers is not, or is huge.
    is_short = column.ndim == 1 and len(column) <= SHORT
    total = sum(column.tolist()) if is_short else np.vdot(column, column)
    return math.isfinite(total) or bool(np.isfinite(column).all())


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
            body += length_delimited(1, bytes(4 * num_floats))
            self._deprecated = len(body) - 4 * num_floats
        if self._num_continuous:
            body += length_delimited(6, bytes(4 * self._num_continuous))
            self._typed = len(body) - 4 * self._num_continuous
        if self._branches:
            zeros = b"".join(b"\x80" * (width - 1) + b"\x00" for width in self._widths)
            body += length_delimited(7, zeros)
            self._discrete = len(body) - len(zeros)
        record = length_delimited(1, body)
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
        pieces.append(length_delimited(5, side_channel))
    num_bytes = sum(map(len, pieces))
    rl_input = head(1, num_bytes)
    return b"".join((STATUS_200, head(3, len(rl_input) + num_bytes), rl_input, *pieces))


@lru_cache(maxsize=256)
def _map_entry_head(behavior_id: str, num_bytes: int) -> bytes:
    """Gives what stands before the `num_bytes` of a behaviour's actions in the map of them."""
    key_and_head = length_delimited(1, behavior_id.encode()) + head(2, num_bytes)
    return head(1, len(key_and_head) + num_bytes) + key_and_head
