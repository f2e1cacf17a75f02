"""The simulator's side of the protocol: dials the trainer and makes Exchange calls.

Unity builds have this in C#; our own simulators (envs/gym, envs/testing) use this one.
Letters: N agents that wait for an action, C continuous action size, K discrete branches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from envs.batch import Choices, Float32, Int32
from envs.bridge.assignments import Assignment, decode_assignment, encode_choices
from envs.bridge.http2_client import (
    CallError,
    TrainerAddress,
    UnaryConnection,
    UnauthenticatedError,
)
from envs.bridge.proto.columns_pb2 import AgentActions, Message, Output, RLOutput
from envs.bridge.proto.communicator_pb2 import (
    RESET,
    BrainParametersProto,
    HeaderProto,
    UnityRLCapabilitiesProto,
    UnityRLInitializationOutputProto,
)
from envs.bridge.protocol import (
    COMMUNICATION_VERSION,
    EXCHANGE,
    PACKAGE_VERSION,
    STATUS_CLOSING,
    STATUS_OK,
)
from envs.errors import BadDataError, SimulatorDidNotStartError, WrongProtocolError
from envs.tls import LOOPBACK, DoorError, address_words

ACADEMY = "AcademySingleton"  # what Unity calls itself; some trainers look for it
CAPABILITIES = UnityRLCapabilitiesProto(
    baseRLCapabilities=True,
    concatenatedPngObservations=True,
    compressedChannelMapping=True,
    hybridActions=True,
    trainingAnalytics=False,
    variableLengthObservation=True,
    multiAgentGroups=True,
)


class TrainerClosedError(Exception):
    """The trainer said goodbye or is gone; a simulator then ends quietly."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The trainer's answer to the first call."""

    seed: int
    num_areas: int  # copies of the training area; 0 from trainers that do not know of them
    communication_version: str
    package_version: str

    @property
    def has_channels_last(self) -> bool:
        """Whether the trainer wants images as (H, W, C), as ML-Agents did before its 1.0."""
        return self.package_version.split(".")[0] == "0"


@dataclass(frozen=True, slots=True)
class Request:
    """The trainer's answer to any later call: what the simulator is to do next."""

    is_reset: bool
    side_channel: bytes
    _actions: Mapping[str, bytes] = field(repr=False)
    assignment: Assignment | None = None  # instead of actions, if we said that we can act

    def actions(
        self, behavior_id: str, num_agents: int, num_continuous: int, num_branches: int
    ) -> tuple[Float32, Int32]:
        """Gives the actions of a behaviour's waiting agents, (N, C) and (N, K), in their order.

        Raises:
            BadDataError: not one action for each agent, or actions of another size.
        """
        rows = AgentActions.FromString(self._actions.get(behavior_id, b"")).value
        continuous = np.frombuffer(b"".join([row.continuous_actions for row in rows]), "<f4")
        discrete = np.array([i for row in rows for i in row.discrete_actions], np.int32)
        expected = (num_agents, num_agents * num_continuous, num_agents * num_branches)
        if (len(rows), continuous.size, discrete.size) != expected:
            raise BadDataError(
                f"The trainer answered {behavior_id} with {len(rows)} actions holding "
                f"{continuous.size} continuous and {discrete.size} discrete numbers; "
                f"{num_agents} agents wait for {num_continuous} continuous numbers and "
                f"{num_branches} branches each. Trainer and simulator disagree about the "
                f"behaviour: is this trainer meant for this environment?"
            )
        return (
            continuous.reshape(num_agents, num_continuous),
            discrete.reshape(num_agents, num_branches),
        )


@dataclass(frozen=True, slots=True)
class PlayedStep:
    """One env_step that a simulator made by itself."""

    choices: Choices  # that led to it
    agents: bytes  # a serialised ListAgentInfoProto
    side_channel: bytes


class TrainerConnection:
    """A connection to the trainer."""

    def __init__(self, trainer: int | TrainerAddress, connect_timeout_s: float = 60.0) -> None:
        """Dials the trainer; waits up to `connect_timeout_s` until it listens.

        Args:
            trainer: a port of this machine, or an address anywhere.
            connect_timeout_s: for the connection, and as long again for TLS.

        Raises:
            SimulatorDidNotStartError: nothing listens there, or it is not the trainer.
        """
        address = TrainerAddress(LOOPBACK, trainer) if isinstance(trainer, int) else trainer
        self._address = address_words(address.host, address.port)
        try:
            self._connection = UnaryConnection(
                address.host,
                address.port,
                EXCHANGE,
                connect_timeout_s,
                trust=address.trust,
                token=address.token,
            )
        except DoorError as error:
            raise SimulatorDidNotStartError(f"The trainer at {self._address}: {error}") from None
        except OSError as error:
            advice = (
                "This program is started by a trainer (ppo-train --env ...), which passes "
                "--mlagents-port; has it ended meanwhile?"
                if isinstance(trainer, int)
                else "Start ppo-train there with --host, and let its port through the firewall."
            )
            raise SimulatorDidNotStartError(
                f"No trainer listens on {self._address} ({error}); waited {connect_timeout_s:g} s. "
                f"{advice}"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def exchange_bytes(self, message: bytes) -> bytes:
        """Sends one message and waits, without limit, for the trainer's answer.

        Raises:
            TrainerClosedError: the connection broke.
            SimulatorDidNotStartError: the trainer wants another token.
        """
        try:
            return self._connection.call(message)
        except UnauthenticatedError as error:
            raise SimulatorDidNotStartError(
                f"The trainer at {self._address} does not let us in: {error}"
            ) from None
        except CallError as error:
            raise TrainerClosedError(f"connection to the trainer lost: {error}") from None

    def exchange(self, message: bytes) -> Message:
        """Like `exchange_bytes`, with the answer read and its status checked.

        Raises:
            TrainerClosedError: the connection broke, or the trainer said goodbye.
        """
        answer = Message.FromString(self.exchange_bytes(message))
        if answer.header.status != STATUS_OK:
            raise TrainerClosedError(f"the trainer closed (status {answer.header.status})")
        return answer

    def hello(
        self,
        communication_version: str = COMMUNICATION_VERSION,
        package_version: str = PACKAGE_VERSION,
        *,
        can_act: bool = False,
    ) -> Welcome:
        """Makes the first call, which tells both sides' versions.

        Args:
            communication_version: of the protocol.
            package_version: of the Unity package.
            can_act: whether we take assignments.

        Raises:
            TrainerClosedError: the trainer is gone, or refuses us.
            WrongProtocolError: the trainer speaks another major version.
        """
        introduction = UnityRLInitializationOutputProto(
            name=ACADEMY,
            communication_version=communication_version,
            package_version=package_version,
            capabilities=CAPABILITIES,
        )
        message = Message(
            header=HeaderProto(status=STATUS_OK),
            unity_output=Output(rl_initialization_output=introduction, can_act=can_act),
        )
        answer = self.exchange(message.SerializeToString())
        welcome = answer.unity_input.rl_initialization_input
        if welcome.communication_version.split(".")[0] != COMMUNICATION_VERSION.split(".")[0]:
            raise WrongProtocolError(
                f"The trainer speaks protocol version {welcome.communication_version!r}, this "
                f"simulator speaks {COMMUNICATION_VERSION}. Use a trainer of the same major "
                f"version: ppo-train, or mlagents 0.28 to 1.1."
            )
        return Welcome(
            welcome.seed,
            welcome.num_areas,
            welcome.communication_version,
            welcome.package_version,
        )

    def first_request(self) -> Request:
        """Makes the second call, which is empty; waits until the trainer is set up."""
        return self.request(Message(header=HeaderProto(status=STATUS_OK)).SerializeToString())

    def request(self, message: bytes) -> Request:
        """Tells the trainer what the agents see, and waits for what they are to do."""
        answer = self.exchange(message).unity_input
        order = answer.rl_input
        assignment = None
        if answer.HasField("assignment"):
            assignment = decode_assignment(answer.assignment)
        return Request(order.command == RESET, order.side_channel, order.agent_actions, assignment)

    def say_goodbye(self) -> None:
        """Tells the trainer that this simulator ends, as Unity does when Stop is pressed."""
        goodbye = Message(header=HeaderProto(status=STATUS_CLOSING)).SerializeToString()
        try:
            self.exchange(goodbye)
        except TrainerClosedError:
            return


def step_message(
    agents: Mapping[str, bytes],
    side_channel: bytes = b"",
    brains: Sequence[BrainParametersProto] = (),
) -> bytes:
    """Builds the message of one env_step.

    Args:
        agents: behaviour id -> its serialised ListAgentInfoProto, such as `AgentRecords.rows`.
        side_channel: payloads of the side channels, end to end.
        brains: behaviours that are in a message for the first time.
    """
    output = Output(rl_output=RLOutput(agent_infos=agents, side_channel=side_channel))
    if brains:
        output.rl_initialization_output.brain_parameters.extend(brains)
    message = Message(header=HeaderProto(status=STATUS_OK), unity_output=output)
    return message.SerializeToString()


def played_message(behavior_id: str, steps: Sequence[PlayedStep]) -> bytes:
    """Builds the message of all env_steps of an assignment, for the only behaviour there is."""
    output = Output()
    for number, step in enumerate(steps, start=1):
        target = output if number == len(steps) else output.played.add()
        target.choices[behavior_id].CopyFrom(encode_choices(step.choices))
        target.rl_output.agent_infos[behavior_id] = step.agents
        target.rl_output.side_channel = step.side_channel
    message = Message(header=HeaderProto(status=STATUS_OK), unity_output=output)
    return message.SerializeToString()


def brain(behavior_id: str, num_continuous: int, branches: Sequence[int]) -> BrainParametersProto:
    """Describes a behaviour's actions, as its first message has to."""
    parameters = BrainParametersProto(brain_name=behavior_id, is_training=True)
    parameters.action_spec.num_continuous_actions = num_continuous
    parameters.action_spec.num_discrete_actions = len(branches)
    parameters.action_spec.discrete_branch_sizes.extend(branches)
    return parameters
