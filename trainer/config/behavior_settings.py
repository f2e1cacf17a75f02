"""`behaviors.<name>`: everything one behaviour is trained with.

Keys and defaults are ML-Agents'; the keys it does not have are marked "(ours)".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from trainer.config.hyperparameters import (
    HYPERPARAMETERS,
    Hyperparameters,
    PPOHyperparameters,
    TrainerType,
)
from trainer.config.model import Settings
from trainer.config.values import Count, Flag, Positive, Range, Share, Words, contradiction

Activation = Literal["swish", "tanh", "relu", "elu"]
Initialization = Literal["kaiming", "orthogonal"]
StdType = Literal["learned", "fixed", "state_log_std", "state_softplus"]
VisualEncoder = Literal["simple", "nature_cnn", "resnet", "match3", "fully_connected"]

MIN_STD = 0.01
# Most of a rollout lags by 1, what was open when the one before was taken by 2; 1 more for those
# that are late. An agent or episode beyond that has been left behind by every minibatch of three
# updates, and a clipped ratio has little to say of it.
MAX_POLICY_LAG = 3


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

    normalize_clip: Positive = 5.0
    """(ours) Deviations from the mean at which normalised observations are cut; only with
    normalize."""

    hidden_units: Count = 128
    """Width of every dense layer. Usual: 32 to 512."""

    num_layers: Count = 2
    """Dense layers between observations and heads. Usual: 1 to 3."""

    critic_hidden_units: Count | None = None
    """(ours) Width of the critic's dense layers. Null: hidden_units."""

    critic_num_layers: Count | None = None
    """(ours) Dense layers of the critic. Null: num_layers."""

    layer_norm: Flag = False
    """(ours) Whether every dense layer's outputs are brought to mean 0 and deviation 1, row by row
    and without weights of their own, before the activation."""

    bounded_mean: Flag = False
    """(ours) Whether a final tanh keeps the mean of continuous actions within their bounds; nothing
    happens to actions that are drawn around it."""

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
    """(ours) Logarithm of the standard deviation that continuous actions start with, in a unit in
    which their bounds are -3 and 3: -1.2 is 0.05 of the way from one to the other."""

    std_type: StdType = "learned"
    """(ours) What that standard deviation is later: a number per dimension that is learnt, as in
    ML-Agents, or stays fixed; or what a layer of its own says of every observation, as a logarithm
    within -20 and 2, or through softplus and with min_std added."""

    min_std: Annotated[float, Range(at_least=1e-4)] = MIN_STD
    """(ours) Floor below the standard deviation of std_type state_softplus."""

    @model_validator(mode="after")
    def _clip_is_used(self) -> NetworkSettings:
        if not self.normalize and self.normalize_clip != 5.0:
            raise contradiction(
                f"normalize_clip is {self.normalize_clip:g}, but normalize is false, so nothing is "
                "cut. Set normalize to true, or leave normalize_clip out",
                "normalize_clip",
                "normalize",
            )
        return self

    @model_validator(mode="after")
    def _floor_is_used(self) -> NetworkSettings:
        if self.std_type != "state_softplus" and self.min_std != MIN_STD:
            raise contradiction(
                f"min_std is {self.min_std:g}, but std_type is {self.std_type}, which has no "
                "floor. Set std_type to state_softplus, or leave min_std out",
                "min_std",
                "std_type",
            )
        first = math.exp(self.initial_log_std)
        if self.std_type == "state_softplus" and first <= self.min_std:
            raise contradiction(
                f"initial_log_std is {self.initial_log_std:g}, a standard deviation of "
                f"{first:.2g}, but min_std is {self.min_std:g} and nothing is below it. Raise "
                "initial_log_std or lower min_std",
                "initial_log_std",
                "min_std",
            )
        return self


class RewardSignalSettings(Settings):
    """One source of reward; each has its own value head."""

    gamma: Share = 0.99
    """Discount per decision. Usual: 0.8 to 0.995."""

    strength: Annotated[float, Range()] = 1.0
    """Factor on this signal's rewards."""

    normalize: Flag = False
    """(ours) Whether rewards are divided by the running deviation of their discounted sum; then
    strength has no unit, and 1 fits most tasks."""

    clip: Positive | None = None
    """(ours) Largest size of a reward, after normalize and before strength. Null: any. Usual with
    normalize: 10."""

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

    trainer_type: TrainerType = "ppo"
    """Learning algorithm; docs/algorithms.md describes each. All but ppo are ours."""

    hyperparameters: SerializeAsAny[Hyperparameters] = Field(default_factory=PPOHyperparameters)
    """How the algorithm learns; the keys are those of the trainer_type."""

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
    """Whether updates run beside collection, which goes on with the policy of the last update that
    is over. Reproducible runs update in turn all the same, and say so."""

    max_policy_lag: Annotated[int, Range(at_least=1)] | None = None
    """(ours) With threaded: how many updates ago a decision may have been chosen, to be learnt
    from; older ones are dropped, and counted in Policy/Stale Steps. Null: 3."""

    @model_validator(mode="before")
    @classmethod
    def _hyperparameters_are_read(cls, given: Any) -> Any:
        return {"hyperparameters": {}, **given} if isinstance(given, dict) else given

    @field_validator("hyperparameters", mode="plain")
    @classmethod
    def _of_the_trainer(cls, given: Any, info: ValidationInfo) -> Hyperparameters:
        # A wrong trainer_type is told by itself.
        return HYPERPARAMETERS[info.data.get("trainer_type", "ppo")].model_validate(given)

    stop: BehaviorStopSettings = Field(default_factory=BehaviorStopSettings)
    """(ours) When training ends before max_steps; looked at with every summary."""

    @property
    def policy_lag_bound(self) -> int:
        """Updates that a decision may be old; only with `threaded`."""
        return MAX_POLICY_LAG if self.max_policy_lag is None else self.max_policy_lag

    @model_validator(mode="after")
    def _lag_has_a_reason(self) -> BehaviorSettings:
        if self.max_policy_lag is not None and not self.threaded:
            raise contradiction(
                f"max_policy_lag is {self.max_policy_lag}, but threaded is false: updates in turn "
                "with collection learn from everything. Leave max_policy_lag out, or set threaded "
                "to true",
                "max_policy_lag",
                "threaded",
            )
        return self

    @model_validator(mode="after")
    def _something_is_rewarded(self) -> BehaviorSettings:
        if not self.reward_signals:
            raise contradiction(
                "reward_signals is an empty mapping, so there is nothing to learn from; expected "
                "extrinsic below it. Leave reward_signals out for extrinsic with its defaults",
                "reward_signals",
            )
        return self

    @model_validator(mode="after")
    def _critic_has_its_own_layers(self) -> BehaviorSettings:
        network = self.network_settings
        for key in ("critic_hidden_units", "critic_num_layers"):
            if self.hyperparameters.shared_critic and getattr(network, key) is not None:
                raise contradiction(
                    f"network_settings.{key} is {getattr(network, key)}, but "
                    "hyperparameters.shared_critic is true, so the critic has no layers of its "
                    "own. Leave out one of them",
                    f"network_settings.{key}",
                    "hyperparameters.shared_critic",
                )
        return self

    @model_validator(mode="after")
    def _sequences_fit_batch(self) -> BehaviorSettings:
        memory, batch_size = self.network_settings.memory, self.hyperparameters.minibatch_size
        if batch_size is None:
            return self  # all sequences are in the only optimizer step
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
