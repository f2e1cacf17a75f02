"""A simulator whose agent sees noise through the sensors of a `run.json`; see make_networks.py.

python noisy_simulator.py run.json --mlagents-port 5005
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from envs.bridge.arguments import parse_simulator_arguments
from envs.bridge.client import TrainerClosedError, TrainerConnection, brain
from envs.bridge.proto.communicator_pb2 import (
    GOAL_SIGNAL,
    AgentInfoProto,
    BrainParametersProto,
    ObservationProto,
)
from envs.spec import VARIABLE_LENGTH, VECTOR, VISUAL
from envs.testing.tiny import STEP_SIZE, TinyAgent, TinyEnv, play


class NoisyAgent(TinyAgent):
    """Plays the one-dimensional game blindly; each vector has a mean and deviation of its own."""

    def __init__(self, run: dict[str, Any]) -> None:
        self._branches = run["branches"]
        env = TinyEnv(run["continuous"], len(self._branches), STEP_SIZE, "0")
        super().__init__(env, "Crab?team=0", [])
        self._sensors = run["sensors"]
        self._chance = np.random.default_rng(1)

    def brain_parameters(self) -> BrainParametersProto:
        """Describes the action space."""
        return brain(self.behavior_id, self._env.num_continuous, self._branches)

    def _info(self, reward: float, *, done: bool = False) -> AgentInfoProto:
        observations = [self._observe(i, **sensor) for i, sensor in enumerate(self._sensors)]
        return AgentInfoProto(
            reward=reward, done=done, id=self._agent_id, observations=observations
        )

    def _observe(self, i: int, name: str, shape: list[int], is_goal: bool) -> ObservationProto:
        noise = self._chance.normal(size=math.prod(shape))
        if len(shape) == 1:
            noise = 10 * i + (1 + i) * noise
        elif len(shape) == 3:
            noise = self._chance.random(len(noise))
        properties = {1: VECTOR, 2: VARIABLE_LENGTH, 3: VISUAL}[len(shape)]
        found = ObservationProto(
            shape=shape, dimension_properties=[int(bits) for bits in properties], name=name
        )
        if is_goal:
            found.observation_type = GOAL_SIGNAL
        found.float_data.data.extend(noise.tolist())
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("run", type=Path)
    options = parse_simulator_arguments(parser, sys.argv[1:])
    with TrainerConnection(options.mlagents_port) as connection:
        try:
            connection.hello()
            play(connection, [NoisyAgent(json.loads(options.run.read_text()))])
        except TrainerClosedError:
            sys.exit(0)
