"""Trust-region policy optimisation: a natural gradient step with a line search.

Schulman, Levine, Moritz, Jordan, Abbeel: "Trust Region Policy Optimization", arXiv 1502.05477:
objective eq. 14, appendix C (conjugate gradients, Fisher-vector products, line search); advantages
by GAE, arXiv 1506.02438.

| Paper | Here | YAML key | Usual |
|---|---|---|---|
| delta | `max_kl` | `max_kl` | 0.001 to 0.05 |
| A, Fisher matrix | `_fisher` | | |
| g, gradient of eq. 14 | `gradient` | | |
| s = A^-1 g | `direction` | `num_cg_iterations` | 10 to 20 |
| damping (its code) | `cg_damping` | `cg_damping` | 0.001 to 0.1 |
| beta s | `full_step` | | |
| line search | `_line_search` | `num_backtracks`, `backtrack_ratio` | 10, 0.8 |
| lambda (GAE) | `lambd` | `lambd` | 0.9 to 0.99 |
| gamma | `gamma` (R,) | `reward_signals.*.gamma` | 0.8 to 0.995 |

Differences from the paper: the value function is fitted with Adam, in minibatches, behind the
policy's step (GAE's paper holds it in a trust region of its own). Several reward signals each have
a value head and a discount, and their advantages are averaged.

Letters: B decisions of a rollout, C continuous action size, K discrete branches, R reward signals,
P parameters of the actor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.algos.base import Update
from trainer.algos.estimators import explained_variance, gae, normalized
from trainer.algos.natural_gradient import (
    conjugate_gradient,
    fisher_vector_product,
    step_of_divergence,
)
from trainer.algos.optimizers import FlatOptimizer
from trainer.algos.trace import Means
from trainer.config.hyperparameters import TRPOHyperparameters
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.flat_parameters import FlatParameters
from trainer.nn.sensors import Inputs
from trainer.rollout.critic import ask_critic
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.rollout import Rollout
from trainer.schedules import LEARNING_RATE_FLOOR, scheduled


def surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Eq. 14: the expected advantage, to be raised; (B,) x3 -> ()."""
    return ((log_probs - old_log_probs).exp() * advantages).mean()


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Squared error, mean over rows and signals; (B, R) x2 -> ()."""
    return functional.mse_loss(values, returns)


class TRPO:
    """Appendix C of the paper, from the collected rollout on."""

    def __init__(
        self,
        policy: ActorCritic,
        hyperparameters: TRPOHyperparameters,
        gamma: Tensor,
        max_steps: int,
        generator: torch.Generator,
    ) -> None:
        """Starts an optimiser for the critic.

        Args:
            policy: on its final device.
            hyperparameters: of the behaviour.
            gamma: (R,), one discount per reward signal.
            max_steps: where the schedules end.
            generator: shuffles the critic's minibatches; on the CPU.
        """
        self.policy = policy
        self.settings = hyperparameters
        self.gamma = gamma
        self.max_steps = max_steps
        self.generator = generator
        self.actor = FlatParameters(policy.actor_parameters())
        self.critic = FlatOptimizer(
            policy.critic_parameters(),
            hyperparameters.learning_rate,
            hyperparameters.adam_epsilon,
            hyperparameters.max_grad_norm,
        )

    def update(self, rollout: Rollout, step: int) -> Update:
        """Learns from a rollout; see `Algorithm.update`."""
        settings = self.settings
        self.critic.set_learning_rate(self.rates(step)["Policy/Learning Rate"])

        with torch.no_grad():  # the normaliser does not change during an update
            inputs = self.policy.inputs(rollout.obs)
            following = self.policy.inputs(rollout.bootstrap_obs)
        old_values, advantages, returns = self._targets(rollout, inputs, following)
        foreseen = explained_variance(old_values, returns)  # (), before learning
        whole = Minibatch(
            inputs=inputs,
            continuous=rollout.continuous,
            discrete=rollout.discrete,
            old_log_probs=rollout.log_probs.sum(dim=1),  # (B, C + K) -> (B,)
            old_values=old_values,
            advantages=advantages,
            returns=returns,
            action_mask=rollout.action_mask,
            sequences=rollout.sequences,
        )
        whole = whole.with_distribution_of(self.policy)
        entropy = whole.entropy_of(self.policy)

        with torch.backends.cudnn.flags(enabled=False):  # its LSTM cannot be differentiated twice
            gradient = self._gradient(whole)  # (P,)
            direction = conjugate_gradient(
                lambda vector: self._fisher(whole, vector), gradient, settings.num_cg_iterations
            )
            full_step = step_of_divergence(
                direction, lambda vector: self._fisher(whole, vector), settings.max_kl
            )
        improvement, share = self._line_search(whole, full_step)

        means = Means()
        for _ in range(settings.num_value_epoch):
            for batch in whole.shuffled(settings.batch_size, self.generator):
                loss = value_loss(batch.values_of(self.policy), batch.returns)

                self.critic.zero_gradient()
                loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
                self.critic.step()
                means.add("Losses/Value Loss", loss)

        statistics = means.statistics()
        statistics["Losses/Policy Loss"] = improvement.abs()
        statistics["Policy/Entropy"] = entropy
        statistics["Policy/Explained Variance"] = foreseen
        statistics["Policy/KL"] = whole.divergence_of(self.policy)
        statistics["Policy/Accepted Step"] = torch.tensor(share)
        return Update(statistics, old_values.mean(dim=0))

    def _surrogate(self, batch: Minibatch) -> Tensor:
        """Eq. 14 of the policy as it is now, ()."""
        distribution = batch.distribution_of(self.policy)
        log_probs = distribution.log_probs(batch.continuous, batch.discrete).sum(dim=1)
        return surrogate(log_probs, batch.old_log_probs, batch.advantages)

    def _gradient(self, whole: Minibatch) -> Tensor:
        """Gives g, the gradient of eq. 14, (P,)."""
        gradient = torch.zeros_like(self.actor.vector)
        for batch in whole.in_pieces(self.policy.actor_body.rows_at_once):
            share = len(batch) / len(whole)
            gradient += share * self.actor.gradient_of(self._surrogate(batch))
        return gradient.detach()

    def _fisher(self, whole: Minibatch, vector: Tensor) -> Tensor:
        """Gives A times a vector, damped; (P,) -> (P,)."""
        product = self.settings.cg_damping * vector
        for batch in whole.in_pieces(self.policy.actor_body.rows_at_once):
            old = batch.old_distribution_of(self.policy)
            kl = batch.distribution_of(self.policy).kl_from(old).mean()
            share = len(batch) / len(whole)
            product = product + share * fisher_vector_product(kl, self.actor, vector)
        return product

    @torch.no_grad()
    def _mean_surrogate(self, whole: Minibatch) -> Tensor:
        """Eq. 14 over the whole rollout, ()."""
        pieces = whole.in_pieces(self.policy.actor_body.rows_at_once)
        return sum(
            (self._surrogate(batch) * (len(batch) / len(whole)) for batch in pieces),
            start=torch.zeros((), device=self.gamma.device),
        )

    @torch.no_grad()
    def _line_search(self, whole: Minibatch, full_step: Tensor) -> tuple[Tensor, float]:
        """Takes the longest step that improves eq. 14 within `max_kl`, or none at all.

        Args:
            whole: the rollout.
            full_step: (P,), beta s.

        Returns:
            What eq. 14 improved by, (), and which share of the full step was taken.
        """
        old = self.actor.vector.detach().clone()
        before = self._mean_surrogate(whole)
        for tried in range(self.settings.num_backtracks):
            share = self.settings.backtrack_ratio**tried
            self.actor.vector.copy_(old + share * full_step)
            improvement = self._mean_surrogate(whole) - before
            kl = whole.divergence_of(self.policy)
            if improvement.item() > 0 and kl.item() <= self.settings.max_kl:
                return improvement, share
        self.actor.vector.copy_(old)
        return torch.zeros_like(before), 0.0

    def rates(self, step: int) -> dict[str, float]:
        """Gives what the schedules say at a step; see `Algorithm.rates`."""
        own, kind = self.settings, self.settings.learning_rate_schedule
        rate = scheduled(kind, own.learning_rate, LEARNING_RATE_FLOOR, step, self.max_steps)
        return {"Policy/Learning Rate": rate}

    @torch.no_grad()
    def _targets(
        self, rollout: Rollout, inputs: Inputs, following: Inputs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Asks the critic, and estimates what it should have said.

        Args:
            rollout: B decisions in S segments.
            inputs: of its decisions.
            following: of what follows its segments.

        Returns:
            Values (B, R); advantages (B,), averaged over signals; returns (B, R).
        """
        values, bootstrap = ask_critic(self.policy, rollout, inputs, following)
        advantages, returns = gae(
            rollout.rewards,
            values,
            rollout.next_values(values, bootstrap),
            rollout.is_segment_end(),
            self.gamma,
            self.settings.lambd,
        )
        combined = advantages.mean(dim=1)  # (B, R) -> (B,)
        if self.settings.normalize_advantages:
            combined = normalized(combined)
        return values, combined, returns

    def state_dict(self) -> dict[str, object]:
        """Gives the state of the critic's optimiser and shuffling."""
        return {
            "critic_optimizer": self.critic.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from `state_dict`."""
        self.critic.load_state_dict(state["critic_optimizer"])
        generator = state["generator"]
        assert isinstance(generator, Tensor)
        self.generator.set_state(generator)
