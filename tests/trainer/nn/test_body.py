from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from sensor_specs import behavior, entities, image, random_obs, vector
from torch import nn

from envs.spec import BehaviorSpec, ObservationSpec
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.body import FLOATS_AT_ONCE, NetworkBody
from trainer.nn.conditioning import ConditionedMLP
from trainer.nn.mlp import MLP
from trainer.nn.sensors import UnsupportedBehaviorError, sensors_of

EVERYTHING = (
    vector(4, "body"),
    image(3, 20, 22, "camera"),
    entities(5, 6, "crowd"),
    vector(3, "goal", is_goal=True),
    image(1, 24, 20, "depth", dtype="float32"),
    entities(2, 3, "others"),
)
KINDS: dict[str, tuple[ObservationSpec, ...]] = {
    "vector": (vector(4),),
    "visual": (image(3, 20, 20),),
    "variable": (entities(5, 6),),
    "several": (vector(4), image(1, 20, 20, dtype="float32"), entities(5, 6), vector(2, "more")),
    "goal": (vector(3, is_goal=True), vector(4)),
    "goal alone": (vector(3, is_goal=True),),
    "visual goal": (image(1, 20, 20, is_goal=True), entities(5, 6)),
    "everything": EVERYTHING,
}


def policy_of(spec: BehaviorSpec, *, shared_critic: bool = False, **network: Any) -> ActorCritic:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = NetworkSettings(**{"hidden_units": 8, "num_layers": 2, **network})
    return ActorCritic("Crab", spec, settings, 1, shared_critic)


def number(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_of_all_kinds_together() -> None:
    policy = policy_of(behavior(*EVERYTHING), hidden_units=16)
    square = 128 * 128 + 128
    # 20 x 22 -> 4 x 4 -> 1 x 1; 24 x 20 -> 5 x 4 -> 1 x 1
    cameras = sum(16 * 64 * c + 16 + 32 * 256 + 32 + 32 * 16 + 16 for c in (3, 1))
    encoded = 4 + 16 + 3 + 16
    crowds = (encoded * 128 + 128) + (134 * 128 + 128) + (131 * 128 + 128) + 4 * square
    first = (encoded + 128) * 16 + 16
    goal = (3 * 16 + 16) + (16 * 16 + 16) + 16 * 256 + 256 + 16
    assert number(policy.actor_body) == cameras + crowds + first + goal
    assert number(policy.critic_body) == number(policy.actor_body)
    heads = (16 * 2 + 2) + 2 + (16 + 1)
    assert number(policy) == 2 * number(policy.actor_body) + heads


@pytest.mark.parametrize("conditioning", ["hyper", "none"])
@pytest.mark.parametrize("shared_critic", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(
    kind: str, shared_critic: bool, conditioning: str
) -> None:
    spec = behavior(*KINDS[kind], continuous=2, branches=(3, 2))
    policy = policy_of(spec, shared_critic=shared_critic, goal_conditioning_type=conditioning)
    inputs = policy.inputs(random_obs(spec, 64))
    action = policy.act(inputs, None, torch.Generator().manual_seed(0))
    found = policy.evaluate(inputs, None, action.continuous, action.discrete)
    loss = found.log_probs.square().sum() + found.values.square().sum() + found.entropies.sum()
    loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("attention.key.bias"):
            continue  # the same for all keys: the softmax takes it away again
        assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("kind", KINDS)
def test_every_sensor_matters_and_rows_do_not_mix(kind: str) -> None:
    spec = behavior(*KINDS[kind])
    policy = policy_of(spec)
    with torch.no_grad():  # attention starts too small to be seen through the other layers
        for parameter in policy.actor_body.parameters():
            parameter.mul_(3)
    obs, other = random_obs(spec, 6), random_obs(spec, 6, seed=1)
    found = policy.actor_body(policy.inputs(obs))
    for i in range(len(obs)):
        changed = list(obs)
        changed[i] = obs[i].clone()
        changed[i][2] = other[i][2]
        moved = (policy.actor_body(policy.inputs(changed)) - found).abs().amax(dim=1)
        assert moved[2] > 1e-3
        assert moved[[0, 1, 3, 4, 5]].max() < 1e-5


def test_sensors_enter_in_their_order_and_entities_last() -> None:
    """As in ML-Agents, so that the columns of the first layer mean the same."""
    spec = behavior(vector(1, "a"), image(1, 2, 2, "b"), entities(2, 2, "c"), vector(1, "d"))
    body = NetworkBody(
        sensors_of(spec, "Crab"),
        NetworkSettings(hidden_units=3, num_layers=1, vis_encode_type="fully_connected"),
    )
    assert isinstance(body.hidden, MLP)
    (layer,) = body.hidden.layers
    assert isinstance(layer, nn.Linear)
    reads = {"a": slice(0, 1), "b": slice(1, 4), "d": slice(4, 5), "c": slice(5, 133)}
    column_of = {"a": 0, "b": 1, "c": 2, "d": 3}
    policy = policy_of(spec, vis_encode_type="fully_connected")
    for name, columns in reads.items():
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[:, columns] = 1.0
        first, second = random_obs(spec, 4), random_obs(spec, 4, seed=1)
        for other, index in column_of.items():
            if name == "c" and other != "c":
                continue  # entities are embedded beside everything else
            changed = list(first)
            changed[index] = second[index]
            before, after = (body(policy.inputs(obs)) for obs in (first, changed))
            assert torch.equal(before, after) is (name != other), (name, other)


def test_goals_steer_only_if_asked() -> None:
    spec = behavior(vector(3, is_goal=True), vector(4))
    assert isinstance(policy_of(spec).actor_body.hidden, ConditionedMLP)
    plain = policy_of(spec, goal_conditioning_type="none")
    assert isinstance(plain.actor_body.hidden, MLP)
    assert isinstance(policy_of(behavior(vector(4))).actor_body.hidden, MLP)


def test_goal_of_variable_length_is_refused_unless_it_is_read_like_the_rest() -> None:
    sensors = sensors_of(behavior(vector(2), entities(5, 6, "aims", is_goal=True)), "Crab")
    with pytest.raises(UnsupportedBehaviorError) as error:
        NetworkBody(sensors, NetworkSettings())
    for words in ("'Crab'", "'aims'", "(5, 6)", "goal_conditioning_type to none"):
        assert words in str(error.value)
    NetworkBody(sensors, NetworkSettings(goal_conditioning_type="none"))


def test_normalizer_takes_all_vectors_and_nothing_else() -> None:
    spec = behavior(*EVERYTHING)
    policy = policy_of(spec, normalize=True)
    assert policy.normalizer is not None
    obs = random_obs(spec, 500)
    obs[0], obs[3] = obs[0] * 2 + 7, obs[3] * 3 - 5
    policy.update_normalizer(obs)
    # the imagined row of mean 0 moves 500 rows by a 501th
    expected = torch.cat([obs[0], obs[3]], dim=1).double().sum(dim=0) / 501
    torch.testing.assert_close(policy.normalizer.mean, expected)
    vectors, *others = policy.inputs(obs)
    assert vectors.shape == (500, 7)
    assert vectors.std().item() == pytest.approx(1.0, abs=0.05)
    for column, index in zip(others, (1, 2, 4, 5), strict=True):
        assert column is obs[index]


def test_images_alone_need_no_normalizer() -> None:
    policy = policy_of(behavior(image(3, 20, 20)), normalize=True)
    assert policy.normalizer is None
    obs = random_obs(policy_spec := behavior(image(3, 20, 20)), 4)
    assert policy_spec.observation_specs[0].dtype == "uint8"
    policy.update_normalizer(obs)
    assert policy.inputs(obs)[0].dtype == torch.uint8  # kept small until the network reads it


def test_shared_critic_has_one_body_and_others_share_nothing() -> None:
    spec = behavior(*EVERYTHING)
    for shared_critic in (False, True):
        policy = policy_of(spec, shared_critic=shared_critic)
        pairs = itertools.product(policy.actor_body.parameters(), policy.critic_body.parameters())
        assert any(ours is theirs for ours, theirs in pairs) is shared_critic


def test_rows_at_once_hold_large_images_within_bounds() -> None:
    rows = {}
    for size in (20, 84, 168):
        for kind in ("simple", "resnet"):
            policy = policy_of(behavior(image(3, size, size)), vis_encode_type=kind)
            rows[kind, size] = policy.actor_body.rows_at_once
    assert rows["simple", 20] == 4096
    # the image, and 16 x 20 x 20 and 32 x 9 x 9 before and behind their activations
    assert rows["simple", 84] == FLOATS_AT_ONCE // (3 * 84 * 84 + 2 * (6400 + 2592))
    assert rows["simple", 84] > 3 * rows["simple", 168] > 0
    assert rows["simple", 84] > 5 * rows["resnet", 84] > 0
    crowd = policy_of(behavior(entities(500, 4)))
    assert 1 <= crowd.actor_body.rows_at_once < 20


def test_values_in_pieces_are_those_of_the_whole_with_every_kind() -> None:
    spec = behavior(*EVERYTHING)
    policy = policy_of(spec)
    inputs = policy.inputs(random_obs(spec, 10))
    whole = policy.values(inputs)
    policy.critic_body.rows_at_once = 3
    torch.testing.assert_close(policy.values_in_pieces(inputs), whole, atol=1e-5, rtol=0)
