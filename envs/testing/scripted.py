"""A simulator that misbehaves, or behaves in a rare way, as its script says.

    python -m envs.testing.scripted --script crash-mid-episode --at 5 --mlagents-port P

Its agents observe (agent * 100 + env_step, the env_step of `--at`) and get the first of these as
reward, so that a mix-up of agents or steps shows. They act with one continuous number and a branch
of 3.
"""

from __future__ import annotations

import argparse
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.bridge import images
from envs.bridge.arguments import parse_simulator_arguments
from envs.bridge.client import TrainerClosedError, TrainerConnection, brain, step_message
from envs.bridge.http2 import Flag, Frame, frame
from envs.bridge.proto.communicator_pb2 import (
    NONE,
    PNG,
    AgentInfoProto,
    ObservationProto,
    UnityRLOutputProto,
)
from envs.bridge.protocol import COMMUNICATION_VERSION
from envs.errors import SimulatorError

BEHAVIOR = "Scripted?team=0"
LATE_BEHAVIOR = "Late?team=0"
NUM_CONTINUOUS = 1
BRANCHES = (3,)
IDS_PER_AGENT = 10_000  # an agent's episodes are numbered from its number times this
BIG_OBSERVATION = 1_200_000  # floats; 4.8 MB, more than gRPC lets through unasked
CAMERA = (3, 6, 8)  # channels, height, width
AWAKE_AT_MOST_S = 600.0
SLOW_STEP_S = 0.2
NUM_FLOODED = 3_000

Agents = dict[str, list[AgentInfoProto]]  # by behaviour id


@dataclass(slots=True)
class Stage:
    """Where the play stands: everything a script looks at."""

    num_agents: int
    at: int  # the env_step at which a script does what it is there for
    exit_code: int
    connection: TrainerConnection
    step: int = 0
    num_resets: int = 0

    def agent(self, agent: int, *, done: bool = False, episode: int = 0) -> AgentInfoProto:
        """Gives what agent `agent` reports now; `episode` counts its episodes since the reset."""
        number = agent * 100 + self.step
        info = AgentInfoProto(
            id=agent * IDS_PER_AGENT + self.num_resets * 1000 + episode, reward=number, done=done
        )
        observation = info.observations.add(shape=[2], name="number")
        observation.float_data.data.extend((number, self.at))
        return info

    def everyone(self) -> Agents:
        """Every agent asks for a decision."""
        return {BEHAVIOR: [self.agent(agent) for agent in range(self.num_agents)]}


Script = Callable[[Stage], Agents | bytes]


def healthy(stage: Stage) -> Agents:
    """All agents ask at every env_step, in an episode without end."""
    return stage.everyone()


def crash_mid_episode(stage: Stage) -> Agents:
    """The process ends without a word."""
    if stage.step >= stage.at:
        print("Scripted crash: the simulator's last words", file=sys.stderr, flush=True)
        os._exit(stage.exit_code)
    return stage.everyone()


def lost_display(stage: Stage) -> Agents:
    """The X server goes away, so Xlib ends the process, with these words."""
    if stage.step >= stage.at:
        words = 'XIO:  fatal IO error 11 (Resource temporarily unavailable) on X server ":99"'
        print(words, file=sys.stderr, flush=True)
        os._exit(1)
    return stage.everyone()


def slow(stage: Stage) -> Agents:
    """Every env_step takes long, but not too long."""
    time.sleep(SLOW_STEP_S)  # the slowness is the point
    return stage.everyone()


def flood(stage: Stage) -> Agents:
    """Calls without end come before the trainer has answered the first one."""
    if stage.step >= stage.at:
        wire = stage.connection._connection
        message = encoded(stage.everyone(), {BEHAVIOR})
        body = struct.pack(">BI", 0, len(message)) + message
        with suppress(OSError):  # the trainer hangs up
            for number in range(NUM_FLOODED):
                stream = wire._stream + 2 * (number + 1)
                head = frame(Frame.HEADERS, Flag.END_HEADERS, stream, wire._request_headers)
                wire._socket.sendall(head + frame(Frame.DATA, Flag.END_STREAM, stream, body))
        os._exit(stage.exit_code)
    return stage.everyone()


def silent(stage: Stage) -> Agents:
    """The process lives on but makes no further call."""
    if stage.step >= stage.at:
        threading.Event().wait(AWAKE_AT_MOST_S)
    return stage.everyone()


def garbage(stage: Stage) -> Agents | bytes:
    """The message is not protobuf."""
    return b"\xff" * 40 if stage.step >= stage.at else stage.everyone()


def garbage_agents(stage: Stage) -> Agents | bytes:
    """The message is protobuf, but the list of agents in it is not."""
    if stage.step < stage.at:
        return stage.everyone()
    return step_message({BEHAVIOR: b"\x0a\x7f\xff\xff"})


def late_behavior(stage: Stage) -> Agents:
    """A second behaviour appears in the middle of the run."""
    agents = stage.everyone()
    if stage.step >= stage.at:
        agents[LATE_BEHAVIOR] = [stage.agent(stage.num_agents)]
    return agents


def terminal_with_decision(stage: Stage) -> Agents:
    """Episodes of `at` env_steps; an ended agent is in the message twice, the end first.

    Odd agents are cut short. At the very first env_step there is also the end of an agent that
    never asked for anything.
    """
    agents = []
    episode, age = divmod(stage.step, stage.at)
    for agent in range(stage.num_agents):
        if age == 0 and episode > 0:
            last = stage.agent(agent, done=True, episode=episode - 1)
            last.max_step_reached = agent % 2 == 1
            agents.append(last)
        agents.append(stage.agent(agent, episode=episode))
    if stage.step == 0:
        agents.append(stage.agent(stage.num_agents, done=True))
    return {BEHAVIOR: agents}


def unsynchronised(stage: Stage) -> Agents:
    """Agent i asks at every (i + 2)-th env_step only; at many env_steps nobody asks."""
    asking = [i for i in range(stage.num_agents) if stage.step % (i + 2) == 0]
    return {BEHAVIOR: [stage.agent(agent) for agent in asking]}


def nan(stage: Stage) -> Agents:
    """One observation is not a number."""
    agents = stage.everyone()
    if stage.step >= stage.at:
        agents[BEHAVIOR][-1].observations[0].float_data.data[1] = float("nan")
    return agents


def nan_episodes(stage: Stage) -> Agents:
    """Episodes of `at` env_steps; behind the first the last agent's begin without a number."""
    agents = terminal_with_decision(stage)
    if stage.step and stage.step % stage.at == 0:
        agents[BEHAVIOR][-1].observations[0].float_data.data[1] = float("nan")
    return agents


def infinite_reward(stage: Stage) -> Agents:
    """One reward is infinite."""
    agents = stage.everyone()
    if stage.step >= stage.at:
        agents[BEHAVIOR][-1].reward = float("inf")
    return agents


def other_shape(stage: Stage) -> Agents:
    """An observation changes its shape in the middle of the run."""
    agents = stage.everyone()
    if stage.step >= stage.at:
        observation = agents[BEHAVIOR][-1].observations[0]
        observation.shape[:] = [3]
        observation.float_data.data.append(0.0)
    return agents


def big_message(stage: Stage) -> Agents:
    """The message is larger than gRPC's usual limit of 4 MiB."""
    agents = {BEHAVIOR: [stage.agent(0)]}
    observation = agents[BEHAVIOR][0].observations[0]
    observation.shape[:] = [BIG_OBSERVATION]
    observation.float_data.data.extend([0.25] * (BIG_OBSERVATION - 2))
    return agents


def camera(pixels: np.ndarray[Any, np.dtype[np.uint8]], shape: Sequence[int]) -> ObservationProto:
    """Gives the observation of a camera that sends PNG; `pixels` (H, W, 3)."""
    return ObservationProto(
        shape=shape,
        dimension_properties=[1, 2, 2],
        compression_type=PNG,
        compressed_data=images.encode(pixels),
        name="camera",
    )


def cameras(stage: Stage) -> Agents:
    """Every agent has a camera, whose pixels are all the number it observes, modulo 256."""
    agents = stage.everyone()
    for info in agents[BEHAVIOR]:
        level = int(info.reward) % 256
        pixels = np.full((*CAMERA[1:], CAMERA[0]), level, np.uint8)
        info.observations.append(camera(pixels, CAMERA))
    return agents


def with_bad_image(stage: Stage, spoil: Callable[[ObservationProto], object]) -> Agents:
    """The last agent's image is spoilt in the middle of the run."""
    agents = cameras(stage)
    if stage.step >= stage.at:
        spoil(agents[BEHAVIOR][-1].observations[1])
    return agents


def truncated_image(stage: Stage) -> Agents:
    """An image is cut off."""

    def spoil(observation: ObservationProto) -> None:
        observation.compressed_data = observation.compressed_data[:-20]

    return with_bad_image(stage, spoil)


def other_image_size(stage: Stage) -> Agents:
    """An image has another size than the sensor says."""
    other = camera(np.zeros((CAMERA[1] + 1, CAMERA[2], 3), np.uint8), CAMERA)
    return with_bad_image(stage, lambda observation: observation.CopyFrom(other))


def wrong_mapping(stage: Stage) -> Agents:
    """An image's channel mapping leaves a channel out."""
    return with_bad_image(
        stage, lambda observation: observation.compressed_channel_mapping.extend([0, 2, 2])
    )


def image_turns_raw(stage: Stage) -> Agents:
    """A compressed sensor sends plain numbers in the middle of the run."""

    def spoil(observation: ObservationProto) -> None:
        observation.compression_type = NONE
        observation.float_data.data.extend([0.5] * math.prod(CAMERA))

    return with_bad_image(stage, spoil)


def unknown_sensor(stage: Stage) -> Agents:
    """There is a sensor of a kind that ML-Agents does not have."""
    agents = stage.everyone()
    for info in agents[BEHAVIOR]:
        info.observations.add(shape=[2, 2], name="matrix").float_data.data.extend([0.0] * 4)
    return agents


def goodbye(stage: Stage) -> Agents:
    """The simulator closes in good order, as the Editor does when Stop is pressed."""
    if stage.step >= stage.at:
        stage.connection.say_goodbye()
        raise TrainerClosedError("said goodbye")
    return stage.everyone()


SCRIPTS: Mapping[str, Script] = {
    "healthy": healthy,
    "crash-mid-episode": crash_mid_episode,
    "lost-display": lost_display,
    "slow": slow,
    "flood": flood,
    "silent": silent,
    "garbage": garbage,
    "garbage-agents": garbage_agents,
    "late-behavior": late_behavior,
    "terminal-with-decision": terminal_with_decision,
    "unsynchronised": unsynchronised,
    "nan": nan,
    "nan-episodes": nan_episodes,
    "infinite-reward": infinite_reward,
    "other-shape": other_shape,
    "big-message": big_message,
    "cameras": cameras,
    "truncated-image": truncated_image,
    "other-image-size": other_image_size,
    "wrong-mapping": wrong_mapping,
    "image-turns-raw": image_turns_raw,
    "unknown-sensor": unknown_sensor,
    "goodbye": goodbye,
    # These differ before the first env_step, in `main`.
    "wrong-version": healthy,
    "slow-start": healthy,
    "exit-code": healthy,
}


def play(stage: Stage, script: Script) -> None:
    """Plays until the trainer closes, which raises TrainerClosedError."""
    request = stage.connection.first_request()
    waiting: dict[str, int] = {}  # behaviour id -> agents that asked in the last message
    known: set[str] = set()
    while True:
        if request.is_reset:
            stage.step = 0
            stage.num_resets += 1
        else:
            for behavior_id, num_agents in waiting.items():
                request.actions(behavior_id, num_agents, NUM_CONTINUOUS, len(BRANCHES))
        told = script(stage)
        if isinstance(told, bytes):
            message = told
        else:
            waiting = {name: sum(not info.done for info in told[name]) for name in told}
            message = encoded(told, known)
            known.update(name for name in told if told[name])
        stage.step += 1
        request = stage.connection.request(message)


def encoded(agents: Agents, known: set[str]) -> bytes:
    """Gives the message, with the brains of behaviours that are not yet known."""
    return step_message(
        {
            name: UnityRLOutputProto.ListAgentInfoProto(value=infos).SerializeToString()
            for name, infos in agents.items()
        },
        brains=[
            brain(name, NUM_CONTINUOUS, BRANCHES)
            for name, infos in agents.items()
            if infos and name not in known
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays the script; gives the process's exit code."""
    options = parse_simulator_arguments(_parser(), sys.argv[1:] if arguments is None else arguments)
    if options.script == "exit-code":
        print("Scripted end before dialling", file=sys.stderr)
        return int(options.exit_code)
    if options.script == "slow-start":
        time.sleep(options.delay_s)  # the slowness is the point
    version = "2.0.0" if options.script == "wrong-version" else COMMUNICATION_VERSION
    try:
        with TrainerConnection(options.mlagents_port) as connection:
            connection.hello(communication_version=version)
            stage = Stage(options.agents, options.at, options.exit_code, connection)
            play(stage, SCRIPTS[options.script])
    except TrainerClosedError:
        return 0
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m envs.testing.scripted", allow_abbrev=False)
    parser.add_argument("--script", choices=SCRIPTS, required=True)
    parser.add_argument("--at", type=int, default=5, help="env_step at which it happens")
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--exit-code", type=int, default=3)
    parser.add_argument("--delay-s", type=float, default=2.0, help="of slow-start")
    return parser


if __name__ == "__main__":
    sys.exit(main())
