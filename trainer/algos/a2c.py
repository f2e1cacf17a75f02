"""Advantage actor-critic: one optimizer step over the whole rollout.

Mnih et al.: "Asynchronous Methods for Deep Reinforcement Learning", arXiv 1602.01783, section 4 and
algorithm S3, with all agents in step instead of asynchronous (A2C). With `critic_target` also the
actor-critics of Sutton & Barto, 2nd edition, chapter 13: the policy gradient theorem with an
estimate of q (eq. 13.6), with the advantage (13.11), and with the error of one step (13.14).

| Paper | Here | YAML key | Usual |
|---|---|---|---|
| t_max n agents | `len(rollout)` | `buffer_size` | 80 to 2048 |
| R, n-step return | `returns` | `n_steps`, or `lambd` | 5 to 20, or 0.9 to 1 |
| R - V(s), delta, or q | `weights` | `critic_target` | advantage |
| beta | `beta` | `beta` | 0 to 0.01 |
| eta | `learning_rate` | `learning_rate` | 1e-4 to 3e-3 |
| RMSProp with shared g | `optimizers` | `optimizer` | rmsprop |
| gamma | `gamma` (R,) | `reward_signals.*.gamma` | 0.8 to 0.995 |

Differences from the paper: losses are means, not sums; the critic's gradient is weighed with
`value_coefficient`. Several reward signals each have a value head and a discount, and their weights
are averaged.

Letters: B decisions of a rollout, C continuous action size, K discrete branches,
R reward signals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.algos.base import Update
from trainer.algos.estimators import explained_variance, gae, n_step_returns, normalized
from trainer.algos.optimizers import joint_optimizers, learning_rates
from trainer.algos.trace import Totals
from trainer.config.hyperparameters import A2CHyperparameters
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.sensors import Inputs
from trainer.rollout.critic import ask_critic
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.rollout import Rollout
from trainer.schedules import BETA_FLOOR, scheduled


def policy_gradient_loss(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Log pi (R - V), algorithm S3, negated for a minimiser; (B,) x2 -> ()."""
    return -(log_probs * weights).mean()


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """(R - V)^2, algorithm S3: squared error, mean over rows and signals; (B, R) x2 -> ()."""
    return functional.mse_loss(values, returns)


class A2C:
    """Algorithm S3 of the paper, from the collected rollout on."""

    def __init__(
        self,
        policy: ActorCritic,
        hyperparameters: A2CHyperparameters,
        gamma: Tensor,
        max_steps: int,
        generator: torch.Generator,
    ) -> None:
        """Starts an optimiser over all of the policy's parameters, or one each for both parts.

        Args:
            policy: on its final device.
            hyperparameters: of the behaviour.
            gamma: (R,), one discount per reward signal.
            max_steps: where the schedules end.
            generator: not used, nothing is left to chance.
        """
        del generator
        self.policy = policy
        self.settings = hyperparameters
        self.gamma = gamma
        self.max_steps = max_steps
        self.optimizers = joint_optimizers(
            policy,
            hyperparameters.learning_rate,
            hyperparameters.critic_learning_rate,
            hyperparameters.optimizer_epsilon,
            hyperparameters.max_grad_norm,
            hyperparameters.optimizer,
        )

    def update(self, rollout: Rollout, step: int) -> Update:
        """Learns from a rollout; see `Algorithm.update`."""
        settings = self.settings
        beta = self.rates(step)["Policy/Beta"]
        steps = learning_rates(settings, step, self.max_steps)
        for optimizer, rate in zip(self.optimizers.values(), steps.values(), strict=True):
            optimizer.set_learning_rate(rate)

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
        for optimizer in self.optimizers.values():
            optimizer.zero_gradient()
        for batch in whole.in_pieces(self.policy.actor_body.rows_at_once):
            evaluation = batch.evaluated_by(self.policy)
            log_probs = evaluation.log_probs.sum(dim=1)  # (B, C + K) -> (B,)
            policy_loss = policy_gradient_loss(log_probs, batch.advantages)
            critic_loss = value_loss(evaluation.values, batch.returns)
            entropy = evaluation.entropies.sum(dim=1).mean()
            loss = policy_loss + settings.value_coefficient * critic_loss
            if beta > 0:
                loss = loss - beta * entropy

            share = len(batch) / len(whole)
            (loss * share).backward()  # type: ignore[no-untyped-call] # torch has no types for it
            totals.add("Losses/Policy Loss", policy_loss * share)
            totals.add("Losses/Value Loss", critic_loss * share)
            totals.add("Policy/Entropy", entropy * share)
        for optimizer in self.optimizers.values():
            optimizer.step()

        statistics = totals.statistics()
        statistics["Losses/Policy Loss"] = statistics["Losses/Policy Loss"].abs()
        statistics["Policy/Explained Variance"] = foreseen
        return Update(statistics, old_values.mean(dim=0))

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
        """Asks the critic, and estimates what it should have said.

        Args:
            rollout: B decisions in S segments.
            inputs: of its decisions.
            following: of what follows its segments.

        Returns:
            Values (B, R); the policy's weights (B,), averaged over signals; returns (B, R).
        """
        own = self.settings
        values, bootstrap = ask_critic(self.policy, rollout, inputs, following)
        next_values = rollout.next_values(values, bootstrap)
        ends = rollout.is_segment_end()
        if own.critic_target == "td_error":
            returns = n_step_returns(rollout.rewards, next_values, ends, self.gamma, 1)
        elif own.n_steps is not None:
            returns = n_step_returns(rollout.rewards, next_values, ends, self.gamma, own.n_steps)
        else:
            _, returns = gae(rollout.rewards, values, next_values, ends, self.gamma, own.lambd)
        weights = returns if own.critic_target == "q" else returns - values
        combined = weights.mean(dim=1)  # (B, R) -> (B,)
        return values, normalized(combined) if own.normalize_advantages else combined, returns

    def state_dict(self) -> dict[str, object]:
        """Gives the state of the optimisers."""
        return {name: own.state_dict() for name, own in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from `state_dict`."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
