"""The one-dimensional game of ML-Agents' own learning tests, as a simulator program.

A goal, -1 or 1, is drawn for every episode and is all that the agent sees. It moves a point along
one axis per action dimension, from 0; when every axis has reached an end the episode is over, and
reaching the goal's end pays. The best return is known: 1.06 less 0.01 for every step but the last.
With --recall it sees the goal only at the beginning, as in ML-Agents' tests of memory, then 0.

    python -m envs.testing.tiny --actions 1,0 --step-size 0.2 --seed 0 --mlagents-port 5005
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from envs.bridge.arguments import parse_simulator_arguments
from envs.bridge.client import Request, TrainerClosedError, TrainerConnection, brain, step_message
from envs.bridge.proto.communicator_pb2 import (
    AgentInfoProto,
    BrainParametersProto,
    UnityRLOutputProto,
)

STEP_REWARD = -0.01
# 1 + 0.01 * (int(1 / 0.2) + 1): with the usual step size a perfect episode returns about 1.
SUCCESS_REWARD = 1.06
SHOWN_MOVES = 2  # with --recall: moves, each of one axis, after which the goal is still shown
STEP_SIZE = 0.2


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
        is_recall: bool = False,
    ) -> None:
        if num_continuous + num_branches < 1:
            raise ValueError("a game without a single action dimension")
        self.num_continuous = num_continuous
        self.num_branches = num_branches
        self.step_size = step_size
        self._is_recall = is_recall
        self._generator = random.Random(seed)
        self.reset()

    def reset(self) -> None:
        """Puts the point back to 0 and draws another goal."""
        self.goal = self._generator.choice((-1, 1))
        self.positions = [0.0] * (self.num_continuous + self.num_branches)
        self._num_moves = 0

    @property
    def shown(self) -> int:
        """What the agent sees: the goal, or 0 where it has to remember it."""
        return 0 if self._is_recall and self._num_moves > SHOWN_MOVES else self.goal

    def step(self, continuous: Sequence[float], discrete: Sequence[int]) -> Outcome:
        """Moves each axis by its action; branch 0 is a step to -1, branch 1 a step to 1."""
        moves = [min(max(move, -self.step_size), self.step_size) for move in continuous]
        moves += [self.step_size if branch else -self.step_size for branch in discrete]
        self._num_moves += len(moves)
        self.positions = [
            min(max(position + move, -1.0), 1.0)
            for position, move in zip(self.positions, moves, strict=True)
        ]
        if any(abs(position) < 1.0 for position in self.positions):
            return Outcome(STEP_REWARD, terminated=False)
        earned = sum(SUCCESS_REWARD * position * self.goal for position in self.positions)
        return Outcome(earned / len(self.positions), terminated=True)

    @property
    def best_return(self) -> float:
        """What the best policy gets in every episode."""
        return SUCCESS_REWARD + STEP_REWARD * (math.ceil(1.0 / self.step_size) - 1)


class TinyAgent:
    """The only agent of one behaviour; builds its messages with plain protobuf objects.

    That is on purpose: tests of the trainer see records of unequal length, as Unity sends them.
    """

    def __init__(self, env: TinyEnv, behavior_id: str, num_sensors: int = 1) -> None:
        self.behavior_id = behavior_id
        self._env = env
        self._num_sensors = num_sensors
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
        info = AgentInfoProto(reward=reward, done=done, id=self._agent_id)
        for index in range(self._num_sensors):
            observation = info.observations.add(shape=[1], name=f"goal{index}")
            observation.float_data.data.append(self._env.shown)
        return info


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
    options = parse_simulator_arguments(_parser(), sys.argv[1:] if arguments is None else arguments)
    num_continuous, num_branches = options.actions
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
                            is_recall=options.recall,
                        ),
                        behavior_id,
                        options.sensors,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m envs.testing.tiny", allow_abbrev=False)
    parser.add_argument(
        "--actions",
        type=action_sizes,
        default=(1, 0),
        help="continuous dimensions, discrete branches; default 1,0",
    )
    parser.add_argument("--step-size", type=float, default=STEP_SIZE)
    parser.add_argument("--sensors", type=int, default=1, help="how many, all showing the goal")
    parser.add_argument("--recall", action="store_true", help="show the goal only at first")
    parser.add_argument("--seed", type=int, help="default: the trainer's")
    parser.add_argument(
        "--behavior", action="append", metavar="ID", help="may be repeated; default 1D?team=0"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
