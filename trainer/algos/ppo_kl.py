"""Proximal policy optimisation with a penalty on the divergence from the policy that acted.

Schulman et al.: "Proximal Policy Optimization Algorithms", arXiv 1707.06347, section 4, eq. 8.
Heess et al.: "Emergence of Locomotion Behaviours in Rich Environments", arXiv 1707.02286 (DPPO),
algorithms 1 and 3, here with one worker.

| Paper | Here | YAML key | Usual |
|---|---|---|---|
| beta; lambda in DPPO | `coefficient` | `kl_coefficient` | 0.3 to 10 |
| d_targ; KL_target | `target` | `kl_target` | 0.003 to 0.03 |
| 1 / 1.5; beta_low | `low` | `kl_low` | 0.5 to 0.67 |
| 1.5; beta_high | `high` | `kl_high` | 1.5 to 2 |
| 2; alpha | `alpha` | `kl_alpha` | 1.5 to 2 |
| xi, of the hinge beyond 2 KL_target | `hinge` | `kl_hinge` | 0 or 50 |
| 4, past which sub-iterations end | `kl_stop` | `kl_stop` | null or 4 |
| K epochs; M sub-iterations | `num_epoch` | `num_epoch` | 3 to 20 |
| B sub-iterations of the baseline | `num_value_epoch` | `num_value_epoch` | 3 to 20 |
| c2 | `beta` | `beta` | 0 to 0.01 |
| r_t(theta) | `ratio` | | |

Differences from the papers: passes go through minibatches, as in PPO; the coefficient stays within
1e-6 and 1e6, so that it always finds back. Several reward signals each have a value head and a
discount, and their advantages are averaged.

Letters: B decisions of a rollout, C continuous action size, L sum of branch sizes, R reward
signals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainer.algos.base import Update
from trainer.algos.estimators import explained_variance, gae, normalized
from trainer.algos.optimizers import FlatOptimizer, learning_rates
from trainer.algos.trace import Means
from trainer.config.hyperparameters import PPOKLHyperparameters
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.sensors import Inputs
from trainer.rollout.critic import ask_critic
from trainer.rollout.minibatch import Minibatch
from trainer.rollout.rollout import Rollout
from trainer.schedules import BETA_FLOOR, scheduled

SMALLEST_COEFFICIENT, LARGEST_COEFFICIENT = 1e-6, 1e6


def penalised_surrogate(
    ratio: Tensor, advantages: Tensor, kl: Tensor, coefficient: float, target: float, hinge: float
) -> Tensor:
    """L^KLPEN, eq. 8, with DPPO's hinge, negated for a minimiser; (B,) x3 -> ()."""
    mean_kl = kl.mean()
    beyond = (mean_kl - 2 * target).clamp(min=0)
    return -(ratio * advantages).mean() + coefficient * mean_kl + hinge * beyond**2


def adapted(
    coefficient: float, kl: float, target: float, low: float, high: float, alpha: float
) -> float:
    """Section 4 (DPPO: algorithm 1): the coefficient after an update of divergence `kl`."""
    if kl > high * target:
        coefficient *= alpha
    elif kl < low * target:
        coefficient /= alpha
    return min(max(coefficient, SMALLEST_COEFFICIENT), LARGEST_COEFFICIENT)


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """L^BL, squared error, mean over rows and signals; (B, R) x2 -> ()."""
    return functional.mse_loss(values, returns)


class PPOKL:
    """Section 4 of the PPO paper, with the sub-iterations of DPPO's algorithm 1."""

    def __init__(
        self,
        policy: ActorCritic,
        hyperparameters: PPOKLHyperparameters,
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
            generator: shuffles the minibatches; on the CPU.
        """
        self.policy = policy
        self.settings = hyperparameters
        self.gamma = gamma
        self.max_steps = max_steps
        self.generator = generator
        self.coefficient = hyperparameters.kl_coefficient
        rate, epsilon = hyperparameters.learning_rate, hyperparameters.adam_epsilon
        longest = hyperparameters.max_grad_norm
        self.actor = FlatOptimizer(policy.actor_parameters(), rate, epsilon, longest)
        self.critic = FlatOptimizer(policy.critic_parameters(), rate, epsilon, longest)

    def update(self, rollout: Rollout, step: int) -> Update:
        """Learns from a rollout; see `Algorithm.update`."""
        rates = self.rates(step)
        steps = [*learning_rates(self.settings, step, self.max_steps).values()]
        self.actor.set_learning_rate(steps[0])
        self.critic.set_learning_rate(steps[-1])

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

        means = Means()
        num_epochs = self._move_policy(whole, rates["Policy/Beta"], means)
        self._fit_critic(whole, means)
        kl = whole.divergence_of(self.policy)  # ()
        if self.settings.kl_mode == "adaptive":
            self._adapt(kl.item())

        statistics = means.statistics()
        statistics["Losses/Policy Loss"] = statistics["Losses/Policy Loss"].abs()
        statistics["Policy/Explained Variance"] = foreseen
        statistics["Policy/KL"] = kl
        statistics["Policy/KL Coefficient"] = torch.tensor(self.coefficient)
        statistics["Policy/Epochs"] = torch.tensor(float(num_epochs))
        return Update(statistics, old_values.mean(dim=0))

    def _move_policy(self, whole: Minibatch, beta: float, means: Means) -> int:
        """M sub-iterations of the actor; gives how many there were."""
        own = self.settings
        for epoch in range(own.num_epoch):
            of_epoch = Means()
            for batch in whole.shuffled(own.batch_size, self.generator):
                distribution = batch.distribution_of(self.policy)
                log_probs = distribution.log_probs(batch.continuous, batch.discrete).sum(dim=1)
                ratio = (log_probs - batch.old_log_probs).exp()
                kl = distribution.kl_from(batch.old_distribution_of(self.policy))
                policy_loss = penalised_surrogate(
                    ratio, batch.advantages, kl, self.coefficient, own.kl_target, own.kl_hinge
                )
                entropy = distribution.entropies().sum(dim=1).mean()
                loss = policy_loss - beta * entropy if beta > 0 else policy_loss

                self.actor.zero_gradient()
                loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
                self.actor.step()
                means.add("Losses/Policy Loss", policy_loss)
                means.add("Policy/Entropy", entropy)
                of_epoch.add("KL", kl.mean())
            if own.kl_stop is not None:
                limit = own.kl_stop * own.kl_target
                if of_epoch.statistics()["KL"].item() > limit:
                    return epoch + 1
        return own.num_epoch

    def _fit_critic(self, whole: Minibatch, means: Means) -> None:
        """B sub-iterations of the baseline."""
        for _ in range(self.settings.num_value_epoch):
            for batch in whole.shuffled(self.settings.batch_size, self.generator):
                loss = value_loss(batch.values_of(self.policy), batch.returns)

                self.critic.zero_gradient()
                loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
                self.critic.step()
                means.add("Losses/Value Loss", loss)

    def _adapt(self, kl: float) -> None:
        own = self.settings
        self.coefficient = adapted(
            self.coefficient, kl, own.kl_target, own.kl_low, own.kl_high, own.kl_alpha
        )

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
        return (
            values,
            normalized(combined) if self.settings.normalize_advantages else combined,
            returns,
        )

    def state_dict(self) -> dict[str, object]:
        """Gives the state of optimisers, shuffling and coefficient."""
        return {
            "optimizer": self.actor.state_dict(),
            "critic_optimizer": self.critic.state_dict(),
            "kl_coefficient": self.coefficient,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Goes on from `state_dict`; a fixed coefficient is the settings'."""
        self.actor.load_state_dict(state["optimizer"])
        self.critic.load_state_dict(state["critic_optimizer"])
        coefficient, generator = state["kl_coefficient"], state["generator"]
        assert isinstance(coefficient, float)
        assert isinstance(generator, Tensor)
        if self.settings.kl_mode == "adaptive":
            self.coefficient = coefficient
        self.generator.set_state(generator)
