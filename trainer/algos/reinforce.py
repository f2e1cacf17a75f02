"""Monte-Carlo policy gradient: one optimizer step over whole episodes.

Williams: "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning", Machine Learning 8, 1992; Sutton & Barto, 2nd edition, section 13.3 (eq. 13.8) and 13.4
(with baseline, eq. 13.11).

| Book | Here | YAML key | Usual |
|---|---|---|---|
| G_t, or G_0 | `returns` | `returns` | reward_to_go |
| b(s) | `_targets` | `baseline` | value |
| G_t - b(s) | `weights` | | |
| alpha of theta | `learning_rate` | `learning_rate` | 1e-3 to 1e-2 |
| alpha of w | `critic_learning_rate` | `critic_learning_rate`, `num_value_epoch` | 1e-3 |
| gamma | `gamma` (R,) | `reward_signals.*.gamma` | 0.8 to 0.995 |

Differences from the book: one step for the episodes of a whole rollout, with the mean over their
decisions; gamma^t is left out in front of the gradient, as everybody does, so late decisions count
as much as early ones. The critic is fitted in minibatches behind the policy's step. Episodes that
were cut short (a time limit, or longer than `time_horizon`) end there: with `baseline: value` the
critic says what would have followed, otherwise nothing follows. Several reward signals each have a
value head and a discount, and their weights are averaged.

Letters: B decisions of a rollout, C continuous action size, K discrete branches, R reward signals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.algos.base import Update
from trainer.algos.estimators import (
    explained_variance,
    monte_carlo_returns,
    normalized,
    whole_returns,
)
from trainer.algos.optimizers import FlatOptimizer, learning_rates
from trainer.algos.trace import Means, Totals
from trainer.config.hyperparameters import ReinforceHyperparameters
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.sensors import Inputs
from trainer.rollout.critic import ask_critic
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.rollout import Rollout
from trainer.schedules import BETA_FLOOR, scheduled


def policy_gradient_loss(log_probs: Tensor, weights: Tensor) -> Tensor:
    """(G - b) ln pi, eq. 13.8 and 13.11, negated for a minimiser; (B,) x2 -> ()."""
    return -(log_probs * weights).mean()


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Squared error, mean over rows and signals; (B, R) x2 -> ()."""
    return functional.mse_loss(values, returns)


class Reinforce:
    """Section 13.3 and 13.4 of the book, from the collected episodes on."""

    def __init__(
        self,
        policy: ActorCritic,
        hyperparameters: ReinforceHyperparameters,
        gamma: Tensor,
        max_steps: int,
        generator: torch.Generator,
    ) -> None:
        """Starts an optimiser for the actor and one for the critic.

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
        rate, epsilon = hyperparameters.learning_rate, hyperparameters.adam_epsilon
        longest = hyperparameters.max_grad_norm
        self.actor = FlatOptimizer(policy.actor_parameters(), rate, epsilon, longest)
        self.critic = FlatOptimizer(policy.critic_parameters(), rate, epsilon, longest)

    def update(self, rollout: Rollout, step: int) -> Update:
        """Learns from a rollout; see `Algorithm.update`."""
        beta = self.rates(step)["Policy/Beta"]
        steps = [*learning_rates(self.settings, step, self.max_steps).values()]
        self.actor.set_learning_rate(steps[0])
        self.critic.set_learning_rate(steps[-1])

        with torch.no_grad():  # the normaliser does not change during an update
            inputs = self.policy.inputs(rollout.obs)
            following = self.policy.inputs(rollout.bootstrap_obs)
        old_values, weights, returns = self._targets(rollout, inputs, following)
        foreseen = explained_variance(old_values, returns)  # (), before learning
        whole = Minibatch(
            inputs=inputs,
            continuous=rollout.continuous,
            discrete=rollout.discrete,
            old_log_probs=rollout.log_probs.sum(dim=1),  # (B, C + K) -> (B,)
            old_values=old_values,
            advantages=weights,
            returns=returns,
            action_mask=rollout.action_mask,
            sequences=rollout.sequences,
        )

        totals = Totals()
        self.actor.zero_gradient()
        for batch in whole.in_pieces(self.policy.actor_body.rows_at_once):
            distribution = batch.distribution_of(self.policy)
            log_probs = distribution.log_probs(batch.continuous, batch.discrete).sum(dim=1)
            policy_loss = policy_gradient_loss(log_probs, batch.advantages)
            entropy = distribution.entropies().sum(dim=1).mean()
            loss = policy_loss - beta * entropy if beta > 0 else policy_loss

            share = len(batch) / len(whole)
            (loss * share).backward()  # type: ignore[no-untyped-call] # torch has no types for it
            totals.add("Losses/Policy Loss", policy_loss * share)
            totals.add("Policy/Entropy", entropy * share)
        self.actor.step()

        statistics = totals.statistics()
        statistics["Losses/Policy Loss"] = statistics["Losses/Policy Loss"].abs()
        if self.settings.baseline != "value":
            return Update(statistics, None)
        statistics["Policy/Explained Variance"] = foreseen
        return Update({**statistics, **self._fit_critic(whole)}, old_values.mean(dim=0))

    def _fit_critic(self, whole: Minibatch) -> dict[str, Tensor]:
        """Brings the critic nearer to the returns; gives the loss by tag."""
        means = Means()
        for _ in range(self.settings.num_value_epoch):
            for batch in whole.shuffled(self.settings.batch_size, self.generator):
                loss = value_loss(batch.values_of(self.policy), batch.returns)

                self.critic.zero_gradient()
                loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
                self.critic.step()
                means.add("Losses/Value Loss", loss)
        return means.statistics()

    def rates(self, step: int) -> dict[str, float]:
        """Gives what the schedules say at a step; see `Algorithm.rates`."""
        own, end = self.settings, self.max_steps
        return {
            **learning_rates(own, step, end),
            "Policy/Beta": scheduled(own.beta_schedule, own.beta, BETA_FLOOR, step, end),
        }

    @torch.no_grad()
    def _targets(
        self, rollout: Rollout, inputs: Inputs, following: Inputs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums rewards, and says what they are compared with.

        Args:
            rollout: B decisions in S segments, episodes each.
            inputs: of its decisions.
            following: of what follows its segments.

        Returns:
            Values (B, R), 0 without a critic; the policy's weights (B,), averaged over signals;
            rewards to go (B, R).
        """
        own, ends = self.settings, rollout.is_segment_end()
        values = following_values = torch.zeros_like(rollout.rewards)
        if own.baseline == "value":
            values, bootstrap = ask_critic(self.policy, rollout, inputs, following)
            following_values = rollout.next_values(values, bootstrap)
        to_go = monte_carlo_returns(rollout.rewards, following_values, ends, self.gamma)
        returns = whole_returns(to_go, ends) if own.returns == "whole" else to_go
        weights = (returns - values).mean(dim=1)  # (B, R) -> (B,)
        if own.baseline == "mean":
            weights = weights - weights.mean()
        return values, normalized(weights) if own.normalize_advantages else weights, to_go

    def state_dict(self) -> dict[str, object]:
        """Gives the state of optimisers and shuffling."""
        return {
            "optimizer": self.actor.state_dict(),
            "critic_optimizer": self.critic.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from `state_dict`."""
        self.actor.load_state_dict(state["optimizer"])
        self.critic.load_state_dict(state["critic_optimizer"])
        generator = state["generator"]
        assert isinstance(generator, Tensor)
        self.generator.set_state(generator)
