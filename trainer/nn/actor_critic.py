"""The policy and its critic: what an agent does with an observation, and what that is worth.

Letters: B rows, C continuous action size,
K discrete branches, L sum of branch sizes, R reward signals, H features that the heads read,
M memory size, W memory width: what an agent carries for actor and critic together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.batch import ACTION_LIMIT
from envs.spec import BehaviorSpec
from trainer.config.settings import NetworkSettings
from trainer.nn.body import NetworkBody
from trainer.nn.distributions import (
    Distribution,
    categorical_log_probs,
    masked_log_softmax,
    sample_categorical,
    standard_normal_log_probs,
)
from trainer.nn.memory import Memory, Sequences
from trainer.nn.mlp import initialize
from trainer.nn.normalizer import Normalizer
from trainer.nn.sensors import Inputs, UnsupportedBehaviorError, in_pieces, sensors_of
from trainer.nn.std_head import StdHead


@dataclass(frozen=True, slots=True)
class Action:
    """What a policy chose for B agents."""

    continuous: Tensor  # (B, C), as drawn: neither clipped nor scaled
    discrete: Tensor  # (B, K) int64
    log_probs: Tensor  # (B, C + K), per dimension and branch
    memory: Tensor | None = None  # (B, W) what the agents carry on

    def cpu(self) -> Action:
        """Gives the same on the CPU; memory stays where the networks are."""
        if self.log_probs.device.type == "cpu":
            return self
        return Action(self.continuous.cpu(), self.discrete.cpu(), self.log_probs.cpu(), self.memory)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a policy thinks, now, of actions taken before."""

    log_probs: Tensor  # (B, C + K)
    entropies: Tensor  # (B or 1, C + K) in nats; 1 where it is the same for every row
    values: Tensor  # (B, R)


def require_actions(spec: BehaviorSpec, behavior: str) -> None:
    """Raises UnsupportedBehaviorError if there is nothing to act with."""
    actions = spec.action_spec
    if actions.continuous_size + actions.discrete_size == 0:
        raise UnsupportedBehaviorError(
            f"Behavior '{behavior}' has no actions. Give its agents at least one continuous action "
            f"or one discrete branch (Behavior Parameters > Actions)."
        )


def of_critic(network: NetworkSettings) -> NetworkSettings:
    """Gives the shape of a critic with layers of its own."""
    return network.model_copy(
        update={
            "hidden_units": network.critic_hidden_units or network.hidden_units,
            "num_layers": network.critic_num_layers or network.num_layers,
        }
    )


class ActorCritic(nn.Module):
    """A policy and a critic, side by side, or on one body with `shared_critic`.

    Continuous actions are Gaussian; their standard deviation does not depend on the observation,
    unless `network_settings.std_type` asks for `std_head`. Each discrete branch is a categorical
    distribution over its allowed actions.
    With `network_settings.memory` an LSTM stands between body and heads of either; what an agent
    carries from one decision to the next is W = `memory_width` numbers, those of the actor first.
    Nothing here changes the normaliser; `update_normalizer` does.
    """

    log_std: Tensor  # (C,), where there is no std_head
    std_head: StdHead | None

    def __init__(
        self,
        behavior: str,
        spec: BehaviorSpec,
        network: NetworkSettings,
        num_signals: int,
        shared_critic: bool,
    ) -> None:
        super().__init__()
        require_actions(spec, behavior)
        self.sensors = sensors_of(spec, behavior)
        self.continuous_size = int(spec.action_spec.continuous_size)
        self.branch_sizes = tuple(int(size) for size in spec.action_spec.discrete_branches)
        num_vector_inputs = sum(self.sensors.vector_sizes)
        normalizes = network.normalize and num_vector_inputs > 0
        self.normalizer = (
            Normalizer(num_vector_inputs, network.normalize_clip) if normalizes else None
        )
        self.has_bounded_mean = network.bounded_mean
        self.actor_body = NetworkBody(self.sensors, network)
        self.critic_body = (
            self.actor_body if shared_critic else NetworkBody(self.sensors, of_critic(network))
        )
        self.actor_memory = self.critic_memory = None
        self.memory_size = self.memory_width = 0
        num_features = self.actor_body.num_features
        if network.memory is not None:
            size, how = network.memory.memory_size, network.initialization
            self.actor_memory = self.critic_memory = Memory(num_features, size, how)
            if not shared_critic:
                self.critic_memory = Memory(self.critic_body.num_features, size, how)
            self.memory_size = size
            self.memory_width = size if shared_critic else 2 * size
            num_features = self.actor_memory.num_features

        self._add_action_heads(num_features, network)
        if self.critic_memory is None:
            num_features = self.critic_body.num_features
        self.value_head = nn.Linear(num_features, num_signals)
        if network.initialization == "orthogonal":
            nn.init.orthogonal_(self.value_head.weight)
        else:
            nn.init.xavier_uniform_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def _add_action_heads(self, num_features: int, network: NetworkSettings) -> None:
        def gain(of_kaiming: float) -> float:
            return 0.01 if network.initialization == "orthogonal" else of_kaiming

        def head(size: int, kaiming_gain: float) -> nn.Linear:
            layer = nn.Linear(num_features, size)
            return initialize(layer, network.initialization, gain(kaiming_gain))

        self.std_head = None
        if self.continuous_size:
            size = self.continuous_size
            self.mean_head = head(size, 0.2)
            first = torch.full((size,), network.initial_log_std)
            match network.std_type:
                case "learned":
                    self.log_std = nn.Parameter(first)
                case "fixed":
                    self.register_buffer("log_std", first)
                case "state_log_std" | "state_softplus":
                    self.std_head = StdHead(num_features, size, network, gain(0.2))
        if self.branch_sizes:
            self.branch_head = head(sum(self.branch_sizes), 0.1)

    def inputs(self, obs: Sequence[Tensor]) -> Inputs:
        """Makes what the networks read of B rows of observations, (B, *shape) each."""
        vectors = self.sensors.vectors(obs)
        if vectors is None:
            return self.sensors.others(obs)
        if self.normalizer is not None:
            vectors = self.normalizer(vectors)
        return (vectors, *self.sensors.others(obs))

    def update_normalizer(self, obs: Sequence[Tensor]) -> None:
        """Takes the vectors among (B, *shape)... observations into the running statistics."""
        vectors = self.sensors.vectors(obs)
        if self.normalizer is not None and vectors is not None:
            self.normalizer.update(vectors)

    def values(self, inputs: Inputs, sequences: Sequences | None = None) -> Tensor:
        """Inputs of B rows -> (B, R), in units of the reward after its strength."""
        return self.values_of(self.critic_body(inputs), sequences)

    def values_in_pieces(self, inputs: Inputs) -> Tensor:
        """Gives `values` of any number of rows, without memory.

        The layers of a whole rollout at once would be most of the process's memory.
        """
        pieces = in_pieces(inputs, self.critic_body.rows_at_once)
        return torch.cat([self.values(piece) for piece in pieces])

    def critic_features(self, inputs: Inputs) -> Tensor:
        """Gives what the critic's body makes of any number of rows, for `values_of`."""
        pieces = in_pieces(inputs, self.critic_body.rows_at_once)
        return torch.cat([self.critic_body(piece) for piece in pieces])

    def values_of(self, features: Tensor, sequences: Sequences | None = None) -> Tensor:
        """Gives values of what the critic's body has read.

        Args:
            features: (B, body's features).
            sequences: what the B rows consist of; only with memory.

        Returns:
            (B, R).
        """
        if self.critic_memory is not None:
            assert sequences is not None, "a critic with memory reads sequences"
            carried = sequences.memory[:, -self.memory_size :]
            features = self.critic_memory.unroll(features, sequences, carried)
        return functional.linear(features, self.value_head.weight, self.value_head.bias)

    def _actor_features(self, inputs: Inputs, sequences: Sequences | None) -> Tensor:
        """Inputs of B rows -> (B, H), what the actor's heads read."""
        features: Tensor = self.actor_body(inputs)
        if self.actor_memory is None:
            return features
        assert sequences is not None, "a policy with memory reads sequences"
        carried = sequences.memory[:, : self.memory_size]
        return self.actor_memory.unroll(features, sequences, carried)

    def _features_and_values(
        self, inputs: Inputs, sequences: Sequences | None
    ) -> tuple[Tensor, Tensor]:
        """Inputs of B rows -> (B, H), (B, R); a shared body runs once."""
        features = self._actor_features(inputs, sequences)
        if self.critic_body is not self.actor_body:
            return features, self.values(inputs, sequences)
        return features, functional.linear(features, self.value_head.weight, self.value_head.bias)

    def _remember(self, inputs: Inputs, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """One decision's step of both LSTMs; (B, body's), (B, W) -> (B, H), (B, W)."""
        assert self.actor_memory is not None
        assert self.critic_memory is not None
        size = self.memory_size
        features, carried = self.actor_memory.step(features, memory[:, :size])
        if self.critic_memory is self.actor_memory:
            return features, carried
        _, of_critic = self.critic_memory.step(self.critic_body(inputs), memory[:, size:])
        return features, torch.cat([carried, of_critic], dim=1)

    def _mean(self, features: Tensor) -> Tensor:
        mean = functional.linear(features, self.mean_head.weight, self.mean_head.bias)
        return ACTION_LIMIT * torch.tanh(mean) if self.has_bounded_mean else mean

    def _log_std(self, features: Tensor) -> Tensor:
        """(B, H) -> (B, C), or (C,) where no row differs from another."""
        return self.log_std if self.std_head is None else self.std_head(features)

    def _branches(self, features: Tensor, mask: Tensor | None) -> list[Tensor]:
        logits = functional.linear(features, self.branch_head.weight, self.branch_head.bias)
        return masked_log_softmax(logits, mask, self.branch_sizes)

    @torch.no_grad()
    def act(
        self,
        inputs: Inputs,
        mask: Tensor | None,
        generator: torch.Generator,
        deterministic: bool = False,
        memory: Tensor | None = None,
    ) -> Action:
        """Chooses an action for each row; the mean and the likeliest branch if `deterministic`.

        Args:
            inputs: of B rows, from `inputs`.
            mask: (B, L) bool, True = allowed, or None.
            generator: the only source of chance.
            deterministic: choose instead of draw.
            memory: (B, W) what the agents carry, 0 at first; only with memory.
        """
        features = self.actor_body(inputs)
        if self.actor_memory is not None:
            assert memory is not None, "a policy with memory acts on what its agents carry"
            features, memory = self._remember(inputs, features, memory)
        num_rows = len(features)
        continuous = features.new_zeros((num_rows, self.continuous_size))
        discrete = torch.zeros(
            (num_rows, len(self.branch_sizes)), dtype=torch.int64, device=features.device
        )
        log_probs = []
        if self.continuous_size:
            mean = self._mean(features)
            if deterministic:
                noise = torch.zeros_like(mean)
            else:
                noise = torch.empty_like(mean).normal_(generator=generator)
            log_std = self._log_std(features)
            continuous = torch.addcmul(mean, noise, log_std.exp())
            log_probs.append(standard_normal_log_probs(noise) - log_std)
        if self.branch_sizes:
            branches = self._branches(features, mask)
            if deterministic:
                discrete = torch.stack([branch.argmax(dim=1) for branch in branches], dim=1)
            else:
                discrete = sample_categorical(branches, generator)
            log_probs.append(categorical_log_probs(branches, discrete))
        joined = log_probs[0] if len(log_probs) == 1 else torch.cat(log_probs, dim=1)
        return Action(continuous, discrete, joined, memory)

    def evaluate(
        self,
        inputs: Inputs,
        mask: Tensor | None,
        continuous: Tensor,
        discrete: Tensor,
        sequences: Sequences | None = None,
    ) -> Evaluation:
        """Gives log-probabilities, entropies and values of B past actions, with gradients.

        Args:
            inputs: of B rows, from `inputs`.
            mask: (B, L) bool, True = allowed, or None.
            continuous: (B, C), as drawn.
            discrete: (B, K) int64.
            sequences: what the B rows consist of; only with memory.
        """
        features, values = self._features_and_values(inputs, sequences)
        distribution = self._distribution(features, mask)
        log_probs = distribution.log_probs(continuous, discrete)
        return Evaluation(log_probs, distribution.entropies(), values)

    def distribution(
        self, inputs: Inputs, mask: Tensor | None, sequences: Sequences | None = None
    ) -> Distribution:
        """Gives what the actor may do in B rows, with gradients; see `evaluate`."""
        return self._distribution(self._actor_features(inputs, sequences), mask)

    def _distribution(self, features: Tensor, mask: Tensor | None) -> Distribution:
        branches = self._branches(features, mask) if self.branch_sizes else ()
        if not self.continuous_size:
            return Distribution(None, None, tuple(branches))
        return Distribution(self._mean(features), self._log_std(features), tuple(branches))

    def actor_parameters(self) -> list[nn.Parameter]:
        """Gives what decides about actions; with `shared_critic` the shared layers too."""
        of_critic = {id(parameter) for parameter in self.critic_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in of_critic]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Gives what decides about values alone."""
        parts: list[nn.Module] = [self.value_head]
        if self.critic_body is not self.actor_body:
            parts.append(self.critic_body)
            if self.critic_memory is not None:
                parts.append(self.critic_memory)
        return [parameter for part in parts for parameter in part.parameters()]
