from __future__ import annotations

import io

import pytest
import torch

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.config.settings import BehaviorSettings
from trainer.saved_policy import build_policy, restore_policy, spec_from_state, spec_to_state


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


def through_a_file(state: dict[str, object]) -> dict[str, object]:
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    found = torch.load(stored, weights_only=True)
    assert isinstance(found, dict)
    return found


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
