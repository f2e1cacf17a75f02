"""`behaviors.<name>`: everything one behaviour is trained with.

Keys and defaults are ML-Agents'; the keys it does not have are marked "(ours)".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from trainer.config.model import Settings
from trainer.config.problems import program
from trainer.config.values import Count, Flag, Positive, Range, Share, Words, contradiction

Schedule = Literal["linear", "constant"]
Ratio = Literal["joint", "per_dimension"]
Activation = Literal["swish", "tanh", "relu", "elu"]
Initialization = Literal["kaiming", "orthogonal"]
VisualEncoder = Literal["simple", "nature_cnn", "resnet", "match3", "fully_connected"]


class PPOHyperparameters(Settings):
    """How PPO learns from a rollout."""

    batch_size: Count = 1024
    """Decisions in one optimizer step. Usual: 512 to 5120 with continuous actions, 32 to 512 with
    discrete ones."""

    buffer_size: Count = 10240
    """Decisions collected before an update; best a multiple of batch_size."""

    learning_rate: Positive = 3e-4
    """Step size of Adam at the start. Usual: 1e-5 to 1e-3."""

    beta: Annotated[float, Range(at_least=0)] = 5e-3
    """Weight of the entropy bonus at the start; more keeps the policy random for longer. Usual: 0
    to 1e-2."""

    epsilon: Annotated[float, Range(above=0, below=1)] = 0.2
    """How far the probability ratio may leave 1 before its gradient is cut. Usual: 0.1 to 0.3."""

    lambd: Share = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the critic, 1 only the rewards. Usual:
    0.9 to 0.99. `lambda` is accepted too."""

    num_epoch: Count = 3
    """Passes over one rollout. More learns faster per step, and drifts further from the data."""

    shared_critic: Flag = False
    """Whether actor and critic share their layers below the heads."""

    learning_rate_schedule: Schedule = "linear"
    """Whether the learning rate falls to 1e-10 at max_steps or stays. beta_schedule and
    epsilon_schedule follow it unless they are given."""

    beta_schedule: Schedule = "linear"
    """Whether beta falls to 1e-5 at max_steps or stays."""

    epsilon_schedule: Schedule = "linear"
    """Whether epsilon falls to 0.1 at max_steps or stays."""

    ratio: Ratio = "joint"
    """(ours) Whether the ratio is that of the whole action, as in the paper, or one per action
    dimension and branch, as in ML-Agents."""

    max_grad_norm: Positive | None = None
    """(ours) Longest gradient of an optimizer step; longer ones are shortened. Null: never."""

    target_kl: Positive | None = None
    """(ours) Ends an update early once the policy has moved this far from the one that acted.
    Null: never."""

    value_clip: Positive | None = None
    """(ours) How far a value may leave its old estimate before its gradient is cut, in units of
    return. Null: no limit."""

    value_coefficient: Annotated[float, Range(at_least=0)] = 0.5
    """(ours) Weight of the value loss."""

    normalize_advantages: Flag = True
    """(ours) Whether advantages are brought to mean 0 and deviation 1 over the rollout."""

    recompute_advantages: Flag = False
    """(ours) Whether advantages are estimated anew, with the newest critic, before every epoch."""

    adam_epsilon: Positive = 1e-8
    """(ours) Number that keeps Adam from dividing by zero."""

    @model_validator(mode="before")
    @classmethod
    def _schedules_follow(cls, given: Any) -> Any:
        followed = given.get("learning_rate_schedule") if isinstance(given, dict) else None
        if followed not in get_args(Schedule):
            return given  # nothing to follow, or a mistake, which is told once
        return {"beta_schedule": followed, "epsilon_schedule": followed, **given}

    @model_validator(mode="after")
    def _batch_fits_buffer(self) -> PPOHyperparameters:
        if self.batch_size > self.buffer_size:
            raise contradiction(
                f"batch_size is {self.batch_size}, larger than buffer_size {self.buffer_size}. An "
                "optimizer step cannot use more decisions than were collected: lower batch_size or "
                "raise buffer_size",
                "batch_size",
                "buffer_size",
            )
        return self


class MemorySettings(Settings):
    """An LSTM between body and heads; actor and critic have one each unless shared_critic."""

    memory_size: Annotated[int, Range(at_least=2, even=True)] = 128
    """Numbers that an agent carries from one decision to the next, half of them hidden state and
    half cell state. Usual: 32 to 256."""

    sequence_length: Count = 64
    """Decisions that learning looks back over; longer segments are cut. An optimizer step takes
    batch_size / sequence_length sequences, short ones at the end of an episode counted as whole
    ones. Usual: 4 to 128."""


class NetworkSettings(Settings):
    """Shape of a network; actor and critic have one each unless shared_critic."""

    normalize: Flag = False
    """Whether vector observations are brought to mean 0 and deviation 1 as they are met."""

    hidden_units: Count = 128
    """Width of every dense layer. Usual: 32 to 512."""

    num_layers: Count = 2
    """Dense layers between observations and heads. Usual: 1 to 3."""

    vis_encode_type: VisualEncoder = "simple"
    """Which network reads images, at least 20, 36, 15, 5 or 1 pixels high and wide (in the order
    of the words); no effect without images."""

    memory: MemorySettings | None = None
    """What agents remember; null: nothing, they act on what they see."""

    goal_conditioning_type: Literal["hyper", "none"] = "hyper"
    """How goal observations steer the network: a second network makes the weights of the last dense
    layer from them, or they are read like any other observation. No effect without them."""

    deterministic: Flag = False
    """Whether training acts with the most likely action instead of a drawn one."""

    activation: Activation = "swish"
    """(ours) Function between dense layers; those behind convolutions stay what they are."""

    initialization: Initialization = "kaiming"
    """(ours) How first weights of dense and convolutional layers are drawn: as ML-Agents does, or
    orthogonal as in PPO's reference code."""

    initial_log_std: Annotated[float, Range(at_least=-20, at_most=2)] = 0.0
    """(ours) Logarithm of the standard deviation that continuous actions start with."""


class RewardSignalSettings(Settings):
    """One source of reward; each has its own value head."""

    gamma: Share = 0.99
    """Discount per decision. Usual: 0.8 to 0.995."""

    strength: Annotated[float, Range()] = 1.0
    """Factor on this signal's rewards."""

    network_settings: NetworkSettings = Field(default_factory=NetworkSettings)
    """Network of signals that have one; extrinsic has none."""


class PlateauSettings(Settings):
    """When the mean reward counts as rising no more."""

    patience: Count = 500000
    """(ours) Steps without a new best mean reward after which training ends."""

    min_delta: Annotated[float, Range(at_least=0)] = 0.0
    """(ours) How far a mean reward has to be above the best one to be a new best."""


class BehaviorStopSettings(Settings):
    """When a behaviour has learnt enough; the run ends once all have, or are at max_steps."""

    threshold: Annotated[float, Range()] | None = None
    """(ours) Mean reward of the last 100 episodes at which training ends. Null: none does."""

    plateau: PlateauSettings | None = None
    """(ours) Ends training when the mean reward of the last 100 episodes rises no more. Null:
    never."""

    min_episodes: Annotated[int, Range(at_least=1, at_most=100)] = 100
    """(ours) Episodes that must have ended before their mean reward says anything."""


class BehaviorSettings(Settings):
    """One behaviour's trainer."""

    trainer_type: Literal["ppo"] = "ppo"
    """Learning algorithm."""

    hyperparameters: PPOHyperparameters = Field(default_factory=PPOHyperparameters)
    """How the algorithm learns."""

    checkpoint_interval: Count = 500000
    """Steps between checkpoints; even_checkpoints overrides it."""

    network_settings: NetworkSettings = Field(default_factory=NetworkSettings)
    """Shape of actor and critic."""

    reward_signals: Mapping[str, RewardSignalSettings] = Field(
        default_factory=lambda: {"extrinsic": RewardSignalSettings()}
    )
    """Sources of reward by name: extrinsic is the simulator's own."""

    init_path: Words | None = None
    """Checkpoint file (.pt) that first weights come from."""

    keep_checkpoints: Annotated[int, Range()] = 5
    """How many checkpoints to keep; 0 or less keeps all."""

    even_checkpoints: Flag = False
    """Whether checkpoint_interval becomes max_steps / keep_checkpoints."""

    max_steps: Count = 500000
    """Decisions of all agents together after which training ends."""

    time_horizon: Count = 64
    """Longest segment: an agent's decisions are cut here and the critic estimates what follows."""

    summary_freq: Count = 50000
    """Steps between two lines of statistics."""

    threaded: Flag = False
    """Whether updates run beside collection; only false so far."""

    stop: BehaviorStopSettings = Field(default_factory=BehaviorStopSettings)
    """(ours) When training ends before max_steps; looked at with every summary."""

    @model_validator(mode="after")
    def _updates_in_turn(self) -> BehaviorSettings:
        if self.threaded:
            raise contradiction(
                "threaded is true and asks for updates beside collection, not supported yet by "
                f"{program()}. Set it to false",
                "threaded",
            )
        return self

    @model_validator(mode="after")
    def _sequences_fit_batch(self) -> BehaviorSettings:
        memory, batch_size = self.network_settings.memory, self.hyperparameters.batch_size
        if memory is not None and memory.sequence_length > batch_size:
            raise contradiction(
                f"network_settings.memory.sequence_length is {memory.sequence_length}, larger than "
                f"hyperparameters.batch_size {batch_size}. An optimizer step takes whole "
                "sequences: lower sequence_length or raise batch_size",
                "network_settings.memory.sequence_length",
                "hyperparameters.batch_size",
            )
        return self

    @model_validator(mode="after")
    def _checkpoints_fit(self) -> BehaviorSettings:
        if not self.even_checkpoints:
            return self
        if not 1 <= self.keep_checkpoints <= self.max_steps:
            raise contradiction(
                f"even_checkpoints is true, but keep_checkpoints is {self.keep_checkpoints} and "
                f"max_steps {self.max_steps}. Even checkpoints come every max_steps / "
                "keep_checkpoints steps: set keep_checkpoints between 1 and max_steps, or "
                "even_checkpoints to false",
                "even_checkpoints",
                "keep_checkpoints",
                "max_steps",
            )
        # The field is a promise to whoever reads it, so it holds what really happens.
        interval = self.max_steps // self.keep_checkpoints
        object.__setattr__(self, "checkpoint_interval", interval)
        return self
