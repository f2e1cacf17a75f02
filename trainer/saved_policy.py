"""A policy as a checkpoint holds it: enough to act or export without a simulator.

A checkpoint's state is made by `Behavior.state_dict`; this file knows the part of it that says what
network to build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from envs.spec import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)
from trainer.config.behavior_settings import MIN_STD
from trainer.config.settings import BehaviorSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.normalizer import CLIP


@dataclass(frozen=True, slots=True)
class SavedPolicy:
    """One behaviour's policy, on the CPU."""

    behavior: str
    step: int
    spec: BehaviorSpec
    settings: BehaviorSettings
    policy: ActorCritic


def spec_to_state(spec: BehaviorSpec) -> dict[str, object]:
    """Gives a behaviour's spec as numbers and strings."""
    return {
        "sensors": [
            {
                "name": sensor.name,
                "shape": [int(size) for size in sensor.shape],
                "dimension_property": [int(flag) for flag in sensor.dimension_property],
                "observation_type": int(sensor.observation_type.value),
                "dtype": sensor.dtype,
            }
            for sensor in spec.observation_specs
        ],
        "continuous_size": int(spec.action_spec.continuous_size),
        "discrete_branches": [int(size) for size in spec.action_spec.discrete_branches],
    }


def spec_from_state(state: Mapping[str, object]) -> BehaviorSpec:
    """Gives back what `spec_to_state` was given."""
    sensors, branches = state["sensors"], state["discrete_branches"]
    size = state["continuous_size"]
    assert isinstance(sensors, list)
    assert isinstance(branches, list)
    assert isinstance(size, int)
    return BehaviorSpec(
        [
            ObservationSpec(
                tuple(sensor["shape"]),
                tuple(DimensionProperty(flag) for flag in sensor["dimension_property"]),
                ObservationType(sensor["observation_type"]),
                sensor["name"],
                sensor["dtype"],
            )
            for sensor in sensors
        ],
        ActionSpec(size, tuple(branches)),
    )


def network_of(state: Mapping[str, object]) -> dict[str, object]:
    """Says what a state's network is: the shapes of its tensors, and what shapes do not tell."""
    spec, settings_json, weights = state["spec"], state["settings"], state["policy"]
    assert isinstance(spec, dict)
    assert isinstance(settings_json, str)
    assert isinstance(weights, dict)
    settings = json.loads(settings_json)
    network = settings["network_settings"]
    sensors = spec["sensors"]
    goals = [
        i
        for i, sensor in enumerate(sensors)
        if sensor["observation_type"] == ObservationType.GOAL_SIGNAL.value
    ]
    return {
        "observations": [sensor["shape"] for sensor in sensors],
        "goals": goals if network["goal_conditioning_type"] == "hyper" else [],
        "continuous_size": spec["continuous_size"],
        "discrete_branches": spec["discrete_branches"],
        "activation": network["activation"],
        # Checkpoints that came before these have none of them.
        "layer_norm": network.get("layer_norm", False),
        "bounded_mean": network.get("bounded_mean", False),
        "std_type": network.get("std_type", "learned"),
        "min_std": network.get("min_std", MIN_STD),
        "normalize_clip": network.get("normalize_clip", CLIP),
        "shared_critic": settings["hyperparameters"]["shared_critic"],
        **{name: tuple(weight.shape) for name, weight in weights.items()},
    }


def learner_of(state: Mapping[str, object]) -> dict[str, str]:
    """Says what a state's optimizers are: by key, words for a message."""
    settings_json = state["settings"]
    assert isinstance(settings_json, str)
    settings = json.loads(settings_json)
    hyperparameters = settings["hyperparameters"]
    parts = "unset" if hyperparameters.get("critic_learning_rate") is None else "set"
    return {
        "trainer_type": settings["trainer_type"],
        "critic_learning_rate": parts,
        "optimizer": hyperparameters.get("optimizer", "adam"),
    }


def build_policy(behavior: str, spec: BehaviorSpec, settings: BehaviorSettings) -> ActorCritic:
    """Builds the network that the settings ask for, with fresh weights."""
    return ActorCritic(
        behavior,
        spec,
        settings.network_settings,
        len(settings.reward_signals),
        settings.hyperparameters.shared_critic,
    )


def restore_policy(state: Mapping[str, object]) -> SavedPolicy:
    """Builds the policy of a checkpoint's state."""
    behavior, step, spec_state = state["behavior"], state["step"], state["spec"]
    settings_json, weights = state["settings"], state["policy"]
    assert isinstance(behavior, str)
    assert isinstance(step, int)
    assert isinstance(spec_state, dict)
    assert isinstance(settings_json, str)
    assert isinstance(weights, dict)
    spec = spec_from_state(spec_state)
    settings = BehaviorSettings.model_validate_json(settings_json)
    policy = build_policy(behavior, spec, settings)
    saved: dict[str, Tensor] = weights
    policy.load_state_dict(saved)
    policy.eval()
    return SavedPolicy(behavior, step, spec, settings, policy)
