"""`behaviors.<name>.hyperparameters`: how each `trainer_type` learns from a rollout.

A key means the same under every trainer_type that has it. Keys and defaults of `ppo` are
ML-Agents'; the keys it does not have are marked "(ours)", and so are all other trainer types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import model_validator

from trainer.config.model import Settings
from trainer.config.values import Count, Flag, Positive, Range, Share, contradiction

Schedule = Literal["linear", "constant"]
Ratio = Literal["joint", "per_dimension"]
PastTargetKL = Literal["stop", "freeze_policy"]
Optimizer = Literal["adam", "rmsprop"]
CriticTarget = Literal["advantage", "q", "td_error"]
KLMode = Literal["fixed", "adaptive"]
Baseline = Literal["none", "mean", "value"]
Returns = Literal["reward_to_go", "whole"]
TrainerType = Literal["ppo", "ppo_kl", "a2c", "reinforce", "trpo", "npg"]

NotNegative = Annotated[float, Range(at_least=0)]
H = TypeVar("H", bound="Hyperparameters")


class Hyperparameters(Settings):
    """What every trainer_type can be told."""

    buffer_size: Count = 10240
    """Decisions collected before an update; best a multiple of batch_size, where there is one."""

    learning_rate: Positive = 3e-4
    """Step size of the optimizer at the start. Usual: 1e-5 to 1e-3."""

    learning_rate_schedule: Schedule = "linear"
    """Whether the learning rate falls to 1e-10 at max_steps or stays. Every other schedule follows
    it unless it is given."""

    shared_critic: Flag = False
    """Whether actor and critic share their layers below the heads; only trainer types that move
    both in one optimizer step can."""

    max_grad_norm: Positive | None = None
    """(ours) Longest gradient of an optimizer step; longer ones are shortened. Null: never."""

    normalize_advantages: Flag = True
    """(ours) Whether what weighs the policy's gradient, advantages or returns, is brought to mean 0
    and deviation 1 over the rollout."""

    @property
    def minibatch_size(self) -> int | None:
        """Decisions in an optimizer step, None: those of the whole rollout."""
        return None

    @property
    def needs_whole_episodes(self) -> bool:
        """Whether a decision waits for the end of its episode before it is learnt from."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _schedules_follow(cls, given: Any) -> Any:
        followed = given.get("learning_rate_schedule") if isinstance(given, dict) else None
        if followed not in get_args(Schedule):
            return given  # nothing to follow, or a mistake, which is told once
        schedules = [name for name in cls.model_fields if name.endswith("_schedule")]
        return {**dict.fromkeys(schedules, followed), **given}

    def _refuse(self, key: str, reason: str) -> None:
        """Raises if a key that has no effect here was given."""
        value = getattr(self, key)
        if value != type(self).model_fields[key].default:
            word = str(value).lower() if isinstance(value, bool) else value
            raise contradiction(f"{key} is {word}, but {reason}", key)


class Minibatches(Hyperparameters):
    """Several optimizer steps per rollout."""

    batch_size: Count = 1024
    """Decisions in one optimizer step; of trainer types whose policy takes one step per rollout,
    in one of the critic's. Usual: 512 to 5120 with continuous actions, 32 to 512 with discrete
    ones."""

    @property
    def minibatch_size(self) -> int | None:
        """Decisions in an optimizer step, None: those of the whole rollout."""
        return self.batch_size

    @model_validator(mode="after")
    def _batch_fits_buffer(self: H) -> H:
        size = self.minibatch_size
        if size is not None and size > self.buffer_size:
            raise contradiction(
                f"batch_size is {size}, larger than buffer_size {self.buffer_size}. An "
                "optimizer step cannot use more decisions than were collected: lower batch_size or "
                "raise buffer_size",
                "batch_size",
                "buffer_size",
            )
        return self


class GradientAscent(Hyperparameters):
    """A policy that follows a gradient with a learning rate and an entropy bonus."""

    critic_learning_rate: Positive | None = None
    """(ours) Step size of the critic, with the schedule of learning_rate. Null: learning_rate. With
    max_grad_norm, actor and critic are then shortened each by itself."""

    beta: NotNegative = 5e-3
    """Weight of the entropy bonus at the start; more keeps the policy random for longer. Usual: 0
    to 1e-2."""

    beta_schedule: Schedule = "linear"
    """Whether beta falls to 1e-5 at max_steps or stays."""


class GeneralizedAdvantages(Hyperparameters):
    """Advantages as a mixture of all distances."""

    lambd: Share = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the critic, 1 only the rewards. Usual:
    0.9 to 0.99. `lambda` is accepted too."""


class Adam(Hyperparameters):
    """Steps of Adam."""

    adam_epsilon: Positive = 1e-8
    """(ours) Number that keeps Adam from dividing by zero."""


class CriticByItself(Minibatches):
    """A critic that is fitted behind the policy's step, with networks of its own."""

    num_value_epoch: Count = 3
    """(ours) Passes of the critic over one rollout, in minibatches of batch_size."""

    @model_validator(mode="after")
    def _critic_is_not_shared(self: H) -> H:
        if self.shared_critic:
            raise contradiction(
                "shared_critic is true, but this trainer_type fits the critic behind the policy's "
                "step, which would move a shared policy once more. Set it to false",
                "shared_critic",
            )
        return self


class PPOHyperparameters(Minibatches, GradientAscent, GeneralizedAdvantages, Adam):
    """Proximal policy optimisation with a clipped ratio."""

    epsilon: Annotated[float, Range(above=0, below=1)] = 0.2
    """How far the probability ratio may leave 1 before its gradient is cut. Usual: 0.1 to 0.3."""

    num_epoch: Count = 3
    """Passes over one rollout. More learns faster per step, and drifts further from the data."""

    epsilon_schedule: Schedule = "linear"
    """Whether epsilon falls to 0.1 at max_steps or stays."""

    ratio: Ratio = "joint"
    """(ours) Whether the ratio is that of the whole action, as in the paper, or one per action
    dimension and branch, as in ML-Agents."""

    target_kl: Positive | None = None
    """(ours) Bound on how far the policy may move from the one that acted. Null: none."""

    past_target_kl: PastTargetKL = "stop"
    """(ours) What happens past target_kl: the update ends after that epoch, or every minibatch that
    is past it leaves the policy as it is, while the critic goes on."""

    value_clip: Positive | None = None
    """(ours) How far a value may leave its old estimate before its gradient is cut, in units of
    return. Null: no limit."""

    value_coefficient: NotNegative = 0.5
    """(ours) Weight of the value loss."""

    recompute_advantages: Flag = False
    """(ours) Whether advantages are estimated anew, with the newest critic, before every epoch."""

    @model_validator(mode="after")
    def _bound_is_there(self) -> PPOHyperparameters:
        if self.target_kl is None:
            self._refuse("past_target_kl", "target_kl is not set. Set it, or leave this key out")
        return self


class PPOKLHyperparameters(CriticByItself, GradientAscent, GeneralizedAdvantages, Adam):
    """Proximal policy optimisation with a penalty on the divergence from the policy that acted."""

    num_epoch: Count = 3
    """Passes of the policy over one rollout; M sub-iterations in DPPO's paper."""

    kl_mode: KLMode = "adaptive"
    """(ours) Whether the penalty's weight stays, or follows the divergence after each update."""

    kl_coefficient: NotNegative = 1.0
    """(ours) Weight of the divergence, in nats, at the start. Usual: 0.3 to 10."""

    kl_target: Positive = 0.01
    """(ours) Divergence that an update is to have, in nats. Usual: 0.003 to 0.03."""

    kl_low: Annotated[float, Range(above=0, below=1)] = 2 / 3
    """(ours) Below this share of kl_target the weight falls; 1 / 1.5 in PPO's paper, 0.5 usual with
    DPPO's rule."""

    kl_high: Annotated[float, Range(above=1)] = 1.5
    """(ours) Above this multiple of kl_target the weight rises; 2 usual with DPPO's rule."""

    kl_alpha: Annotated[float, Range(above=1)] = 2.0
    """(ours) Factor by which the weight rises or falls; 1.5 usual with DPPO's rule."""

    kl_hinge: NotNegative = 0.0
    """(ours) Weight of the squared distance beyond 2 kl_target, of DPPO's paper; 50 usual there."""

    kl_stop: Annotated[float, Range(above=1)] | None = None
    """(ours) Multiple of kl_target past which the policy's passes end; 4 in DPPO's paper. Null:
    never."""

    @model_validator(mode="after")
    def _rule_is_used(self) -> PPOKLHyperparameters:
        if self.kl_mode == "fixed":
            reason = "kl_mode is fixed, so the weight never changes. Leave it out, or use adaptive"
            for key in ("kl_low", "kl_high", "kl_alpha"):
                self._refuse(key, reason)
        elif not self.kl_coefficient:
            raise contradiction(
                "kl_coefficient is 0, but kl_mode is adaptive, and no factor raises 0. Raise it, "
                "or set kl_mode to fixed",
                "kl_coefficient",
                "kl_mode",
            )
        if self.kl_mode == "fixed" and not self.kl_hinge and self.kl_stop is None:
            self._refuse(
                "kl_target",
                "kl_mode is fixed, and neither kl_hinge nor kl_stop need it. Leave it out",
            )
        return self


class A2CHyperparameters(GradientAscent):
    """Advantage actor-critic: one optimizer step over the whole rollout."""

    buffer_size: Count = 80
    """Decisions collected before an update: 5 of each of 16 agents in the paper's setting."""

    learning_rate: Positive = 7e-4
    """Step size of the optimizer at the start. Usual: 1e-4 to 3e-3."""

    max_grad_norm: Positive | None = 0.5
    """(ours) Longest gradient of an optimizer step; longer ones are shortened. Null: never."""

    normalize_advantages: Flag = False
    """(ours) Whether what weighs the policy's gradient is brought to mean 0 and deviation 1 over
    the rollout."""

    beta: NotNegative = 0.01
    """Weight of the entropy bonus at the start; more keeps the policy random for longer. Usual: 0
    to 1e-2."""

    lambd: Share = 1.0
    """Lambda of generalised advantage estimation: 1 sums rewards to the end of a segment, as the
    paper does, 0 trusts the critic. `lambda` is accepted too."""

    n_steps: Count | None = None
    """(ours) Rewards that a return sums before the critic is asked. Null: as lambd says."""

    critic_target: CriticTarget = "advantage"
    """(ours) What weighs the policy's gradient: the return less the value, the return itself
    (Q-actor-critic), or the error of one step (TD actor-critic)."""

    value_coefficient: NotNegative = 0.5
    """(ours) Weight of the value loss."""

    optimizer: Optimizer = "rmsprop"
    """(ours) RMSprop as in the paper, or Adam."""

    optimizer_epsilon: Positive = 1e-5
    """(ours) Number that keeps the optimizer from dividing by zero."""

    @model_validator(mode="after")
    def _one_look_ahead(self) -> A2CHyperparameters:
        if self.critic_target == "td_error":
            reason = "critic_target is td_error, which looks one step ahead. Leave it out"
            self._refuse("n_steps", reason)
            self._refuse("lambd", reason)
        if self.n_steps is not None:
            self._refuse("lambd", f"n_steps is {self.n_steps}. Give one of them")
        return self


class ReinforceHyperparameters(CriticByItself, GradientAscent, Adam):
    """Monte-Carlo policy gradient: one optimizer step over whole episodes."""

    buffer_size: Count = 2048
    """Decisions of whole episodes collected before an update."""

    learning_rate: Positive = 3e-3
    """Step size of the optimizer at the start. Usual: 1e-3 to 1e-2."""

    normalize_advantages: Flag = False
    """(ours) Whether what weighs the policy's gradient is brought to mean 0 and deviation 1 over
    the rollout."""

    baseline: Baseline = "value"
    """(ours) What returns are compared with: nothing, their mean over the rollout, or the critic,
    which then also says what follows an episode that was cut."""

    returns: Returns = "reward_to_go"
    """(ours) Whether a decision is weighed with the rewards behind it, or with all of its
    episode's."""

    @model_validator(mode="after")
    def _critic_is_used(self) -> ReinforceHyperparameters:
        if self.baseline != "value":
            reason = f"baseline is {self.baseline}, which has no critic. Leave it out"
            for key in ("batch_size", "num_value_epoch", "critic_learning_rate"):
                self._refuse(key, reason)
        if self.baseline == "none":
            self._refuse(
                "normalize_advantages",
                "baseline is none, and mean 0 is what baseline mean is. Leave it out, or set "
                "baseline to mean",
            )
        return self

    @property
    def minibatch_size(self) -> int | None:
        """Decisions in an optimizer step of the critic, if there is one."""
        return self.batch_size if self.baseline == "value" else None

    @property
    def needs_whole_episodes(self) -> bool:
        """Whether a decision waits for the end of its episode before it is learnt from."""
        return True


class NaturalGradient(CriticByItself, GeneralizedAdvantages, Adam):
    """A step of known divergence; the learning rate is the critic's alone."""

    learning_rate: Positive = 1e-3
    """Step size of the critic's optimizer at the start; the policy's step follows from max_kl.
    Usual: 3e-4 to 3e-3."""

    max_kl: Positive = 0.01
    """(ours) Divergence from the policy that acted that a step may have, in nats. Usual: 0.001 to
    0.05."""

    num_cg_iterations: Count = 10
    """(ours) Iterations of conjugate gradients, a Fisher-vector product each. Usual: 10 to 20."""

    cg_damping: NotNegative = 0.1
    """(ours) Multiple of the identity added to the Fisher matrix. Usual: 1e-3 to 0.1."""


class TRPOHyperparameters(NaturalGradient):
    """Trust-region policy optimisation: a natural gradient step with a line search."""

    num_backtracks: Count = 10
    """(ours) Steps that are tried, each shorter than the one before, until one keeps to max_kl and
    improves the surrogate; if none does, the policy stays as it is."""

    backtrack_ratio: Annotated[float, Range(above=0, below=1)] = 0.8
    """(ours) How much shorter each of them is."""


class NPGHyperparameters(NaturalGradient):
    """Natural policy gradient: the step of trpo without its line search."""


HYPERPARAMETERS: Mapping[str, type[Hyperparameters]] = {
    "ppo": PPOHyperparameters,
    "ppo_kl": PPOKLHyperparameters,
    "a2c": A2CHyperparameters,
    "reinforce": ReinforceHyperparameters,
    "trpo": TRPOHyperparameters,
    "npg": NPGHyperparameters,
}
