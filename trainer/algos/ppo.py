"""Proximal policy optimisation with a clipped surrogate.

Schulman, Wolski, Dhariwal, Radford, Klimov: "Proximal Policy Optimization Algorithms",
arXiv 1707.06347: objective eq. 7 and 9, algorithm 1; advantages eq. 11 (GAE, arXiv 1506.02438).

| Paper | Here | YAML key | Usual |
|---|---|---|---|
| epsilon | `epsilon` | `epsilon` | 0.1 to 0.3 |
| K epochs | `num_epoch` | `num_epoch` | 3 to 10 |
| M minibatch | `batch_size` | `batch_size` | 64 to 2048 |
| N T timesteps | `len(rollout)` | `buffer_size` | 2048 to 20480 |
| c1 | `value_coefficient` | `value_coefficient` | 0.5 |
| c2 | `beta` | `beta` | 0 to 0.01 |
| lambda | `lambd` | `lambd` | 0.9 to 0.99 |
| gamma | `gamma` (R,) | `reward_signals.*.gamma` | 0.8 to 0.995 |
| r_t(theta) | `ratio` | `ratio` | joint |

Differences from the paper, as ML-Agents has them: rates may fall linearly with the steps; several
reward signals each have a value head and a discount, and their advantages are averaged.
With `ratio: per_dimension` every action dimension and branch has a ratio of its own, clipped by
itself, and losses and entropies are means over dimensions (ML-Agents' objective).

Letters: B decisions of a rollout, C continuous action size, K discrete branches,
R reward signals.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional

from trainer.algos.base import Update
from trainer.algos.estimators import explained_variance, gae, normalized
from trainer.algos.trace import UpdateTrace
from trainer.config.settings import PPOHyperparameters
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.flat_parameters import FlatParameters
from trainer.nn.sensors import Inputs
from trainer.rollout.critic import ask_critic
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.rollout import Rollout
from trainer.schedules import BETA_FLOOR, EPSILON_FLOOR, LEARNING_RATE_FLOOR, scheduled


def clipped_surrogate(ratio: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """L^CLIP, eq. 7, negated for a minimiser; (B,) x2 -> (), or (B, C + K) and (B, 1)."""
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, value_clip: float | None
) -> Tensor:
    """L^VF, eq. 9: squared error, mean over rows and signals; (B, R) x3 -> ().

    With `value_clip` the critic gains nothing from moving further than that from its old value.
    """
    if value_clip is None:
        return functional.mse_loss(values, returns)
    near = old_values + (values - old_values).clamp(-value_clip, value_clip)
    return torch.maximum((values - returns) ** 2, (near - returns) ** 2).mean()


class PPO:
    """Algorithm 1 of the paper, from the collected rollout on."""

    def __init__(
        self,
        policy: ActorCritic,
        hyperparameters: PPOHyperparameters,
        gamma: Tensor,
        max_steps: int,
        generator: torch.Generator,
    ) -> None:
        """Starts an optimiser over all of the policy's parameters.

        Args:
            policy: on its final device.
            hyperparameters: of the behaviour.
            gamma: (R,), one discount per reward signal.
            max_steps: where the schedules end.
            generator: shuffles the minibatches; on the CPU.
        """
        self.policy = policy
        self.settings = hyperparameters
        self.gamma = gamma
        self.max_steps = max_steps
        self.generator = generator
        self.parameters = FlatParameters(policy)
        self.optimizer = torch.optim.Adam(
            [self.parameters.vector],
            lr=hyperparameters.learning_rate,
            eps=hyperparameters.adam_epsilon,
            fused=True,
        )

    def update(self, rollout: Rollout, step: int) -> Update:
        """Learns from a rollout; see `Algorithm.update`."""
        settings = self.settings
        learning_rate, epsilon, beta = self._scheduled(step)
        self.optimizer.param_groups[0]["lr"] = learning_rate

        with torch.no_grad():  # the normaliser does not change during an update
            inputs = self.policy.inputs(rollout.obs)
            following = self.policy.inputs(rollout.bootstrap_obs)
        old_log_probs = self._of_ratio(rollout.log_probs)
        old_values, advantages, returns = self._targets(rollout, inputs, following)
        foreseen = explained_variance(old_values, returns)  # (), before learning

        trace = UpdateTrace()
        for epoch in range(settings.num_epoch):
            if epoch > 0 and settings.recompute_advantages:
                # "What Matters in On-Policy RL", arXiv 2006.05990, section 3.5
                _, advantages, returns = self._targets(rollout, inputs, following)
            trace.begin_epoch()
            whole = Minibatch(
                inputs=inputs,
                continuous=rollout.continuous,
                discrete=rollout.discrete,
                old_log_probs=old_log_probs,
                old_values=old_values,
                advantages=advantages,
                returns=returns,
                action_mask=rollout.action_mask,
                sequences=rollout.sequences,
            )
            for batch in whole.shuffled(settings.batch_size, self.generator):
                evaluation = batch.evaluated_by(self.policy)
                log_ratio = self._of_ratio(evaluation.log_probs) - batch.old_log_probs
                policy_loss = clipped_surrogate(log_ratio.exp(), batch.advantages, epsilon)
                critic_loss = value_loss(
                    evaluation.values, batch.old_values, batch.returns, settings.value_clip
                )
                entropy = self._entropy(evaluation.entropies)
                loss = policy_loss + settings.value_coefficient * critic_loss  # eq. 9
                if beta > 0:
                    loss = loss - beta * entropy

                self.parameters.zero_gradient()
                loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
                if settings.max_grad_norm is not None:
                    self.parameters.clip_gradient(settings.max_grad_norm)
                self.optimizer.step()
                trace.add(policy_loss, critic_loss, entropy, log_ratio)
            if settings.target_kl is not None and trace.kl().item() > settings.target_kl:
                break

        statistics = {"Policy/Explained Variance": foreseen, **trace.statistics(epsilon)}
        return Update(statistics, old_values.mean(dim=0))

    def rates(self, step: int) -> dict[str, float]:
        """Gives what the schedules say at a step; see `Algorithm.rates`."""
        names = ("Policy/Learning Rate", "Policy/Epsilon", "Policy/Beta")
        return dict(zip(names, self._scheduled(step), strict=True))

    def _scheduled(self, step: int) -> tuple[float, float, float]:
        """Gives learning rate, epsilon and beta at a step."""
        own, end = self.settings, self.max_steps
        return (
            scheduled(
                own.learning_rate_schedule, own.learning_rate, LEARNING_RATE_FLOOR, step, end
            ),
            scheduled(own.epsilon_schedule, own.epsilon, EPSILON_FLOOR, step, end),
            scheduled(own.beta_schedule, own.beta, BETA_FLOOR, step, end),
        )

    def _of_ratio(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities that one ratio is made of; (B, C + K) -> (B,) or unchanged."""
        return log_probs.sum(dim=1) if self.settings.ratio == "joint" else log_probs

    def _entropy(self, entropies: Tensor) -> Tensor:
        """Entropy of the whole action, or ML-Agents' mean over dimensions; (B, C + K) -> ()."""
        if self.settings.ratio == "joint":
            return entropies.sum(dim=1).mean()
        size = self.policy.continuous_size
        branches = entropies[:, size:].sum(dim=1).mean()
        return branches + entropies[:, :size].mean() if size else branches

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
            Values (B, R); advantages (B,) or (B, 1), averaged over signals; returns (B, R).
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
        if self.settings.ratio == "per_dimension":
            combined = combined.unsqueeze(1)  # (B,) -> (B, 1)
        return values, combined, returns

    def state_dict(self) -> dict[str, object]:
        """Gives the state of optimiser and shuffling."""
        return {
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from `state_dict`."""
        optimizer, generator = state["optimizer"], state["generator"]
        assert isinstance(optimizer, dict)
        assert isinstance(generator, Tensor)
        self.optimizer.load_state_dict(optimizer)
        # It brings its own; a number that the user has changed since is to count.
        self.optimizer.param_groups[0]["eps"] = self.settings.adam_epsilon
        self.generator.set_state(generator)
