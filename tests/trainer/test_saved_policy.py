from __future__ import annotations

import pytest
import torch
from crowd_behavior import through_a_file
from sensor_specs import behavior, entities, image, random_obs, vector

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.config.settings import BehaviorSettings
from trainer.saved_policy import (
    build_policy,
    network_of,
    restore_policy,
    spec_from_state,
    spec_to_state,
)


def vector_spec() -> BehaviorSpec:
    sensors = [
        ObservationSpec((3,), (DimensionProperty.NONE,), Kind.DEFAULT, "Körper"),
        ObservationSpec((2,), (DimensionProperty.NONE,), Kind.GOAL_SIGNAL, "goal"),
    ]
    return BehaviorSpec(sensors, ActionSpec(2, (3, 2)))


def every_kind_of_spec() -> list[BehaviorSpec]:
    camera = ObservationSpec(
        (3, 84, 84),
        (
            DimensionProperty.NONE,
            DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
            DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
        ),
        Kind.DEFAULT,
        "camera",
        "uint8",
    )
    crowd = ObservationSpec(
        (20, 6), (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE), Kind.DEFAULT, "crowd"
    )
    return [
        vector_spec(),
        BehaviorSpec([camera, crowd], ActionSpec(0, (2,))),
        BehaviorSpec([], ActionSpec(1, ())),
    ]


@pytest.mark.parametrize("spec", every_kind_of_spec())
def test_spec_comes_back_as_it_was(spec: BehaviorSpec) -> None:
    found = spec_from_state(through_a_file(spec_to_state(spec)))
    assert found.action_spec == spec.action_spec
    assert list(found.observation_specs) == list(spec.observation_specs)


def test_restored_policy_acts_as_the_saved_one() -> None:
    torch.manual_seed(0)
    settings = BehaviorSettings.model_validate(
        {
            "hyperparameters": {"shared_critic": True},
            "network_settings": {"normalize": True, "hidden_units": 24, "activation": "elu"},
            "reward_signals": {"extrinsic": {"gamma": 0.9}},
        }
    )
    policy = build_policy("Crab", vector_spec(), settings)
    generator = torch.Generator().manual_seed(0)
    obs = [7 * torch.randn((50, size), generator=generator) + 3 for size in (3, 2)]
    policy.update_normalizer(obs)
    state = through_a_file(
        {
            "behavior": "Crab",
            "step": 480000,
            "spec": spec_to_state(vector_spec()),
            "settings": settings.model_dump_json(),
            "policy": policy.state_dict(),
        }
    )
    torch.manual_seed(99)  # what a fresh network would be is not to matter
    saved = restore_policy(state)
    assert (saved.behavior, saved.step, saved.settings) == ("Crab", 480000, settings)
    assert not saved.policy.training
    mask = torch.tensor([[True, False, True, True, True]]).expand(50, -1)
    for deterministic in (False, True):
        ours, theirs = (
            one.act(one.inputs(obs), mask, torch.Generator().manual_seed(5), deterministic)
            for one in (policy, saved.policy)
        )
        assert torch.equal(ours.continuous, theirs.continuous)
        assert torch.equal(ours.discrete, theirs.discrete)
        assert torch.equal(ours.log_probs, theirs.log_probs)
    inputs = policy.inputs(obs)
    assert torch.equal(policy.values(inputs), saved.policy.values(inputs))


@pytest.mark.parametrize("conditioning", ["hyper", "none"])
def test_policy_of_every_sensor_acts_as_the_saved_one(conditioning: str) -> None:
    torch.manual_seed(0)
    spec = behavior(
        vector(3, is_goal=True),
        image(3, 36, 40),
        entities(4, 2),
        image(1, 36, 36, "depth", dtype="float32"),
        continuous=2,
        branches=(3,),
    )
    settings = BehaviorSettings.model_validate(
        {
            "network_settings": {
                "normalize": True,
                "hidden_units": 8,
                "vis_encode_type": "nature_cnn",
                "goal_conditioning_type": conditioning,
            },
        }
    )
    policy = build_policy("Crab", spec, settings)
    obs = random_obs(spec, 20)
    policy.update_normalizer(obs)
    state: dict[str, object] = {
        "behavior": "Crab",
        "step": 7,
        "spec": spec_to_state(spec),
        "settings": settings.model_dump_json(),
        "policy": policy.state_dict(),
    }
    state = through_a_file(state)
    torch.manual_seed(99)
    saved = restore_policy(state)
    assert list(saved.spec.observation_specs) == list(spec.observation_specs)
    ours, theirs = (
        one.act(one.inputs(obs), None, torch.Generator().manual_seed(5))
        for one in (policy, saved.policy)
    )
    assert torch.equal(ours.continuous, theirs.continuous)
    assert torch.equal(ours.log_probs, theirs.log_probs)
    inputs = policy.inputs(obs)
    assert torch.equal(policy.values(inputs), saved.policy.values(inputs))


def test_networks_differ_by_which_observation_is_the_goal_only_if_it_steers() -> None:
    def network(goal: int, conditioning: str) -> dict[str, object]:
        sensors = [vector(2, f"v{i}", is_goal=i == goal) for i in range(2)]
        spec = behavior(*sensors)
        settings = BehaviorSettings.model_validate(
            {"network_settings": {"goal_conditioning_type": conditioning}}
        )
        return network_of(
            {
                "spec": spec_to_state(spec),
                "settings": settings.model_dump_json(),
                "policy": build_policy("Crab", spec, settings).state_dict(),
            }
        )

    assert network(0, "hyper") != network(1, "hyper")
    assert network(0, "none") == network(1, "none")
    assert network(0, "none") != network(0, "hyper")
