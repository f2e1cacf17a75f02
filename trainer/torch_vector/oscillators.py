"""A vector environment of our own on tensors: damped oscillators that should follow a target.

Every agent has 20 of them, each pushed by one action; at each episode's beginning every oscillator
gets a target to stay at. 60 observations: positions, velocities, targets.

Letters: N agents, C oscillators and actions of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.torch_vector.env import TorchStep

STEP_S = 0.05
STIFFNESS = 4.0  # 1/s2
DAMPING = 2.0  # 1/s
STRENGTH = 6.0  # m/s2 of an action of 1; what holds a target at 1 is an action of 4 / 6
FARTHEST = 3.0  # m; beyond it an episode terminates


class Oscillators:
    """N agents with C oscillators each; an env_step pays 1 where all are at their targets.

    Args:
        num_envs: N.
        device: where everything lies.
        seed: of beginnings and targets.
        num_oscillators: C.
        max_episode_steps: after which an episode is truncated.
    """

    branches: tuple[int, ...] = ()

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        seed: int,
        num_oscillators: int = 20,
        max_episode_steps: int = 100,
    ) -> None:
        self.num_actions = num_oscillators
        self.num_obs = 3 * num_oscillators
        self._size = (num_envs, num_oscillators)
        self._device = device
        self._max_steps = max_episode_steps
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._steps = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def _uniform(self) -> Tensor:
        drawn = torch.rand(self._size, generator=self._generator, device=self._device)
        return drawn * 2 - 1  # (N, C) in -1..1

    def _obs(self) -> Tensor:
        return torch.cat([self._position, self._velocity, self._target], dim=1)

    def reset(self) -> Tensor:
        """Begins all episodes anew, at different times of their lives; gives (N, 3 C)."""
        self._position, self._target = self._uniform(), self._uniform()
        self._velocity = torch.zeros_like(self._position)
        # Ends of all agents in the same env_step would make every rollout another mixture.
        self._steps = torch.randint(
            self._max_steps, self._steps.shape, generator=self._generator, device=self._device
        )
        return self._obs()

    def step(self, actions: Tensor) -> TorchStep:
        """Pushes with (N, C) in -1..1 for 50 ms."""
        push = STRENGTH * actions - STIFFNESS * self._position - DAMPING * self._velocity
        self._velocity = self._velocity + STEP_S * push
        self._position = self._position + STEP_S * self._velocity
        self._steps = self._steps + 1
        missed = (self._position - self._target).square().mean(dim=1)  # (N, C) -> (N,)
        rewards = torch.exp(-4 * missed)
        last_obs = self._obs()
        terminated = self._position.abs().amax(dim=1) > FARTHEST
        truncated = (self._steps >= self._max_steps) & ~terminated
        self._begin_anew(terminated | truncated)
        return TorchStep(self._obs(), rewards, terminated, truncated, last_obs)

    def _begin_anew(self, over: Tensor) -> None:
        """Begins episodes where `over` (N,) is true; without a branch that would have to wait."""
        column = over.unsqueeze(1)  # (N,) -> (N, 1)
        self._position = torch.where(column, self._uniform(), self._position)
        self._target = torch.where(column, self._uniform(), self._target)
        self._velocity = self._velocity.masked_fill(column, 0.0)
        self._steps = self._steps.masked_fill(over, 0)
