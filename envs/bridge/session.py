"""One simulator's conversation: handshake, then step after step.

The session reads and writes messages; it knows nothing of sockets, processes or time.

Letters: N agents of a message.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from envs.batch import Actions, Choices, Decisions, Int32, Int64, Terminals
from envs.bridge import assignments, codec, images, limits
from envs.bridge.agent_rows import rows_of, some_rows, split
from envs.bridge.assignments import Assignment
from envs.bridge.bad_numbers import DroppedEpisode, IgnoredAgents, Sifted
from envs.bridge.codec import ActionEncoder, AgentDecoder, AgentTable, Tables
from envs.bridge.greeting import greeting, require_compatible
from envs.bridge.outline import UNREADABLE
from envs.bridge.plan import MAX_PLANS
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import (
    BrainParametersProto,
    UnityRLInitializationOutputProto,
)
from envs.bridge.protocol import DIMENSION_PROPERTIES_SINCE, STATUS_CLOSING, STATUS_OK
from envs.bridge.side_channels import Inbox, StatsMessage
from envs.bridge.simulator_message import NOTHING, SimulatorMessage
from envs.bridge.wire_spec import build_spec
from envs.errors import BadDataError, SimulatorClosedError
from envs.lanes import NOBODY, AgentLanes, LaneTable
from envs.spec import BehaviorSpec, parse_behavior_id

_logger = logging.getLogger(__name__)

UNHEARD_MESSAGES = 1000  # in a row; then a simulator of agents that are not heard starts anew


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
    ignored: IgnoredAgents = field(default_factory=IgnoredAgents)
    constants: dict[int, tuple[Int32, Int32]] = field(default_factory=dict)


class _Part(NamedTuple):
    """What one behaviour has in a message."""

    behavior_id: str
    behavior: _Behavior
    ended: AgentTable | None
    going: AgentTable | None

    def drop(
        self, offences: Mapping[tuple[str, int], str], table: AgentTable, rows: Int64
    ) -> list[DroppedEpisode]:
        """Ends the lanes of agents that have just sent what is not finite."""
        name = parse_behavior_id(self.behavior_id).name
        dropped = []
        for agent_id in table.agent_id[rows]:
            lanes = self.behavior.lanes.of_terminals(np.array([agent_id], np.int32))
            text = offences[self.behavior_id, int(agent_id)]
            dropped.append(DroppedEpisode(name, int(agent_id), text, lanes[lanes != NOBODY]))
        return dropped


class Session:
    """Reads one simulator's messages and writes the answers.

    Args:
        simulator: its number.
        lanes: shared by all simulators.
        max_bad_episodes: to drop because of NaN or infinite numbers; -1 = any number.
    """

    def __init__(self, simulator: int, lanes: LaneTable, max_bad_episodes: int = 0) -> None:
        self.phase = Phase.GREETING
        self.can_act = False  # whether it takes assignments: its greeting says so
        self._num_assigned = 0  # env_steps that its next message holds; 0 = it does not act
        self._acting: frozenset[str] = frozenset()  # behaviours whose agents waited for it
        self._simulator = simulator
        self._lanes = lanes
        self._inbox = Inbox()
        self._brains: dict[str, BrainParametersProto] = {}
        self._behaviors: dict[str, _Behavior] = {}
        self._held_behaviors: dict[str, BehaviorSpec] = {}
        self._held_stats: tuple[StatsMessage, ...] = ()
        self._max_bad_episodes = max_bad_episodes
        self._num_bad_episodes = 0
        self._num_unheard = 0  # messages in a row in which nobody but ignored agents asked
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
        minor_version = require_compatible(output)
        _logger.info(
            "Connected to Unity environment with package version %s and communication version %s "
            "(simulator %d)",  # ML-Agents' words, for programs that read them
            output.package_version,
            output.communication_version,
            self._simulator,
        )
        self._remember_brains(output)
        self.can_act = message.unity_output.can_act
        self._has_dimension_properties = minor_version >= DIMENSION_PROPERTIES_SINCE
        self.phase = Phase.OPENING
        return greeting(seed, num_areas)

    def decode_ahead(self, data: bytes) -> Future[list[Tables]] | None:
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
        return images.pool().submit(codec.decode_lists, data, decoders, max(1, self._num_assigned))

    def step(
        self, message: columns_pb2.Message, ahead: Future[list[Tables]] | None = None
    ) -> SimulatorMessage:
        """Decodes the agents of a message and gives them lanes.

        Args:
            message: from `parse`.
            ahead: from `decode_ahead`; waits until it is done.

        Raises:
            BadDataError: see AgentDecoder.decode; or too many episodes had to be dropped.
            UnsupportedSpaceError: a new behaviour has a sensor of an unknown kind.
        """
        output = message.unity_output
        self._meet_brains(output)
        if not self._num_assigned and not output.played and not output.choices:
            decoded: Tables = {} if ahead is None else ahead.result()[-1]
            return self._hear(output.rl_output, None, decoded)  # the usual case
        assignments.require_as_assigned(output, self._num_assigned, self._acting)
        tables = ahead.result() if ahead else [{}] * (len(output.played) + 1)
        earlier = tuple(
            self._hear(played.rl_output, played.choices, decoded)
            for played, decoded in zip(output.played, tables[:-1], strict=True)
        )
        last = self._hear(output.rl_output, output.choices, tables[-1])
        self._num_assigned = 0
        for behavior in self._behaviors.values():
            behavior.decoder.num_lists = 1
        return last._replace(earlier=earlier) if earlier else last

    def _hear(
        self,
        output: columns_pb2.RLOutput,
        chosen: Mapping[str, columns_pb2.Choices] | None,
        decoded: Tables,
    ) -> SimulatorMessage:
        """Decodes what is not yet of one env_step, and what was chosen at the simulator before."""
        choices = NOTHING if chosen is None else self._choices(chosen)
        decisions: dict[str, Decisions] = {}
        terminals: dict[str, Terminals] = {}
        new_behaviors, self._held_behaviors = self._held_behaviors, {}
        stats, self._held_stats = self._held_stats, ()
        # Everything that can go wrong comes first: a simulator that is lost because of bad data
        # must still hold the lanes of all agents that the trainer knows.
        parts: list[_Part] = []
        sifted: list[Sifted | None] = []
        for behavior_id, behavior, table in self._tables(output, new_behaviors, decoded):
            ended, going = split(table)
            if going is not None:
                behavior.lanes.require_unique(going.agent_id)
            parts.append(_Part(behavior_id, behavior, ended, going))
            sifted.append(behavior.ignored.sift(ended, going))
        offences = self._offences(parts, sifted) if any(sifted) else {}
        side_channel = output.side_channel
        if side_channel:
            stats += self._inbox.read(side_channel)
        dropped: list[DroppedEpisode] = []
        for part, left in zip(parts, sifted, strict=True):
            ended, going, behavior = part.ended, part.going, part.behavior
            if left is not None and ended is not None:
                dropped += part.drop(offences, ended, left.bad_ended)
                ended = some_rows(ended, left.ended)
            # Terminals first, so that an id used again for the next episode gets a new lane.
            if ended is not None:
                self._add_terminals(terminals, part.behavior_id, behavior, ended)
            num_waiting = 0 if going is None else len(going.reward)
            if left is not None and going is not None:
                dropped += part.drop(offences, going, left.bad_going)
                going = some_rows(going, left.going)
            if going is not None:
                self._add_decisions(decisions, part.behavior_id, behavior, going)
            if left is not None:
                behavior.num_waiting = num_waiting
                behavior.ignored = IgnoredAgents(left.ignored, left.going)
        self._num_unheard = 0 if decisions else self._still_unheard(parts)
        return SimulatorMessage(
            self._simulator, new_behaviors, decisions, terminals, stats, tuple(dropped), choices
        )

    def _offences(
        self, parts: list[_Part], sifted: list[Sifted | None]
    ) -> dict[tuple[str, int], str]:
        """Counts the episodes to drop; gives what their agents did, by behaviour id and agent.

        Raises:
            BadDataError: there have been too many.
        """
        found: dict[tuple[str, int], str] = {}
        for part, left in zip(parts, sifted, strict=True):
            if left is None:
                continue
            for table, rows in ((part.ended, left.bad_ended), (part.going, left.bad_going)):
                for row in rows.tolist():
                    assert table is not None
                    words = part.behavior.decoder.words_for_bad(table, row)
                    found[part.behavior_id, int(table.agent_id[row])] = words
                    self._num_bad_episodes += 1
                    if 0 <= self._max_bad_episodes < self._num_bad_episodes:
                        limit = f"{self._max_bad_episodes} (env_settings.max_bad_episodes)"
                        raise BadDataError(f"{words} Episodes dropped before it: {limit}.")
        return found

    def _still_unheard(self, parts: Sequence[_Part]) -> int:
        """Counts messages in which nobody is heard; BadDataError when it is for too long."""
        if all(part.going is None for part in parts):
            return self._num_unheard
        if self._num_unheard + 1 >= UNHEARD_MESSAGES:
            raise BadDataError(
                f"{UNHEARD_MESSAGES} messages in a row came only from agents whose episodes were "
                "dropped because of NaN or infinite numbers, and have not ended. Episodes that end "
                "(Max Step) would let them begin anew."
            )
        return self._num_unheard + 1

    def skip(self, message: columns_pb2.Message, ahead: Future[list[Tables]] | None = None) -> None:
        """Drops the agents of a message, because a reset follows, but keeps all other news."""
        self._meet_brains(message.unity_output)
        output = message.unity_output.rl_output
        tables = [] if ahead is None else ahead.result()
        for _ in self._tables(output, self._held_behaviors, tables[-1] if tables else {}):
            pass
        self._held_stats += self._inbox.read(output.side_channel)

    def _tables(
        self,
        output: columns_pb2.RLOutput,
        new_behaviors: dict[str, BehaviorSpec],
        decoded: Tables,
    ) -> list[tuple[str, _Behavior, AgentTable]]:
        """Decodes all agent lists that are not empty, and meets new behaviours."""
        agent_infos = output.agent_infos
        tables = []
        for behavior_id in limits.behavior_ids(agent_infos):
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

    def _meet_brains(self, output: columns_pb2.Output) -> None:
        """Reads what a message says of behaviours that are new."""
        if not output.HasField("rl_initialization_output"):
            return
        if output.rl_initialization_output.communication_version:
            raise BadDataError(
                "it introduces itself again in the middle of the run. Does a second program use "
                "its connection?"
            )
        self._remember_brains(output.rl_initialization_output)

    def _choices(self, chosen: Mapping[str, columns_pb2.Choices]) -> dict[str, Choices]:
        """Reads what the simulator chose for the agents that waited, and lets them wait no more."""
        found = {}
        for behavior_id, behavior in self._behaviors.items():
            num_waiting, behavior.num_waiting = behavior.num_waiting, 0
            if not num_waiting and behavior_id not in chosen:
                continue
            given, spec = chosen.get(behavior_id), behavior.decoder.action_spec
            choices = assignments.decode_choices(behavior_id, given, spec, num_waiting)
            found[behavior_id] = heard = behavior.ignored.pick(choices)
            assignments.require_sound_choices(behavior_id, heard, spec)
        return found

    def _remember_brains(self, output: UnityRLInitializationOutputProto) -> None:
        limits.require_usable_brains(output.brain_parameters, self._brains)
        for brain in output.brain_parameters:
            self._brains[brain.brain_name] = limits.copy_of_brain(brain)

    def _meet(
        self, behavior_id: str, agents: bytes, new_behaviors: dict[str, BehaviorSpec]
    ) -> _Behavior | None:
        """Gets to know a behaviour; None while none of its agents has been seen."""
        brain = self._brains.get(behavior_id)
        if brain is None and not agents:
            return None
        if brain is None:
            raise BadDataError(
                f"agents of behaviour {limits.shown(behavior_id)} came before its brain "
                "parameters; they are expected together. It does not follow the protocol."
            )
        found = build_spec(brain, agents, has_dimension_properties=self._has_dimension_properties)
        if found is None:
            return None
        spec, channels_last = found
        limits.require_usable_spec(behavior_id, spec)
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
        self.can_act = self.can_act and len(self._behaviors) == 1  # nobody acts for two
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
            if len(behavior.constants) >= MAX_PLANS:
                behavior.constants.clear()
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
            table, lanes = rows_of(table, rows), lanes[rows]
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
            given = behavior.ignored.spread(actions.get(behavior_id))
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

    def assign(self, assignment: Assignment, side_channel: bytes) -> bytes:
        """Gives the reply that lets the simulator act for itself; only if it `can_act`."""
        self._num_assigned = assignment.num_steps
        self._acting = frozenset(id for id, one in self._behaviors.items() if one.num_waiting)
        for behavior in self._behaviors.values():
            behavior.decoder.num_lists = assignment.num_steps
        return assignments.encode_assignment(assignment, side_channel)

    @property
    def most_steps(self) -> int:
        """How many env_steps may come in one message without going beyond a limit of size."""
        waiting = [one for one in self._behaviors.values() if one.num_waiting]
        # All may end in each.
        return min((one.decoder.most_steps(2 * one.num_waiting) for one in waiting), default=1)

    def reset(self, side_channel: bytes) -> bytes:
        """Gives the reply that makes the simulator begin all episodes anew."""
        self.phase = Phase.STEPPING
        self._num_assigned = 0
        for behavior in self._behaviors.values():
            behavior.decoder.num_lists = 1
            behavior.num_waiting = 0
            behavior.ignored.forget()
        return codec.encode_answer({}, side_channel, is_reset=True)
