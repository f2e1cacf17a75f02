"""A simulator that simulates nothing: ready-made messages, for measuring trainers.

    python -m envs.testing.null --observations 243 --continuous 39 --agents 10 --mlagents-port P

`--observations 8 --continuous 2 --agents 12` has the shape of Unity's 3DBall. As an executable for
a trainer that wants a file, see `write_executable`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from envs.bridge.arguments import parse_simulator_arguments
from envs.bridge.client import TrainerClosedError, TrainerConnection, brain, step_message
from envs.bridge.proto.communicator_pb2 import BrainParametersProto
from envs.bridge.records import FIRST_AGENT_ID, AgentRecords
from envs.spec import vector_sensor

# Different observations in turn, so that a trainer's statistics of them are not degenerate.
NUM_MESSAGES = 16
REWARD = 0.1


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
    ) -> None:
        self._behavior_id = behavior_id
        self._brain = brain(behavior_id, num_continuous, branches)
        self._num_agents = num_agents
        self._episode_length = episode_length
        generator = np.random.default_rng(seed)
        # Rows of agents that go on, then of agents whose episode ends.
        self._records = AgentRecords([vector_sensor("obs", num_observations)], 2 * num_agents)
        self._records.done[num_agents:] = 1
        self._obs = generator.standard_normal(
            (NUM_MESSAGES, 2 * num_agents, num_observations), np.float32
        )
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
        self._records.obs[0][:] = self._obs[0]
        self._records.reward[: self._num_agents] = 0.0
        first = step_message({self._behavior_id: self._records.rows(num_rows)}, brains=brains)
        self._records.reward[: self._num_agents] = REWARD
        self._messages = []
        for obs in self._obs:
            self._records.obs[0][:] = obs
            rows = self._records.rows(self._num_agents)
            self._messages.append(step_message({self._behavior_id: rows}))
        return first


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


def play(connection: TrainerConnection, simulator: NullSimulator) -> None:
    """Plays until the trainer closes, which raises TrainerClosedError."""
    connection.hello()
    request = connection.first_request()
    while True:
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
    )
    with TrainerConnection(options.mlagents_port) as connection:
        try:
            play(connection, simulator)
        except TrainerClosedError:
            return 0
    return 0


def branch_sizes(text: str) -> tuple[int, ...]:
    """Reads `3,2`: the size of every branch; empty for none."""
    parts = [part for part in text.split(",") if part]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected the size of every branch: 3,2")
    return tuple(int(part) for part in parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m envs.testing.null", allow_abbrev=False)
    parser.add_argument("--observations", type=int, default=8, help="length of the observation")
    parser.add_argument("--continuous", type=int, default=0, help="continuous actions")
    parser.add_argument("--branches", type=branch_sizes, default=(), help="such as 3,2")
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--episode-length", type=int, default=1000)
    parser.add_argument("--behavior", default="Null?team=0", metavar="ID")
    return parser


if __name__ == "__main__":
    sys.exit(main())
