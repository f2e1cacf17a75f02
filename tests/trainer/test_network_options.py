"""Options of the networks that ML-Agents does not have: alone, exported, and as agents act."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from pytest import approx
from test_export_onnx import KINDS, live_actions, make_policy, make_spec, random_inputs

from envs.graph_policy import open_session
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.compiled_policy import CompiledPolicy
from trainer.config.settings import BehaviorSettings, NetworkSettings
from trainer.export_onnx import export
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.mlp import MLP
from trainer.nn.normalizer import Normalizer
from trainer.onnx_graph import build_model, cut_to_outputs
from trainer.onnx_policy import OnnxPolicy

OPTIONS: dict[str, dict[str, Any]] = {
    "layer_norm": {"layer_norm": True},
    "bounded_mean": {"bounded_mean": True},
    "normalize_clip": {"normalize": True, "normalize_clip": 0.5},
    "critic of its own size": {"critic_hidden_units": 7, "critic_num_layers": 3},
    "fixed": {"std_type": "fixed", "initial_log_std": -1.2},
    "state_log_std": {"std_type": "state_log_std"},
    "state_softplus": {"std_type": "state_softplus", "min_std": 0.05},
    "all with memory": {
        "layer_norm": True,
        "bounded_mean": True,
        "std_type": "state_softplus",
        "critic_hidden_units": 7,
        "memory": {"memory_size": 8},
    },
}


def test_layer_norm_stands_between_layer_and_activation() -> None:
    mlp = MLP(2, 3, 1, "relu", "kaiming", has_layer_norm=True)
    (layer,) = mlp.layers
    with torch.no_grad():
        assert isinstance(layer.weight, torch.Tensor)
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    # 1, 2, 3: mean 2, deviation sqrt(2 / 3); what is below the mean, relu cuts
    found = mlp(torch.tensor([[1.0, 2.0]]))[0].tolist()
    assert found == approx([0.0, 0.0, 1.5**0.5], abs=1e-4)


def test_layer_norm_reads_any_size_of_observation_alike() -> None:
    mlp = MLP(4, 16, 2, "tanh", "orthogonal", has_layer_norm=True)
    obs = torch.randn(10, 4)
    torch.testing.assert_close(mlp(obs), mlp(1000 * obs), rtol=1e-3, atol=1e-3)


def test_bounded_mean_reaches_the_bounds_and_never_passes_them() -> None:
    policy = make_policy(make_spec((4,), 2, ()), bounded_mean=True)
    free = make_policy(make_spec((4,), 2, ()))
    inputs = (torch.randn(200, 4),)
    with torch.no_grad():
        for each in (policy, free):
            each.mean_head.weight.mul_(20)
        mean, unbounded = (each.distribution(inputs, None).mean for each in (policy, free))
    assert mean is not None
    assert unbounded is not None
    torch.testing.assert_close(mean, 3 * torch.tanh(unbounded))  # the simulator gets a third of it
    assert 2.9 < mean.abs().max() <= 3.0


def test_clip_of_normalised_observations_is_where_it_was_set() -> None:
    assert Normalizer(3, 2.5)(torch.tensor([[1.0, 9.0, -9.0]])).tolist() == [[1.0, 2.5, -2.5]]


def test_critic_may_have_another_shape() -> None:
    policy = make_policy(make_spec((4,), 2, ()), critic_hidden_units=7, critic_num_layers=3)
    sizes = [
        [tuple(parameter.shape) for name, parameter in body.named_parameters() if "weight" in name]
        for body in (policy.actor_body, policy.critic_body)
    ]
    assert sizes == [[(32, 4), (32, 32)], [(7, 4), (7, 7), (7, 7)]]
    assert policy.value_head.in_features == 7
    assert policy.values((torch.zeros(5, 4),)).shape == (5, 1)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_exported_file_acts_like_the_policy(tmp_path: Path, kind: str, option: str) -> None:
    spec = make_spec((4, 1), *KINDS[kind])
    policy = make_policy(spec, **OPTIONS[option])
    path = tmp_path / "policy.onnx"
    assert export(policy, spec, path).max_difference < 1e-5
    if policy.memory_size:
        return  # `export` compares these too; those below act without it
    obs, mask = random_inputs(spec, 64)
    expected = live_actions(policy, obs, mask)
    found = OnnxPolicy(path).act(obs, mask, deterministic=True)
    assert found.continuous == approx(expected.continuous, abs=1e-5)
    assert found.discrete.tolist() == expected.discrete.tolist()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_agents_act_like_the_policy(kind: str, option: str) -> None:
    policy = make_policy(make_spec((4, 1), *KINDS[kind]), **OPTIONS[option])
    obs, mask = random_inputs(make_spec((4, 1), *KINDS[kind]), 50)
    if mask is not None:
        mask[:] = True
    masks = None if mask is None else torch.from_numpy(mask)
    memory = np.zeros((50, policy.memory_width), np.float32) if policy.memory_size else None
    found = CompiledPolicy(policy, seed=0).act(obs, mask, deterministic=True, memory=memory)
    inputs = policy.inputs([torch.from_numpy(column) for column in obs])
    carried = None if memory is None else torch.from_numpy(memory)
    expected = policy.act(inputs, masks, torch.Generator(), True, carried)
    torch.testing.assert_close(found.continuous, expected.continuous, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-5)
    assert found.discrete.tolist() == expected.discrete.tolist()
    if memory is not None:
        assert found.memory is not None
        assert expected.memory is not None
        torch.testing.assert_close(found.memory, expected.memory, rtol=0, atol=1e-5)


@pytest.mark.parametrize("std_type", ["state_log_std", "state_softplus"])
def test_exported_file_spreads_its_draws_by_what_it_sees(tmp_path: Path, std_type: Any) -> None:
    spec = make_spec((4,), 2, ())
    policy = make_policy(spec, std_type=std_type, normalize=True)
    assert policy.std_head is not None
    with torch.no_grad():  # no draw is clipped
        policy.mean_head.weight.zero_()
        policy.std_head.weight.mul_(8)
        policy.std_head.bias.fill_(-1.5)
    export(policy, spec, tmp_path / "drawn.onnx")
    file, compiled = OnnxPolicy(tmp_path / "drawn.onnx", seed=5), CompiledPolicy(policy, seed=0)
    obs, _ = random_inputs(spec, 3)
    spreads = []
    for row in obs[0]:
        rows = [np.tile(row, (20_000, 1))]
        with torch.no_grad():
            seen = policy.inputs([torch.from_numpy(rows[0][:1])])
            log_std = policy.distribution(seen, None).log_std
        assert log_std is not None
        spreads.append(log_std.exp()[0].numpy())
        # 5 standard errors of a deviation: 5 / sqrt(2 n) of it
        unity = file.act(rows, None, deterministic=False).continuous
        assert 3 * unity.std(axis=0) == approx(spreads[-1], rel=0.025)
        agents = compiled.act(rows, None).continuous.numpy()
        assert agents.std(axis=0) == approx(spreads[-1], rel=0.025)
    assert np.max(spreads) < 0.5
    assert np.ptp(spreads, axis=0).min() > 0.02  # the rows differ


@pytest.mark.parametrize("std_type", ["state_log_std", "state_softplus"])
@pytest.mark.parametrize("said", [-200.0, -3.0, 0.0, 3.0, 200.0])
def test_deviation_of_the_file_is_right_far_out(said: float, std_type: Any) -> None:
    policy = make_policy(make_spec((4,), 2, ()), std_type=std_type)
    assert policy.std_head is not None
    with torch.no_grad():
        policy.std_head.weight.zero_()
        policy.std_head.bias.fill_(said)
    model = cut_to_outputs(build_model(policy), ["deviation"])
    obs = {"obs_0": np.zeros((1, 4), np.float32)}
    (found,) = open_session(model.SerializeToString()).run(["deviation"], obs)
    expected = {
        "state_log_std": math.exp(min(max(said, -20.0), 2.0)),
        "state_softplus": math.log1p(math.exp(said)) + 0.01,
    }
    assert found[0] == approx([expected[std_type]] * 2, rel=1e-5)


def test_layer_norm_and_goals_go_together(tmp_path: Path) -> None:
    sensors = [
        ObservationSpec((3,), (DimensionProperty.NONE,), kind, name)
        for kind, name in ((Kind.DEFAULT, "eyes"), (Kind.GOAL_SIGNAL, "goal"))
    ]
    spec = BehaviorSpec(sensors, ActionSpec(2, ()))
    policy = make_policy(spec, layer_norm=True)
    assert export(policy, spec, tmp_path / "goal.onnx").max_difference < 1e-5
    plain = ActorCritic("A", spec, NetworkSettings(hidden_units=32), 1, False)
    plain.load_state_dict(policy.state_dict())
    inputs = policy.inputs([torch.randn(9, 3), torch.randn(9, 3)])
    with_norm, without = (each.distribution(inputs, None).mean for each in (policy, plain))
    assert with_norm is not None
    assert without is not None
    assert (with_norm - without).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network_settings": {"normalize_clip": 10}}, "normalize is false"),
        (
            {
                "hyperparameters": {"shared_critic": True},
                "network_settings": {"critic_hidden_units": 64},
            },
            "the critic has no layers of its own",
        ),
        ({"network_settings": {"min_std": 0.1}}, "std_type is learned, which has no floor"),
        (
            {"network_settings": {"std_type": "fixed", "min_std": 0.1}},
            "std_type is fixed, which has no floor",
        ),
        (
            {"network_settings": {"std_type": "state_softplus", "initial_log_std": -5}},
            "a standard deviation of 0.0067, but min_std is 0.01",
        ),
    ],
)
def test_option_without_effect_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BehaviorSettings.model_validate(settings)
