"""The one-dimensional game of ML-Agents' own learning tests, as a simulator program.

A goal, -1 or 1, is drawn for every episode and is all that the agent sees: every element of every
vector, image and entity is the goal. The agent moves a point along one axis per action dimension,
from 0; when every axis has reached an end the episode is over, and reaching the goal's end pays.
The best return is known: 1.06 less 0.01 for every step but the last. With `--memory` the goal is to
be seen in an episode's first moments only, and is 0 afterwards.

    python -m envs.testing.tiny --actions 1,0 --step-size 0.2 --seed 0 --mlagents-port 5005
    python -m envs.testing.tiny --vectors 0 --images 2 --image-shape 3,36,36 --image-format png ...
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.bridge import images
from envs.bridge.arguments import parse_simulator_arguments
from envs.bridge.client import Request, TrainerClosedError, TrainerConnection, brain, step_message
from envs.bridge.proto.communicator_pb2 import (
    GOAL_SIGNAL,
    PNG,
    AgentInfoProto,
    BrainParametersProto,
    ObservationProto,
    UnityRLOutputProto,
)
from envs.spec import VARIABLE_LENGTH, VECTOR, VISUAL

STEP_REWARD = -0.01
# 1 + 0.01 * (int(1 / 0.2) + 1): with the usual step size a perfect episode returns about 1.
SUCCESS_REWARD = 1.06
STEP_SIZE = 0.2
MEMORY_SIGHT = 2  # with memory: the goal is seen until there have been more moves than this
IMAGE_SHAPE = (3, 20, 20)
ENTITIES_SHAPE = (10, 5)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one env_step brought."""

    reward: float
    terminated: bool


class TinyEnv:
    """The game itself, for one agent with `num_continuous` + `num_branches` axes."""

    def __init__(
        self,
        num_continuous: int,
        num_branches: int,
        step_size: float,
        seed: str,
        *,
        needs_memory: bool = False,
    ) -> None:
        if num_continuous + num_branches < 1:
            raise ValueError("a game without a single action dimension")
        self.num_continuous = num_continuous
        self.num_branches = num_branches
        self.step_size = step_size
        self.needs_memory = needs_memory
        self._generator = random.Random(seed)
        self.reset()

    def reset(self) -> None:
        """Puts the point back to 0 and draws another goal."""
        self.goal = self._generator.choice((-1, 1))
        self.positions = [0.0] * (self.num_continuous + self.num_branches)
        self._num_moves = 0  # of single axes

    @property
    def seen(self) -> int:
        """What the agent sees: the goal, or 0 where it has to remember it."""
        return 0 if self.needs_memory and self._num_moves > MEMORY_SIGHT else self.goal

    def step(self, continuous: Sequence[float], discrete: Sequence[int]) -> Outcome:
        """Moves each axis by its action; branch 0 is a step to -1, branch 1 a step to 1."""
        moves = [min(max(move, -self.step_size), self.step_size) for move in continuous]
        moves += [self.step_size if branch else -self.step_size for branch in discrete]
        self.positions = [
            min(max(position + move, -1.0), 1.0)
            for position, move in zip(self.positions, moves, strict=True)
        ]
        self._num_moves += len(moves)
        if any(abs(position) < 1.0 for position in self.positions):
            return Outcome(STEP_REWARD, terminated=False)
        earned = sum(SUCCESS_REWARD * position * self.goal for position in self.positions)
        return Outcome(earned / len(self.positions), terminated=True)

    @property
    def best_return(self) -> float:
        """What the best policy gets in every episode."""
        return SUCCESS_REWARD + STEP_REWARD * (math.ceil(1.0 / self.step_size) - 1)


@dataclass(frozen=True, slots=True)
class TinySensor:
    """A sensor every element of which is what the agent sees: -1, 0 or 1.

    Images that go as PNG are black, grey or white.
    """

    name: str
    shape: tuple[int, ...]  # (n,), (C, H, W) or (entities, size)
    is_png: bool = False
    is_goal_signal: bool = False

    def observation(self, seen: int) -> ObservationProto:
        """Gives the observation."""
        properties = {1: VECTOR, 2: VARIABLE_LENGTH, 3: VISUAL}[len(self.shape)]
        found = ObservationProto(
            shape=self.shape,
            dimension_properties=[int(bits) for bits in properties],
            name=self.name,
        )
        if self.is_goal_signal:
            found.observation_type = GOAL_SIGNAL
        if self.is_png:
            channels, height, width = self.shape
            level = round((seen + 1) * 127.5)
            found.compression_type = PNG
            found.compressed_data = images.encode(
                np.full((height, width, channels), level, np.uint8)
            )
            found.compressed_channel_mapping.extend(images.channel_mapping(channels))
        else:
            found.float_data.data.extend([seen] * math.prod(self.shape))
        return found


def tiny_sensors(
    num_vectors: int = 1,
    num_images: int = 0,
    num_entities: int = 0,
    *,
    image_shape: tuple[int, ...] = IMAGE_SHAPE,
    is_png: bool = False,
    goals: Sequence[int] = (),
) -> list[TinySensor]:
    """Gives vectors, then images, then variable-length observations.

    Args:
        num_vectors: each of a single number.
        num_images: of `image_shape`, (C, H, W).
        num_entities: variable-length observations, each of ten places for entities of five numbers.
        image_shape: of all images.
        is_png: images go as PNG instead of as numbers.
        goals: which of all these, counted from 0, are goal signals.
    """
    shapes = [(f"goal{i}", (1,), False) for i in range(num_vectors)]
    named: list[tuple[str, tuple[int, ...], bool]] = [
        *shapes,
        *[(f"image{i}", image_shape, is_png) for i in range(num_images)],
        *[(f"entities{i}", ENTITIES_SHAPE, False) for i in range(num_entities)],
    ]
    if not named or any(not 0 <= index < len(named) for index in goals):
        raise ValueError(f"{len(named)} sensors, of which {list(goals)} are to be goal signals")
    return [TinySensor(*words, index in goals) for index, words in enumerate(named)]


class TinyAgent:
    """The only agent of one behaviour; builds its messages with plain protobuf objects.

    That is on purpose: tests of the trainer see records of unequal length, as Unity sends them.
    """

    def __init__(self, env: TinyEnv, behavior_id: str, sensors: Sequence[TinySensor]) -> None:
        self.behavior_id = behavior_id
        self._env = env
        self._observations = {
            seen: [sensor.observation(seen) for sensor in sensors] for seen in (-1, 0, 1)
        }
        self._agent_id = 0

    def reset(self) -> UnityRLOutputProto.ListAgentInfoProto:
        """Begins an episode without ending the one before."""
        self._env.reset()
        self._agent_id += 1
        return UnityRLOutputProto.ListAgentInfoProto(value=[self._info(0.0)])

    def step(self, request: Request) -> UnityRLOutputProto.ListAgentInfoProto:
        """Makes one env_step; at the end of an episode the next one begins at once."""
        env = self._env
        continuous, discrete = request.actions(
            self.behavior_id, 1, env.num_continuous, env.num_branches
        )
        outcome = env.step(continuous[0].tolist(), discrete[0].tolist())
        agents = [self._info(outcome.reward, done=outcome.terminated)]
        if outcome.terminated:
            env.reset()
            self._agent_id += 1
            agents.append(self._info(0.0))
        return UnityRLOutputProto.ListAgentInfoProto(value=agents)

    def brain_parameters(self) -> BrainParametersProto:
        """Describes the action space."""
        return brain(self.behavior_id, self._env.num_continuous, [2] * self._env.num_branches)

    def _info(self, reward: float, *, done: bool = False) -> AgentInfoProto:
        observations = self._observations[self._env.seen]
        return AgentInfoProto(
            reward=reward, done=done, id=self._agent_id, observations=observations
        )


def play(connection: TrainerConnection, agents: Sequence[TinyAgent]) -> None:
    """Plays until the trainer closes, which raises TrainerClosedError."""
    request = connection.first_request()
    brains = [agent.brain_parameters() for agent in agents]
    while True:
        lists = {
            agent.behavior_id: (agent.reset() if request.is_reset else agent.step(request))
            for agent in agents
        }
        message = step_message(
            {name: agents.SerializeToString() for name, agents in lists.items()}, brains=brains
        )
        brains = []
        request = connection.request(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulator until the trainer closes; gives the process's exit code."""
    parser = _parser()
    options = parse_simulator_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    num_continuous, num_branches = options.actions
    try:
        sensors = tiny_sensors(
            options.vectors,
            options.images,
            options.entities,
            image_shape=options.image_shape,
            is_png=options.image_format == "png",
            goals=options.goal,
        )
    except ValueError as error:
        parser.error(str(error))
    with TrainerConnection(options.mlagents_port) as connection:
        try:
            welcome = connection.hello()
            seed = welcome.seed if options.seed is None else options.seed
            play(
                connection,
                [
                    TinyAgent(
                        TinyEnv(
                            num_continuous,
                            num_branches,
                            options.step_size,
                            f"{seed} {behavior_id}",
                            needs_memory=options.memory,
                        ),
                        behavior_id,
                        sensors,
                    )
                    for behavior_id in options.behavior or ["1D?team=0"]
                ],
            )
        except TrainerClosedError:
            return 0
    return 0


def action_sizes(text: str) -> tuple[int, int]:
    """Reads `1,0`: continuous dimensions, discrete branches."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or text == "0,0":
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected two numbers, continuous dimensions and discrete branches: 1,0"
        )
    return int(parts[0]), int(parts[1])


def image_shape(text: str) -> tuple[int, ...]:
    """Reads `3,20,20`: channels, height, width."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected channels, height and width of an image: 3,20,20"
        )
    return tuple(int(part) for part in parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m envs.testing.tiny", allow_abbrev=False)
    parser.add_argument(
        "--actions",
        type=action_sizes,
        default=(1, 0),
        help="continuous dimensions, discrete branches; default 1,0",
    )
    parser.add_argument("--step-size", type=float, default=STEP_SIZE)
    parser.add_argument("--vectors", type=int, default=1, help="how many, of one number each")
    parser.add_argument("--images", type=int, default=0, help="how many")
    parser.add_argument("--image-shape", type=image_shape, default=IMAGE_SHAPE, metavar="C,H,W")
    parser.add_argument("--image-format", choices=("raw", "png"), default="raw")
    parser.add_argument("--entities", type=int, default=0, help="variable-length observations")
    parser.add_argument(
        "--goal",
        type=int,
        action="append",
        default=[],
        metavar="INDEX",
        help="a sensor that is a goal signal; vectors come first, then images, then entities",
    )
    parser.add_argument("--memory", action="store_true", help="the goal has to be remembered")
    parser.add_argument("--seed", type=int, help="default: the trainer's")
    parser.add_argument(
        "--behavior", action="append", metavar="ID", help="may be repeated; default 1D?team=0"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
