"""Optimizers over parameters that lie in one vector.

Letters: P parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from trainer.config.hyperparameters import GradientAscent, Optimizer
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.flat_parameters import FlatParameters
from trainer.schedules import LEARNING_RATE_FLOOR, scheduled

RMSPROP_DECAY = 0.99  # arXiv 1602.01783, section 8


class FlatOptimizer:
    """Adam or RMSprop over P parameters of a module, which become views into one vector."""

    def __init__(
        self,
        of: nn.Module | Iterable[nn.Parameter],
        learning_rate: float,
        epsilon: float,
        max_grad_norm: float | None,
        kind: Optimizer = "adam",
    ) -> None:
        """Starts without a past.

        Args:
            of: whose parameters to move, on their final device.
            learning_rate: of the first step; `learning_rate` may be set before each.
            epsilon: keeps the optimizer from dividing by zero.
            max_grad_norm: longest gradient of a step, None: any.
            kind: which optimizer.
        """
        self.parameters = FlatParameters(of)
        self.epsilon = epsilon
        self.max_grad_norm = max_grad_norm
        vectors = [self.parameters.vector]
        self._optimizer: torch.optim.Optimizer
        if kind == "adam":
            self._optimizer = torch.optim.Adam(vectors, learning_rate, eps=epsilon, fused=True)
        else:
            self._optimizer = torch.optim.RMSprop(
                vectors, learning_rate, alpha=RMSPROP_DECAY, eps=epsilon
            )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets the size of the steps from now on."""
        self._optimizer.param_groups[0]["lr"] = learning_rate

    def zero_gradient(self) -> None:
        """Forgets what `backward` has summed up."""
        self.parameters.zero_gradient()

    def step(self) -> None:
        """Moves the parameters against what `backward` has summed up."""
        if self.max_grad_norm is not None:
            self.parameters.clip_gradient(self.max_grad_norm)
        self._optimizer.step()

    def state_dict(self) -> dict[str, object]:
        """Gives the optimizer's moments."""
        return copy.deepcopy(self._optimizer.state_dict())

    def load_state_dict(self, state: object) -> None:
        """Goes on from `state_dict`."""
        assert isinstance(state, dict)
        self._optimizer.load_state_dict(state)
        # It brings its own; a number that the user has changed since is to count.
        self._optimizer.param_groups[0]["eps"] = self.epsilon


def joint_optimizers(
    policy: ActorCritic,
    learning_rate: float,
    critic_learning_rate: float | None,
    epsilon: float,
    max_grad_norm: float | None,
    kind: Optimizer = "adam",
) -> dict[str, FlatOptimizer]:
    """Gives what moves actor and critic by one loss, by the name under which it is saved.

    One for both, or, where the critic has a learning rate of its own, one for each; in the order of
    `learning_rates`.
    """
    if critic_learning_rate is None:
        return {"optimizer": FlatOptimizer(policy, learning_rate, epsilon, max_grad_norm, kind)}
    critic = policy.critic_parameters()
    return {
        "optimizer": FlatOptimizer(
            policy.actor_parameters(), learning_rate, epsilon, max_grad_norm, kind
        ),
        "critic_optimizer": FlatOptimizer(
            critic, critic_learning_rate, epsilon, max_grad_norm, kind
        ),
    }


def learning_rates(settings: GradientAscent, step: int, max_steps: int) -> dict[str, float]:
    """Gives the learning rates at a step by TensorBoard tag: one, or the actor's and the critic's.

    Args:
        settings: of the algorithm.
        step: decisions learnt from so far.
        max_steps: where the schedule ends.
    """
    rates = {"Policy/Learning Rate": settings.learning_rate}
    if settings.critic_learning_rate is not None:
        rates["Policy/Critic Learning Rate"] = settings.critic_learning_rate
    kind = settings.learning_rate_schedule
    return {
        tag: scheduled(kind, rate, LEARNING_RATE_FLOOR, step, max_steps)
        for tag, rate in rates.items()
    }
