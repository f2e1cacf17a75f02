"""One simulator's conversation: handshake, then step after step.

The session reads and writes messages; it knows nothing of sockets, processes or time.

Letters: N agents of a message.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from envs.batch import Actions, Bool, Decisions, Int32, Int64, Terminals
from envs.bridge import codec, images
from envs.bridge.codec import ActionEncoder, AgentDecoder, AgentTable
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import (
    BrainParametersProto,
    UnityRLInitializationInputProto,
    UnityRLInitializationOutputProto,
)
from envs.bridge.protocol import (
    COMMUNICATION_VERSION,
    DIMENSION_PROPERTIES_SINCE,
    PACKAGE_VERSION,
    STATUS_CLOSING,
    STATUS_OK,
)
from envs.bridge.side_channels import Inbox, StatsMessage
from envs.bridge.wire_spec import UNREADABLE, build_spec
from envs.errors import BadDataError, SimulatorClosedError, WrongProtocolError
from envs.lanes import NOBODY, AgentLanes, LaneTable
from envs.spec import BehaviorSpec, parse_behavior_id

_logger = logging.getLogger(__name__)

CAPABILITIES = {
    "baseRLCapabilities": True,
    # Without these two Unity sends cameras of more than three channels as plain floats.
    "concatenatedPngObservations": True,
    "compressedChannelMapping": True,
    "hybridActions": True,
    "trainingAnalytics": False,  # Unity then neither sends nor expects any
    "variableLengthObservation": True,
    "multiAgentGroups": True,
}


@dataclass(frozen=True, slots=True)
class SimulatorMessage:
    """One Exchange of one simulator, decoded; by behaviour id, and only what is not empty."""

    simulator: int
    new_behaviors: dict[str, BehaviorSpec]  # first seen from this simulator in this message
    decisions: dict[str, Decisions]
    terminals: dict[str, Terminals]  # without agents that never had a decision
    stats: tuple[StatsMessage, ...]


Tables = dict[str, AgentTable | None]  # by behaviour id


class Phase(Enum):
    """What the simulator's next call is about."""

    GREETING = auto()  # it tells its version
    OPENING = auto()  # it asks for the first reset
    STEPPING = auto()  # it brings agents


@dataclass(slots=True)
class _Behavior:
    """One behaviour id of this simulator."""

    team: int
    decoder: AgentDecoder
    encoder: ActionEncoder
    lanes: AgentLanes
    num_waiting: int = 0
    constants: dict[int, tuple[Int32, Int32]] = field(default_factory=dict)


class Session:
    """Reads one simulator's messages and writes the answers.

    Args:
        simulator: its number.
        lanes: shared by all simulators.
    """

    def __init__(self, simulator: int, lanes: LaneTable) -> None:
        self.phase = Phase.GREETING
        self._simulator = simulator
        self._lanes = lanes
        self._inbox = Inbox()
        self._brains: dict[str, BrainParametersProto] = {}
        self._behaviors: dict[str, _Behavior] = {}
        self._held_behaviors: dict[str, BehaviorSpec] = {}
        self._held_stats: tuple[StatsMessage, ...] = ()
        self._has_images = False
        self._has_dimension_properties = True

    # ---- what the simulator says ------------------------------------------------------------

    def parse(self, data: bytes) -> columns_pb2.Message:
        """Reads the envelope of a call.

        Raises:
            BadDataError: no message of the protocol.
            SimulatorClosedError: the simulator says goodbye.
        """
        message = codec.parse_message(data)
        status = message.header.status
        if status == STATUS_CLOSING:
            raise SimulatorClosedError("said goodbye: it was stopped at its own end")
        if status != STATUS_OK:
            raise BadDataError(
                f"header status {status} found, {STATUS_OK} or {STATUS_CLOSING} expected: "
                f"{UNREADABLE}"
            )
        return message

    def greet(self, message: columns_pb2.Message, seed: int, num_areas: int) -> bytes:
        """Answers the first call.

        Raises:
            WrongProtocolError: the simulator's protocol has another major version.
        """
        output = message.unity_output.rl_initialization_output
        if not message.unity_output.HasField("rl_initialization_output"):
            raise BadDataError(
                "its first message does not introduce itself (no rl_initialization_output). "
                "Was it in the middle of another session? Start it again."
            )
        require_compatible(output)
        _logger.info(
            "Connected to Unity environment with package version %s and communication version %s "
            "(simulator %d)",  # ML-Agents' words, for programs that read them
            output.package_version,
            output.communication_version,
            self._simulator,
        )
        greeting = UnityRLInitializationInputProto(
            seed=seed,
            communication_version=COMMUNICATION_VERSION,
            package_version=PACKAGE_VERSION,
            capabilities=CAPABILITIES,
            num_areas=num_areas,
        )
        self._remember_brains(output)
        minor_version = int(output.communication_version.split(".")[1])
        self._has_dimension_properties = minor_version >= DIMENSION_PROPERTIES_SINCE
        self.phase = Phase.OPENING
        return columns_pb2.Message(
            header={"status": STATUS_OK},
            unity_input=columns_pb2.Input(rl_initialization_input=greeting),
        ).SerializeToString()

    def decode_ahead(self, data: bytes) -> Future[Tables] | None:
        """Begins to decode a call's agents that see images, in another thread.

        To be called as soon as the call has arrived, by any thread, and never before the previous
        call has been answered.

        Returns:
            For `step` or `skip`; None: there is nothing to do ahead.
        """
        if not self._has_images:
            return None
        decoders = {
            behavior_id: behavior.decoder
            for behavior_id, behavior in self._behaviors.copy().items()
            if behavior.decoder.has_images
        }
        return images.pool().submit(_decode, data, decoders)

    def step(
        self, message: columns_pb2.Message, ahead: Future[Tables] | None = None
    ) -> SimulatorMessage:
        """Decodes the agents of a message and gives them lanes.

        Args:
            message: from `parse`.
            ahead: from `decode_ahead`; waits until it is done.

        Raises:
            BadDataError: see AgentDecoder.decode.
            UnsupportedSpaceError: a new behaviour has a sensor of an unknown kind.
        """
        decisions: dict[str, Decisions] = {}
        terminals: dict[str, Terminals] = {}
        new_behaviors, self._held_behaviors = self._held_behaviors, {}
        stats, self._held_stats = self._held_stats, ()
        # Everything that can go wrong comes first: a simulator that is lost because of bad data
        # must still hold the lanes of all agents that the trainer knows.
        parts = [
            (behavior_id, behavior, *_split(table))
            for behavior_id, behavior, table in self._tables(message, new_behaviors, ahead)
        ]
        for _, behavior, _, going in parts:
            if going is not None:
                behavior.lanes.require_unique(going.agent_id)
        side_channel = message.unity_output.rl_output.side_channel
        if side_channel:
            stats += self._inbox.read(side_channel)
        for behavior_id, behavior, ended, going in parts:
            # Terminals first, so that an id used again for the next episode gets a new lane.
            if ended is not None:
                self._add_terminals(terminals, behavior_id, behavior, ended)
            if going is not None:
                self._add_decisions(decisions, behavior_id, behavior, going)
        return SimulatorMessage(self._simulator, new_behaviors, decisions, terminals, stats)

    def skip(self, message: columns_pb2.Message, ahead: Future[Tables] | None = None) -> None:
        """Drops the agents of a message, because a reset follows, but keeps all other news."""
        for _ in self._tables(message, self._held_behaviors, ahead):
            pass
        self._held_stats += self._inbox.read(message.unity_output.rl_output.side_channel)

    def _tables(
        self,
        message: columns_pb2.Message,
        new_behaviors: dict[str, BehaviorSpec],
        ahead: Future[Tables] | None,
    ) -> list[tuple[str, _Behavior, AgentTable]]:
        """Decodes all agent lists that are not empty, and meets new behaviours."""
        output = message.unity_output
        if output.HasField("rl_initialization_output"):
            if output.rl_initialization_output.communication_version:
                raise BadDataError(
                    "it introduces itself again in the middle of the run. Does a second program "
                    "use its connection?"
                )
            self._remember_brains(output.rl_initialization_output)
        agent_infos = output.rl_output.agent_infos
        decoded = {} if ahead is None else ahead.result()
        tables = []
        for behavior_id in sorted(agent_infos):  # protobuf's own order is random
            agents = agent_infos[behavior_id]
            behavior = self._behaviors.get(behavior_id)
            if behavior is None:
                behavior = self._meet(behavior_id, agents, new_behaviors)
            if behavior is None:
                continue
            if behavior_id in decoded:
                table = decoded[behavior_id]
            else:
                table = behavior.decoder.decode(agents)
            if table is not None:
                tables.append((behavior_id, behavior, table))
        return tables

    def _remember_brains(self, output: UnityRLInitializationOutputProto) -> None:
        for brain in output.brain_parameters:
            self._brains[brain.brain_name] = brain

    def _meet(
        self, behavior_id: str, agents: bytes, new_behaviors: dict[str, BehaviorSpec]
    ) -> _Behavior | None:
        """Gets to know a behaviour; None while none of its agents has been seen."""
        brain = self._brains.get(behavior_id)
        if brain is None and not agents:
            return None
        if brain is None:
            raise BadDataError(
                f"agents of behaviour {behavior_id!r} came before its brain parameters; they are "
                "expected together. The simulator does not follow the protocol."
            )
        found = build_spec(brain, agents, has_dimension_properties=self._has_dimension_properties)
        if found is None:
            return None
        spec, channels_last = found
        name, team = parse_behavior_id(behavior_id)
        decoder = AgentDecoder(behavior_id, spec, channels_last)
        self._has_images = self._has_images or decoder.has_images
        self._behaviors[behavior_id] = _Behavior(
            team,
            decoder,
            ActionEncoder(spec.action_spec),
            self._lanes.agents(self._simulator, behavior_id, name),
        )
        new_behaviors[behavior_id] = spec
        return self._behaviors[behavior_id]

    def _constants(self, behavior: _Behavior, num_rows: int) -> tuple[Int32, Int32]:
        """Gives the columns simulator and team, both (N,); shared, and read-only."""
        found = behavior.constants.get(num_rows)
        if found is None:
            found = (
                np.full(num_rows, self._simulator, np.int32),
                np.full(num_rows, behavior.team, np.int32),
            )
            for column in found:
                column.setflags(write=False)
            behavior.constants[num_rows] = found
        return found

    def _add_decisions(
        self,
        decisions: dict[str, Decisions],
        behavior_id: str,
        behavior: _Behavior,
        table: AgentTable,
    ) -> None:
        num_rows = behavior.num_waiting = len(table.reward)
        simulators, teams = self._constants(behavior, num_rows)
        decisions[behavior_id] = Decisions(
            obs=table.obs,
            reward=table.reward,
            lane=behavior.lanes.of_decisions(table.agent_id),
            agent_id=table.agent_id,
            simulator=simulators,
            team=teams,
            group_id=table.group_id,
            group_reward=table.group_reward,
            action_mask=table.action_mask,
        )

    def _add_terminals(
        self,
        terminals: dict[str, Terminals],
        behavior_id: str,
        behavior: _Behavior,
        table: AgentTable,
    ) -> None:
        lanes = behavior.lanes.of_terminals(table.agent_id)
        known = lanes != NOBODY
        if not known.all():
            (rows,) = known.nonzero()
            table, lanes = _rows(table, rows), lanes[rows]
            if not len(rows):
                return
        simulators, teams = self._constants(behavior, len(lanes))
        truncated = table.max_step_reached
        terminals[behavior_id] = Terminals(
            obs=table.obs,
            reward=table.reward,
            lane=lanes,
            agent_id=table.agent_id,
            simulator=simulators,
            team=teams,
            group_id=table.group_id,
            group_reward=table.group_reward,
            truncated=np.zeros(len(lanes), np.bool_) if truncated is None else truncated,
        )

    # ---- what the trainer answers -----------------------------------------------------------

    def answer(self, actions: Mapping[str, Actions], side_channel: bytes) -> bytes:
        """Gives the reply that lets all waiting agents act.

        Args:
            actions: by behaviour id, row for row as the decisions; agents of a behaviour that is
                missing get zeros.
            side_channel: framed messages to send along.
        """
        encoded = {}
        for behavior_id, behavior in self._behaviors.items():
            num_waiting, behavior.num_waiting = behavior.num_waiting, 0
            given = actions.get(behavior_id)
            if given is not None and len(given) != num_waiting:
                raise ValueError(
                    f"{len(given)} actions given to {num_waiting} agents of {behavior_id!r} that "
                    f"wait in simulator {self._simulator}"
                )
            if num_waiting:
                encoder = behavior.encoder
                encoded[behavior_id] = (
                    encoder.encode(given) if given else encoder.zeros(num_waiting)
                )
        return codec.encode_answer(encoded, side_channel)

    def reset(self, side_channel: bytes) -> bytes:
        """Gives the reply that makes the simulator begin all episodes anew."""
        self.phase = Phase.STEPPING
        for behavior in self._behaviors.values():
            behavior.num_waiting = 0
        return codec.encode_answer({}, side_channel, is_reset=True)


def _decode(data: bytes, decoders: Mapping[str, AgentDecoder]) -> Tables:
    """Decodes those agent lists of a message that have a decoder here."""
    agent_infos = codec.parse_message(data).unity_output.rl_output.agent_infos
    return {
        behavior_id: decoder.decode(agent_infos[behavior_id])
        for behavior_id, decoder in decoders.items()
        if behavior_id in agent_infos
    }


def _split(table: AgentTable) -> tuple[AgentTable | None, AgentTable | None]:
    """Gives the agents whose episode is over, and those that ask for a decision."""
    done = table.done
    if done is None or not done.any():
        return None, table
    ended, going = done.nonzero()[0], (~done).nonzero()[0]
    return _rows(table, ended), _rows(table, going) if len(going) else None


def _rows(table: AgentTable, rows: Int64) -> AgentTable:
    """Gives some rows of a table, as copies."""

    def pick(column: Bool | None) -> Bool | None:
        return None if column is None else column[rows]

    return AgentTable(
        tuple(column[rows] for column in table.obs),
        table.reward[rows],
        table.group_reward[rows],
        pick(table.done),
        pick(table.max_step_reached),
        table.agent_id[rows],
        table.group_id[rows],
        pick(table.action_mask),
    )


def require_compatible(output: UnityRLInitializationOutputProto) -> None:
    """Raises WrongProtocolError unless the simulator's protocol has our major version."""
    found = output.communication_version
    parts = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?((?:a|b)\d+)?", found)
    expected = COMMUNICATION_VERSION.split(".")
    if parts is None or parts[1] != expected[0]:
        raise WrongProtocolError(
            f"speaks protocol {found!r} (package {output.package_version!r}), this trainer speaks "
            f"{COMMUNICATION_VERSION}; the first numbers must agree. Install a "
            "com.unity.ml-agents package of release 1.0 or newer in Unity and build again."
        )
