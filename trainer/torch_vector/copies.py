"""A vector environment on tensors as columns, for whatever is not the loop: eval and check.

Letters: K agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from envs.batch import Float32, Int32
from envs.bridge.side_channels import Sampler
from envs.bridge.simulator import FleetPlan
from envs.errors import SimulatorDidNotStartError
from envs.gym.names import default_behavior_name
from envs.in_process.copies import Failure, Turn
from envs.in_process.fleet import InProcessFleet
from trainer.torch_vector.env import TorchStep, TorchVectorEnv, make_torch_env, spec_of
from trainer.torch_vector.fleet import device_of


def open_as_columns(plan: FleetPlan) -> InProcessFleet:
    """Gives the environment of a plan, copied to the host at every step.

    Raises:
        SimulatorDidNotStartError: it cannot be built.
    """
    return InProcessFleet(plan, TorchCopies(plan))


class TorchCopies:
    """Implements `Copies`: all K agents are one unit."""

    def __init__(self, plan: FleetPlan) -> None:
        """Builds the environment."""
        own = plan.in_process
        assert own is not None
        self.behavior_id = f"{own.behavior_name or default_behavior_name(own.env)}?team=0"
        self.units: Sequence[slice] = [slice(0, plan.num_areas)]
        self._plan = plan
        self._device = device_of(plan)
        self._env: TorchVectorEnv | None = self._build(plan.seed)
        self.spec = spec_of(self._env)
        self._seed = plan.seed

    def _build(self, seed: int) -> TorchVectorEnv:
        own = self._plan.in_process
        assert own is not None
        return make_torch_env(own.env, self._plan.num_areas, self._device, seed, own.kwargs)

    def begin(self, unit: int, seed: int) -> Turn:
        """Begins all episodes; builds the environment unless that was done."""
        if self._env is None or seed != self._seed:
            self._env, self._seed = self._build(seed), seed
        obs = self._env.reset()
        return self._turn(obs, torch.zeros(len(obs)))

    def begin_row(self, row: int, turn: Turn) -> bool:
        """Gives False: all agents step together."""
        return False

    def discard(self, unit: int) -> None:
        """Lets go of the environment."""
        self._env = None

    def set_parameters(self, parameters: Mapping[str, float | Sampler], seed: int) -> None:
        """Raises SimulatorDidNotStartError where there are any: nothing would take them."""
        if parameters:
            raise SimulatorDidNotStartError(
                f"environment_parameters has {', '.join(sorted(parameters))}, and environments on "
                f"tensors take none. Leave them out."
            )

    def step(self, continuous: Float32, discrete: Int32, is_running: Sequence[bool]) -> Turn:
        """Makes one env_step."""
        assert self._env is not None
        chosen = continuous if self.spec.action_spec.continuous_size else discrete.astype(np.int64)
        try:
            step = self._env.step(torch.from_numpy(chosen).to(self._device))
        except Exception as error:
            nothing = torch.zeros((len(chosen), self._env.num_obs))
            turn = self._turn(nothing, torch.zeros(len(chosen)))
            turn.failures = [Failure(0, error)]
            return turn
        return self._turn(step.obs, step.rewards, step)

    def _turn(self, obs: Tensor, rewards: Tensor, step: TorchStep | None = None) -> Turn:
        num_rows = len(obs)
        reward = rewards.cpu().numpy().copy()
        everybody = np.ones(num_rows, np.bool_)
        turn = Turn((obs.cpu().numpy(),), reward, everybody, np.zeros(0, np.int64))
        branches = self.spec.action_spec.discrete_branches
        if branches:
            turn.action_mask = np.ones((num_rows, sum(branches)), np.bool_)
        if step is None:
            return turn
        terminated = step.terminated.cpu().numpy()
        turn.ended = np.flatnonzero(terminated | step.truncated.cpu().numpy())
        turn.final_obs = (step.last_obs.cpu().numpy()[turn.ended],)
        turn.final_reward = reward[turn.ended]
        turn.truncated = ~terminated[turn.ended]
        turn.reward[turn.ended] = 0.0
        return turn
