"""A simulator that simulates nothing: ready-made messages, for measuring trainers.

    python -m envs.testing.null --observations 243 --continuous 39 --agents 10 --mlagents-port P

`--observations 8 --continuous 2 --agents 12` has the shape of Unity's 3DBall, `--image 84x84x3` a
camera that sends PNG, and `--step-ms 5` a simulation that takes its time. As an executable for a
trainer that wants a file, see `write_executable`.

Letters: C channels, H height, W width, L sum of branch sizes.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from envs.batch import Uint8
from envs.bridge.arguments import parse_simulator_arguments
from envs.bridge.client import TrainerClosedError, TrainerConnection, brain, step_message
from envs.bridge.proto.communicator_pb2 import BrainParametersProto
from envs.bridge.records import FIRST_AGENT_ID, AgentRecords
from envs.spec import VISUAL, ObservationSpec, ObservationType, vector_sensor

# Different observations in turn, so that a trainer's statistics of them are not degenerate.
NUM_MESSAGES = 16
REWARD = 0.1
# A camera's picture: patches of one colour, so that PNG makes a fifth of it, as of a simple scene.
PATCH_PIXELS = 4
MASKED_CHANCE = 0.2


class _Records(AgentRecords):
    """Records whose pictures are compressed once and not at every episode."""

    def __init__(
        self, sensors: Sequence[ObservationSpec], num_rows: int, num_masked: int = 0
    ) -> None:
        super().__init__(sensors, num_rows, num_masked)
        self._compressed: dict[tuple[str, bytes], bytes] = {}

    def compressed(self, sensor: ObservationSpec, pixels: Uint8) -> bytes:
        key = (sensor.name, pixels[::PATCH_PIXELS, ::PATCH_PIXELS].tobytes())
        if key not in self._compressed:
            self._compressed[key] = super().compressed(sensor, pixels)
        return self._compressed[key]


class NullSimulator:
    """Messages of `num_agents` agents whose episodes all end after `episode_length` decisions."""

    def __init__(
        self,
        behavior_id: str,
        num_observations: int,
        num_continuous: int,
        branches: Sequence[int],
        num_agents: int,
        episode_length: int,
        seed: int = 0,
        *,
        image: tuple[int, int, int] | None = None,
        masked: bool = False,
    ) -> None:
        """Draws what the agents see.

        Args:
            behavior_id: `Name?team=N`.
            num_observations: length of the vector observation; 0 = none.
            num_continuous: continuous actions.
            branches: sizes of the discrete ones.
            num_agents: in every message.
            episode_length: in decisions.
            seed: of the observations.
            image: (H, W, C) of a camera; None = none.
            masked: forbid some of the discrete actions, never the first of a branch.
        """
        self._behavior_id = behavior_id
        self._brain = brain(behavior_id, num_continuous, branches)
        self._num_agents = num_agents
        self._episode_length = episode_length
        generator = np.random.default_rng(seed)
        sensors = [vector_sensor("obs", num_observations)] if num_observations else []
        if image is not None:
            height, width, channels = image
            shape = (channels, height, width)
            camera = ObservationSpec(shape, VISUAL, ObservationType.DEFAULT, "camera", "uint8")
            sensors.append(camera)
        num_masked = sum(branches) if masked else 0
        # Rows of agents that go on, then of agents whose episode ends.
        self._records = _Records(sensors, 2 * num_agents, num_masked)
        self._records.done[num_agents:] = 1
        self._obs = generator.standard_normal(
            (NUM_MESSAGES, 2 * num_agents, num_observations), np.float32
        )
        self._pictures = _pictures(generator, image) if image is not None else None
        forbidden = generator.random((NUM_MESSAGES, 2 * num_agents, num_masked)) < MASKED_CHANCE
        if num_masked:
            forbidden[:, :, np.cumsum([0, *branches[:-1]])] = False
        self._forbidden = forbidden
        self._next_agent_id = FIRST_AGENT_ID
        self._messages: list[bytes] = []
        self._num_steps = 0
        self._has_begun = False

    def reset(self) -> bytes:
        """Begins new episodes and gives their first message."""
        brains = [] if self._has_begun else [self._brain]
        self._has_begun = True
        return self._begin_episodes(num_rows=self._num_agents, brains=brains)

    def step(self) -> bytes:
        """Gives the message of the next env_step."""
        self._num_steps += 1
        if self._num_steps < self._episode_length:
            return self._messages[self._num_steps % NUM_MESSAGES]
        for agent in range(self._num_agents):
            ended = self._next_agent_id - self._num_agents + agent
            self._records.set_agent_id(self._num_agents + agent, ended)
        self._records.reward[self._num_agents :] = REWARD
        return self._begin_episodes(num_rows=2 * self._num_agents)

    def _begin_episodes(self, num_rows: int, brains: Sequence[BrainParametersProto] = ()) -> bytes:
        """Makes the messages of the coming episodes, and gives the one that begins them."""
        self._num_steps = 0
        for agent in range(self._num_agents):
            self._records.set_agent_id(agent, self._next_agent_id + agent)
        self._next_agent_id += self._num_agents
        self._show(0)
        self._records.reward[: self._num_agents] = 0.0
        first = step_message({self._behavior_id: self._records.rows(num_rows)}, brains=brains)
        self._records.reward[: self._num_agents] = REWARD
        self._messages = []
        for number in range(NUM_MESSAGES):
            self._show(number)
            rows = self._records.rows(self._num_agents)
            self._messages.append(step_message({self._behavior_id: rows}))
        return first

    def _show(self, number: int) -> None:
        """Writes the observations and the masks of a message into the records."""
        *vectors, last = self._records.obs
        if self._pictures is not None:
            last[...] = self._pictures[number]  # the same for all agents of a message
        else:
            vectors.append(last)
        for vector in vectors:
            vector[...] = self._obs[number]
        self._records.forbidden[...] = self._forbidden[number]


def _pictures(generator: np.random.Generator, image: tuple[int, int, int]) -> Uint8:
    """Draws a picture for every message, (NUM_MESSAGES, H, W, C)."""
    height, width, channels = image
    patches = (-(-height // PATCH_PIXELS), -(-width // PATCH_PIXELS))
    small = generator.integers(0, 256, (NUM_MESSAGES, *patches, channels), np.uint8)
    large = small.repeat(PATCH_PIXELS, axis=1).repeat(PATCH_PIXELS, axis=2)
    return large[:, :height, :width]


def write_executable(path: Path, arguments: Sequence[str]) -> Path:
    """Writes an executable file that runs this simulator, for trainers that launch a Unity build.

    Args:
        path: where to; mlagents-learn wants the name to end with .x86_64 on Linux.
        arguments: of this program; the trainer adds its own behind them.
    """
    command = shlex.join([sys.executable, "-m", "envs.testing.null", *arguments])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return path


def play(connection: TrainerConnection, simulator: NullSimulator, step_s: float = 0.0) -> None:
    """Plays until the trainer closes, which raises TrainerClosedError.

    Args:
        connection: to the trainer.
        simulator: what to play.
        step_s: how long every env_step takes.
    """
    connection.hello()
    request = connection.first_request()
    while True:
        if step_s:
            time.sleep(step_s)
        request = connection.request(simulator.reset() if request.is_reset else simulator.step())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulator until the trainer closes; gives the process's exit code."""
    options = parse_simulator_arguments(_parser(), sys.argv[1:] if arguments is None else arguments)
    simulator = NullSimulator(
        options.behavior,
        options.observations,
        options.continuous,
        options.branches,
        options.agents,
        options.episode_length,
        image=options.image,
        masked=options.masked,
    )
    with TrainerConnection(options.mlagents_port) as connection:
        try:
            play(connection, simulator, options.step_ms / 1000.0)
        except TrainerClosedError:
            return 0
    return 0


def branch_sizes(text: str) -> tuple[int, ...]:
    """Reads `3,2`: the size of every branch; empty for none."""
    parts = [part for part in text.split(",") if part]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected the size of every branch: 3,2")
    return tuple(int(part) for part in parts)


def image_shape(text: str) -> tuple[int, int, int]:
    """Reads `84x84x3`: height, width and channels of a camera."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected height, width and channels: 84x84x3")
    height, width, channels = map(int, found.groups())
    return height, width, channels


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m envs.testing.null", allow_abbrev=False)
    parser.add_argument("--observations", type=int, default=8, help="their number; 0 = none")
    parser.add_argument("--continuous", type=int, default=0, help="continuous actions")
    parser.add_argument("--branches", type=branch_sizes, default=(), help="such as 3,2")
    parser.add_argument("--image", type=image_shape, help="a camera that sends PNG: 84x84x3")
    parser.add_argument("--masked", action="store_true", help="forbid some discrete actions")
    parser.add_argument("--step-ms", type=float, default=0.0, help="what an env_step takes")
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--episode-length", type=int, default=1000)
    parser.add_argument("--behavior", default="Null?team=0", metavar="ID")
    return parser


if __name__ == "__main__":
    sys.exit(main())
