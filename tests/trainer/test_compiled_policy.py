from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest import approx
from sensor_specs import behavior, entities, image, random_obs, vector

from envs.spec import ActionSpec, BehaviorSpec
from trainer.compiled_policy import CompiledPolicy
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic

SENSORS = [vector(size, f"s{size}") for size in (2, 3)]
KINDS = {"continuous": (3, ()), "discrete": (0, (3, 2)), "hybrid": (2, (4,))}


def make(kind: str) -> tuple[ActorCritic, CompiledPolicy]:
    torch.manual_seed(1)
    continuous, branches = KINDS[kind]
    settings = NetworkSettings(hidden_units=16, normalize=True, initial_log_std=-0.5)
    spec = BehaviorSpec(SENSORS, ActionSpec(continuous, branches))
    policy = ActorCritic("Crab", spec, settings, 1, False)
    policy.update_normalizer([torch.randn(100, 2) * 3 + 1, torch.randn(100, 3)])
    return policy, CompiledPolicy(policy, seed=0)


def examples(policy: ActorCritic, num_rows: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    chance = np.random.default_rng(2)
    obs = [chance.standard_normal((num_rows, size), np.float32) for size in (2, 3)]
    if not policy.branch_sizes:
        return obs, None
    mask = chance.random((num_rows, sum(policy.branch_sizes))) < 0.6
    mask[:, 0] = True
    mask[:, policy.branch_sizes[0] :] = True
    return obs, mask


@pytest.mark.parametrize("kind", KINDS)
def test_likeliest_actions_are_those_of_the_policy(kind: str) -> None:
    policy, compiled = make(kind)
    obs, mask = examples(policy, 50)
    found = compiled.act(obs, mask, deterministic=True)
    masks = None if mask is None else torch.from_numpy(mask)
    inputs = policy.inputs([torch.from_numpy(column) for column in obs])
    expected = policy.act(inputs, masks, torch.Generator(), deterministic=True)
    torch.testing.assert_close(found.continuous, expected.continuous, rtol=0, atol=1e-5)
    assert found.discrete.tolist() == expected.discrete.tolist()
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_the_drawn_actions(kind: str) -> None:
    policy, compiled = make(kind)
    obs, mask = examples(policy, 300)
    drawn = compiled.act(obs, mask)
    masks = None if mask is None else torch.from_numpy(mask)
    inputs = policy.inputs([torch.from_numpy(column) for column in obs])
    with torch.no_grad():
        judged = policy.evaluate(inputs, masks, drawn.continuous, drawn.discrete)
    torch.testing.assert_close(drawn.log_probs, judged.log_probs, rtol=0, atol=1e-5)


def test_draws_spread_as_the_policy_says() -> None:
    policy, compiled = make("hybrid")
    (vector, other), _ = examples(policy, 1)
    obs = [np.repeat(vector, 40_000, axis=0), np.repeat(other, 40_000, axis=0)]
    mask = np.tile([True, False, True, True], (40_000, 1))
    drawn = compiled.act(obs, mask)
    inputs = policy.inputs([torch.from_numpy(vector), torch.from_numpy(other)])
    mean = policy.act(inputs, torch.from_numpy(mask[:1]), torch.Generator(), True).continuous
    assert drawn.continuous.mean(0).numpy() == approx(mean[0].numpy(), abs=0.015)
    assert drawn.continuous.std(0).numpy() == approx([np.exp(-0.5)] * 2, rel=0.02)
    shares = np.bincount(drawn.discrete[:, 0].numpy(), minlength=4) / 40_000
    chosen = torch.arange(4)[:, None]
    with torch.no_grad():
        judged = policy.evaluate(
            (inputs[0].expand(4, -1),),
            torch.from_numpy(mask[:4]),
            torch.zeros(4, 2),
            chosen,
        )
    assert shares == approx(judged.log_probs[:, 2].exp().numpy(), abs=0.01)
    assert shares[1] == 0


def test_new_weights_count_from_the_next_refresh_on() -> None:
    policy, compiled = make("continuous")
    obs, _ = examples(policy, 5)
    before = compiled.act(obs, None, deterministic=True).continuous
    with torch.no_grad():
        policy.mean_head.bias.add_(1.0)
        policy.log_std.add_(2.0)
    assert torch.equal(compiled.act(obs, None, deterministic=True).continuous, before)
    compiled.refresh()
    after = compiled.act(obs, None, deterministic=True)
    torch.testing.assert_close(after.continuous, before + 1.0, rtol=0, atol=1e-5)
    assert after.log_probs[0].tolist() == approx([-0.9189385 - 1.5] * 3)


def test_drawing_goes_on_from_a_saved_state() -> None:
    policy, compiled = make("hybrid")
    obs, mask = examples(policy, 20)
    compiled.act(obs, mask)
    state = compiled.chance_state()
    expected = compiled.act(obs, mask)
    other = CompiledPolicy(policy, seed=99)
    other.load_chance_state(state)
    found = other.act(obs, mask)
    assert torch.equal(found.continuous, expected.continuous)
    assert torch.equal(found.discrete, expected.discrete)


def test_cameras_crowds_and_goals_are_read_like_the_policy_reads_them() -> None:
    spec = behavior(
        image(3, 20, 20), vector(4), entities(5, 6), vector(2, is_goal=True), branches=(3,)
    )
    torch.manual_seed(1)
    policy = ActorCritic("Crab", spec, NetworkSettings(hidden_units=16), 1, False)
    obs = random_obs(spec, 30)
    everything = np.ones((30, 3), np.bool_)
    drawn = CompiledPolicy(policy, seed=0).act([column.numpy() for column in obs], everything)
    with torch.no_grad():
        judged = policy.evaluate(policy.inputs(obs), None, drawn.continuous, drawn.discrete)
    torch.testing.assert_close(drawn.log_probs, judged.log_probs, rtol=0, atol=1e-5)
