"""A vector environment on tensors behind the interface of the fleet.

Letters: N agents.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor

from envs.batch import Actions, Decisions, Int64
from envs.bridge.assignments import Assignment
from envs.bridge.side_channels import Sampler
from envs.bridge.simulator import FleetPlan
from envs.bridge.simulator_message import SimulatorMessage
from envs.errors import SimulatorCrashedError, SimulatorDidNotStartError, SimulatorError
from envs.gym.names import default_behavior_name
from envs.simulators import SimulatorLoss
from trainer.config.settings import TorchSettings
from trainer.device import choose_device
from trainer.torch_vector.env import TorchVectorEnv, make_torch_env, require_shapes, spec_of
from trainer.torch_vector.log import TensorTurn


class TorchFleet:
    """Implements `Simulators`; its messages hold a `TensorTurn` in place of `Decisions`.

    What raises ends the run, after it has been saved: all agents are one environment.
    """

    def __init__(self, plan: FleetPlan) -> None:
        """Builds the environment.

        Raises:
            SimulatorDidNotStartError: it cannot be built, or would ignore what the plan says.
        """
        assert plan.in_process is not None
        self.codec_seconds = 0.0
        self.num_alive = 1
        self.num_restarts = 0
        self._plan = plan
        self._where = plan.in_process.words
        self._device = device_of(plan)
        name = plan.in_process.behavior_name or default_behavior_name(plan.in_process.env)
        self._behavior_id, self._name = f"{name}?team=0", name
        self.set_environment_parameters(plan.environment_parameters)
        self._env = self._build(plan.seed)
        self._is_known = self._has_begun = self._is_waiting = False
        self._actions: Tensor | None = None

    def _build(self, seed: int) -> TorchVectorEnv:
        plan = self._plan
        assert plan.in_process is not None
        own = plan.in_process
        return make_torch_env(own.env, plan.num_areas, self._device, seed, own.kwargs)

    def __enter__(self) -> Self:
        """Does nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of the environment."""
        self.num_alive = 0

    @property
    def pids(self) -> list[int | None]:
        """None: there is no process but the trainer's."""
        return []

    def recv(self, timeout_s: float | None = None) -> list[SimulatorMessage | SimulatorLoss]:
        """Makes one env_step with the actions of `send`, without waiting for the device."""
        if self._is_waiting:  # the run is paused
            time.sleep(timeout_s or 0.0)
            return []
        try:
            turn = self._advance()
        except SimulatorError:
            raise
        except Exception as error:
            trace = "".join(traceback.format_exception(error, limit=-8)).rstrip()
            raise SimulatorCrashedError(
                f"{self._where} raised {type(error).__name__}: {error}\n{trace}\n"
                f"Correct the environment."
            ) from error
        self._is_waiting = True
        spec = spec_of(self._env)
        new = {} if self._is_known else {self._behavior_id: spec}
        self._is_known = True
        # The loop hands it to `DeviceBehavior.decide` and does not look into it.
        decisions = {self._behavior_id: cast("Decisions", turn)}
        return [SimulatorMessage(0, new, decisions, {}, ())]

    def _advance(self) -> TensorTurn:
        if not self._has_begun:
            self._has_begun = True
            return TensorTurn(self._env.reset(), None)
        assert self._actions is not None, "an action is sent for every decision"
        step = self._env.step(self._actions)
        require_shapes(self._env, step, self._plan.num_areas)
        return TensorTurn(step.obs, step.rewards, step.terminated, step.truncated, step.last_obs)

    def send(self, simulator: int, actions: Mapping[str, Actions]) -> None:
        """Takes the actions of the next env_step, a tensor."""
        self._actions = cast("Tensor", actions[self._behavior_id])
        self._is_waiting = False

    def can_act(self, simulator: int) -> bool:
        """It cannot: there is no round trip to save."""
        return False

    def assign(self, simulator: int, assignment: Assignment) -> None:
        """Raises RuntimeError, see `can_act`."""
        raise RuntimeError("environments on tensors take no assignments")

    def most_steps(self, simulator: int) -> int:
        """Gives 1, see `can_act`."""
        return 1

    def relaunch(self, seed: int) -> dict[str, Int64]:
        """Builds the environment anew with another seed."""
        self._env = self._build(seed)
        self._has_begun = self._is_waiting = False
        return {self._name: np.arange(self._plan.num_areas, dtype=np.int64)}

    def set_environment_parameters(self, parameters: Mapping[str, float | Sampler]) -> None:
        """Raises SimulatorDidNotStartError where there are any: nothing would take them."""
        if parameters:
            raise SimulatorDidNotStartError(
                f"environment_parameters has {', '.join(sorted(parameters))}, and {self._where} "
                f"takes none. Leave them out, or draw them in the environment itself."
            )


def device_of(plan: FleetPlan) -> torch.device:
    """Gives the device that a plan's environment is on, which is the learner's."""
    assert plan.in_process is not None
    name = plan.in_process.device
    return choose_device(TorchSettings(device=None if name == "auto" else name))
