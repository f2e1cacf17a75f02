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
| bound on the divergence | `target_kl` | `target_kl`, `past_target_kl` | 0.01 to 0.03 |

Differences from the paper, as ML-Agents has them: rates may fall linearly with the steps; several
reward signals each have a value head and a discount, and their advantages are averaged.
With `ratio: per_dimension` every action dimension and branch has a ratio of its own, clipped by
itself, and losses and entropies are means over dimensions (ML-Agents' objective).

Letters: B decisions of a rollout, C continuous action size, K discrete branches,
R reward signals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.algos.base import Update
from trainer.algos.estimators import approximate_kl, explained_variance, gae, normalized
from trainer.algos.optimizers import joint_optimizers, learning_rates
from trainer.algos.trace import UpdateTrace
from trainer.config.hyperparameters import PPOHyperparameters
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.sensors import Inputs
from trainer.rollout.critic import ask_critic
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.rollout import Rollout
from trainer.schedules import BETA_FLOOR, EPSILON_FLOOR, scheduled


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
        """Starts an optimiser over all of the policy's parameters, or one each for both parts.

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
        self.optimizers = joint_optimizers(
            policy,
            hyperparameters.learning_rate,
            hyperparameters.critic_learning_rate,
            hyperparameters.adam_epsilon,
            hyperparameters.max_grad_norm,
        )

    def update(self, rollout: Rollout, step: int) -> Update:
        """Learns from a rollout; see `Algorithm.update`."""
        settings = self.settings
        rates = self.rates(step)
        epsilon, beta = rates["Policy/Epsilon"], rates["Policy/Beta"]
        steps = learning_rates(settings, step, self.max_steps)
        for optimizer, rate in zip(self.optimizers.values(), steps.values(), strict=True):
            optimizer.set_learning_rate(rate)

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
                of_policy = policy_loss - beta * entropy if beta > 0 else policy_loss
                if settings.past_target_kl == "freeze_policy":
                    of_policy = of_policy * self._is_near(log_ratio)
                loss = of_policy + settings.value_coefficient * critic_loss  # eq. 9

                for optimizer in self.optimizers.values():
                    optimizer.zero_gradient()
                loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
                for optimizer in self.optimizers.values():
                    optimizer.step()
                trace.add(policy_loss, critic_loss, entropy, log_ratio)
            if self._has_left(trace):
                break

        statistics = {"Policy/Explained Variance": foreseen, **trace.statistics(epsilon)}
        return Update(statistics, old_values.mean(dim=0))

    def rates(self, step: int) -> dict[str, float]:
        """Gives what the schedules say at a step; see `Algorithm.rates`."""
        own, end = self.settings, self.max_steps
        return {
            **learning_rates(own, step, end),
            "Policy/Epsilon": scheduled(
                own.epsilon_schedule, own.epsilon, EPSILON_FLOOR, step, end
            ),
            "Policy/Beta": scheduled(own.beta_schedule, own.beta, BETA_FLOOR, step, end),
        }

    def _is_near(self, log_ratio: Tensor) -> Tensor:
        """1 as long as a minibatch's policy keeps to `target_kl`, then 0; () either way."""
        assert self.settings.target_kl is not None, "past_target_kl needs it"
        whole = log_ratio.detach().reshape(len(log_ratio), -1).sum(dim=1)  # -> (B,)
        return (approximate_kl(whole) <= self.settings.target_kl).float()

    def _has_left(self, trace: UpdateTrace) -> bool:
        """Whether the newest epoch is past `target_kl`, and that is to end the update."""
        own = self.settings
        if own.target_kl is None or own.past_target_kl != "stop":
            return False
        return trace.kl().item() > own.target_kl

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
        """Gives the state of optimisers and shuffling."""
        optimizers = {name: own.state_dict() for name, own in self.optimizers.items()}
        return {**optimizers, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from `state_dict`."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        generator = state["generator"]
        assert isinstance(generator, Tensor)
        self.generator.set_state(generator)
