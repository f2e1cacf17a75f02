"""The policy and its critic: what an agent does with an observation, and what that is worth.

Letters: B rows, D size of all vector observations end to end, C continuous action size,
K discrete branches, L sum of branch sizes, R reward signals, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.spec import BehaviorSpec, sum_of_branches
from trainer.config.errors import UserError
from trainer.config.settings import NetworkSettings
from trainer.nn.distributions import (
    categorical_entropy,
    categorical_log_probs,
    gaussian_entropy,
    gaussian_log_probs,
    masked_log_softmax,
    sample_categorical,
    standard_normal_log_probs,
)
from trainer.nn.mlp import MLP, initialize
from trainer.nn.normalizer import Normalizer


@dataclass(frozen=True, slots=True)
class Action:
    """What a policy chose for B agents."""

    continuous: Tensor  # (B, C), as drawn: neither clipped nor scaled
    discrete: Tensor  # (B, K) int64
    log_probs: Tensor  # (B, C + K), per dimension and branch

    def cpu(self) -> Action:
        """Gives the same on the CPU."""
        if self.log_probs.device.type == "cpu":
            return self
        return Action(self.continuous.cpu(), self.discrete.cpu(), self.log_probs.cpu())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a policy thinks, now, of actions taken before."""

    log_probs: Tensor  # (B, C + K)
    entropies: Tensor  # (B or 1, C + K) in nats; 1 where it is the same for every row
    values: Tensor  # (B, R)


class UnsupportedBehaviorError(UserError):
    """The behaviour has observations or actions that this version cannot learn from."""


def vector_sizes(spec: BehaviorSpec, behavior: str) -> list[int]:
    """Gives the length of each observation, in sensor order.

    Raises:
        UnsupportedBehaviorError: a sensor is not a vector, or there is nothing to act with.
    """
    for sensor in spec.observation_specs:
        if len(sensor.shape) != 1:
            raise UnsupportedBehaviorError(
                f"Behavior '{behavior}': sensor '{sensor.name}' has shape {tuple(sensor.shape)}. "
                f"This version learns from vector observations, shape (n,), only; cameras and "
                f"variable-length observations come later. Remove the sensor, or observe a vector."
            )
    actions = spec.action_spec
    if actions.continuous_size + actions.discrete_size == 0:
        raise UnsupportedBehaviorError(
            f"Behavior '{behavior}' has no actions. Give its agents at least one continuous action "
            f"or one discrete branch (Behavior Parameters > Actions)."
        )
    return [int(sensor.shape[0]) for sensor in spec.observation_specs]


class ActorCritic(nn.Module):
    """A policy and a critic, side by side, or on one body with `shared_critic`.

    Continuous actions are Gaussian with a standard deviation that is learnt but does not depend on
    the observation; each discrete branch is a categorical distribution over its allowed actions.
    Nothing here changes the normaliser; `update_normalizer` does.
    """

    def __init__(
        self,
        behavior: str,
        spec: BehaviorSpec,
        network: NetworkSettings,
        num_signals: int,
        shared_critic: bool,
    ) -> None:
        super().__init__()
        sizes = vector_sizes(spec, behavior)
        num_inputs = sum(sizes)
        self.observation_sizes = tuple(sizes)
        self.continuous_size = int(spec.action_spec.continuous_size)
        self.branch_sizes = tuple(int(size) for size in spec.action_spec.discrete_branches)
        self.normalizer = Normalizer(num_inputs) if network.normalize else None

        def body() -> MLP:
            return MLP(
                num_inputs,
                network.hidden_units,
                network.num_layers,
                network.activation,
                network.initialization,
            )

        def head(size: int, kaiming_gain: float) -> nn.Linear:
            how = network.initialization
            layer = nn.Linear(network.hidden_units, size)
            return initialize(layer, how, 0.01 if how == "orthogonal" else kaiming_gain)

        self.actor_body = body()
        self.critic_body = self.actor_body if shared_critic else body()
        if self.continuous_size:
            self.mean_head = head(self.continuous_size, 0.2)
            self.log_std = nn.Parameter(
                torch.full((self.continuous_size,), network.initial_log_std)
            )
        if self.branch_sizes:
            self.branch_head = head(sum_of_branches(spec), 0.1)
        self.value_head = nn.Linear(network.hidden_units, num_signals)
        if network.initialization == "orthogonal":
            nn.init.orthogonal_(self.value_head.weight)
        else:
            nn.init.xavier_uniform_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def inputs(self, obs: Sequence[Tensor]) -> Tensor:
        """Puts the observations end to end and normalises them; (B, size)... -> (B, D)."""
        joined = obs[0] if len(obs) == 1 else torch.cat(list(obs), dim=1)
        return joined if self.normalizer is None else self.normalizer(joined)

    def update_normalizer(self, obs: Sequence[Tensor]) -> None:
        """Takes (B, size)... observations into the running mean and variance."""
        if self.normalizer is not None:
            self.normalizer.update(torch.cat(list(obs), dim=1))

    def values(self, inputs: Tensor) -> Tensor:
        """(B, D) -> (B, R), in units of the reward after its strength."""
        features = self.critic_body(inputs)
        return functional.linear(features, self.value_head.weight, self.value_head.bias)

    def _features_and_values(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> (B, H), (B, R); a shared body runs once."""
        features = self.actor_body(inputs)
        if self.critic_body is not self.actor_body:
            return features, self.values(inputs)
        return features, functional.linear(features, self.value_head.weight, self.value_head.bias)

    def _mean(self, features: Tensor) -> Tensor:
        return functional.linear(features, self.mean_head.weight, self.mean_head.bias)

    def _branches(self, features: Tensor, mask: Tensor | None) -> list[Tensor]:
        logits = functional.linear(features, self.branch_head.weight, self.branch_head.bias)
        return masked_log_softmax(logits, mask, self.branch_sizes)

    @torch.no_grad()
    def act(
        self,
        inputs: Tensor,
        mask: Tensor | None,
        generator: torch.Generator,
        deterministic: bool = False,
    ) -> Action:
        """Chooses an action for each row; the mean and the likeliest branch if `deterministic`.

        Args:
            inputs: (B, D), from `inputs`.
            mask: (B, L) bool, True = allowed, or None.
            generator: the only source of chance.
            deterministic: choose instead of draw.
        """
        features = self.actor_body(inputs)
        continuous = inputs.new_zeros((len(inputs), self.continuous_size))
        discrete = torch.zeros(
            (len(inputs), len(self.branch_sizes)), dtype=torch.int64, device=inputs.device
        )
        log_probs = []
        if self.continuous_size:
            mean = self._mean(features)
            if deterministic:
                noise = torch.zeros_like(mean)
            else:
                noise = torch.empty_like(mean).normal_(generator=generator)
            continuous = torch.addcmul(mean, noise, self.log_std.exp())
            log_probs.append(standard_normal_log_probs(noise) - self.log_std)
        if self.branch_sizes:
            branches = self._branches(features, mask)
            if deterministic:
                discrete = torch.stack([branch.argmax(dim=1) for branch in branches], dim=1)
            else:
                discrete = sample_categorical(branches, generator)
            log_probs.append(categorical_log_probs(branches, discrete))
        joined = log_probs[0] if len(log_probs) == 1 else torch.cat(log_probs, dim=1)
        return Action(continuous, discrete, joined)

    def evaluate(
        self, inputs: Tensor, mask: Tensor | None, continuous: Tensor, discrete: Tensor
    ) -> Evaluation:
        """Gives log-probabilities, entropies and values of B past actions, with gradients.

        Args:
            inputs: (B, D), from `inputs`.
            mask: (B, L) bool, True = allowed, or None.
            continuous: (B, C), as drawn.
            discrete: (B, K) int64.
        """
        features, values = self._features_and_values(inputs)
        log_probs, entropies = [], []
        if self.continuous_size:
            mean = self._mean(features)
            log_probs.append(gaussian_log_probs(continuous, mean, self.log_std))
            entropies.append(gaussian_entropy(self.log_std).unsqueeze(0))  # (1, C)
        if self.branch_sizes:
            branches = self._branches(features, mask)
            log_probs.append(categorical_log_probs(branches, discrete))
            entropies.append(categorical_entropy(branches))
        if len(log_probs) == 1:
            return Evaluation(log_probs[0], entropies[0], values)
        entropies[0] = entropies[0].expand(len(inputs), -1)  # (1, C) -> (B, C)
        return Evaluation(torch.cat(log_probs, dim=1), torch.cat(entropies, dim=1), values)
