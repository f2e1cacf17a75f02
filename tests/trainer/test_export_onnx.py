from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from trainer.actor import to_simulator
from trainer.algos.ppo import PPO
from trainer.config.errors import UserError
from trainer.config.settings import NetworkSettings, PPOHyperparameters
from trainer.export_onnx import LIMIT, ExportError, compare, export
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.mlp import MLP
from trainer.onnx_graph import build_model
from trainer.onnx_policy import OnnxError, OnnxPolicy

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

# reference/mlagents-export-and-outputs.md, 1.3, and Elu, which all of Unity's importers have
OPERATORS = {
    *("Add", "ArgMax", "Cast", "Clip", "Concat", "Constant", "Conv", "Div", "Exp", "Gemm"),
    *("Identity", "LSTM", "LeakyRelu", "Less", "Log", "MatMul", "MaxPool", "Mul", "Multinomial"),
    *("Pow", "RandomNormalLike", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Slice"),
    *("Softmax", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Elu"),
}
KINDS: dict[str, tuple[int, tuple[int, ...]]] = {
    "continuous": (3, ()),
    "one_branch": (0, (5,)),
    "branches": (0, (3, 3, 2)),
    "hybrid": (2, (4, 2)),
}
ACTIVATIONS = ("swish", "tanh", "relu", "elu")


def make_spec(sizes: Sequence[int], continuous: int, branches: tuple[int, ...]) -> BehaviorSpec:
    sensors = [
        ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.DEFAULT, f"sensor_{i}")
        for i, size in enumerate(sizes)
    ]
    return BehaviorSpec(sensors, ActionSpec(continuous, branches))


def make_policy(
    spec: BehaviorSpec, *, seed: int = 0, shared_critic: bool = False, **network: Any
) -> ActorCritic:
    torch.manual_seed(seed)
    settings = NetworkSettings(**{"hidden_units": 32, "num_layers": 2, **network})
    policy = ActorCritic("Walker", spec, settings, 1, shared_critic)
    with torch.no_grad():  # like a trained one: biases and deviations are not all alike
        for name, parameter in policy.named_parameters():
            if name.endswith("bias") or name == "log_std":
                parameter.normal_(std=0.5)
    policy.update_normalizer(
        [torch.randn(500, int(s.shape[0])) * 3 + 10 * (i + 1) for i, s in enumerate(spec[0])]
    )
    return policy


def random_inputs(
    spec: BehaviorSpec, num_rows: int
) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any] | None]:
    chance = np.random.default_rng(1)
    obs = [
        (chance.standard_normal((num_rows, *s.shape)) * 3 + 10).astype(np.float32) for s in spec[0]
    ]
    length = int(sum(spec.action_spec.discrete_branches))
    mask = chance.random((num_rows, length)) < 0.6
    return obs, (mask if length else None)


def live_actions(policy: ActorCritic, obs: Any, mask: Any) -> Any:
    inputs = policy.inputs([torch.from_numpy(column) for column in obs])
    masks = None if mask is None else torch.from_numpy(mask)
    with torch.no_grad():
        return to_simulator(policy.act(inputs, masks, torch.Generator(), deterministic=True))


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def contract(values: Any) -> list[tuple[str, int, list[int | str]]]:
    return [(v.name, v.type.tensor_type.elem_type, shape_of(v)) for v in values]


@pytest.mark.parametrize("shared_critic", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("sizes", [(4,), (4, 1, 3)], ids=["1 sensor", "3 sensors"])
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("kind", KINDS)
def test_file_runs_in_onnxruntime_like_the_live_policy(
    tmp_path: Path, kind: str, normalize: bool, sizes: tuple[int, ...], shared_critic: bool
) -> None:
    spec = make_spec(sizes, *KINDS[kind])
    for activation in ACTIVATIONS[:1] if shared_critic else ACTIVATIONS:
        policy = make_policy(
            spec, normalize=normalize, shared_critic=shared_critic, activation=activation
        )
        path = tmp_path / f"{activation}.onnx"
        report = export(policy, spec, path)
        assert report.path == path
        assert report.max_difference < LIMIT
        model = onnx.load(str(path))
        onnx.checker.check_model(model, full_check=True)
        assert {node.op_type for node in model.graph.node} <= OPERATORS
        read = {name for node in model.graph.node for name in node.input}
        assert {value.name for value in model.graph.input} <= read  # nothing Unity feeds in vain

        file = OnnxPolicy(path)
        for num_rows in (1, 7):
            obs, mask = random_inputs(spec, num_rows)
            chosen = file.act(obs, mask, deterministic=True)
            expected = live_actions(policy, obs, mask)
            # float32 in another order; the actions lie in -1..1
            assert chosen.continuous == pytest.approx(expected.continuous, abs=1e-5)
            assert np.array_equal(chosen.discrete, expected.discrete)


def test_contract_of_a_continuous_model() -> None:
    model = build_model(make_policy(make_spec((4, 3), 2, ())))
    assert contract(model.graph.input) == [
        ("obs_0", FLOAT, ["batch", 4]),
        ("obs_1", FLOAT, ["batch", 3]),
    ]
    assert contract(model.graph.output) == [
        ("version_number", FLOAT, [1]),
        ("memory_size", FLOAT, [1]),
        ("continuous_actions", FLOAT, ["batch", 2]),
        ("continuous_action_output_shape", FLOAT, [1]),
        ("deterministic_continuous_actions", FLOAT, ["batch", 2]),
    ]
    assert model.ir_version == 4
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 9)]
    assert not model.metadata_props


def test_contract_of_a_hybrid_model() -> None:
    model = build_model(make_policy(make_spec((4,), 2, (3, 3, 2))))
    assert contract(model.graph.input) == [
        ("obs_0", FLOAT, ["batch", 4]),
        ("action_masks", FLOAT, ["batch", 8]),
    ]
    assert contract(model.graph.output)[2:] == [
        ("continuous_actions", FLOAT, ["batch", 2]),
        ("continuous_action_output_shape", FLOAT, [1]),
        ("deterministic_continuous_actions", FLOAT, ["batch", 2]),
        ("discrete_actions", INT64, ["batch", 3]),
        ("discrete_action_output_shape", FLOAT, [1, 3]),
        ("deterministic_discrete_actions", INT64, ["batch", 3]),
    ]


def test_constants_are_initializers_shown_by_identity() -> None:
    model = build_model(make_policy(make_spec((4,), 2, (3, 5))))
    initializers = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    identities = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Identity"}
    values = {name: initializers[source].tolist() for name, source in identities.items()}
    assert values == {
        "version_number": [3.0],
        "memory_size": [0.0],
        "continuous_action_output_shape": [2.0],
        "discrete_action_output_shape": [[3.0, 5.0]],
    }
    assert all(initializers[source].dtype == np.float32 for source in identities.values())


def test_a_discrete_model_has_no_continuous_outputs() -> None:
    names = [v.name for v in build_model(make_policy(make_spec((4,), 0, (3,)))).graph.output]
    assert names == [
        "version_number",
        "memory_size",
        "discrete_actions",
        "discrete_action_output_shape",
        "deterministic_discrete_actions",
    ]


def test_known_answer_computed_by_hand(tmp_path: Path) -> None:
    spec = make_spec((2,), 1, ())
    policy = make_policy(spec, hidden_units=1, num_layers=1, activation="relu", normalize=True)
    assert policy.normalizer is not None
    with torch.no_grad():
        policy.normalizer.shift.copy_(torch.tensor([10.0, -1.0]))
        policy.normalizer.scale.copy_(torch.tensor([0.5, 4.0]))  # deviations 2 and 0.25
        assert isinstance(policy.actor_body.hidden, MLP)
        first = next(policy.actor_body.hidden.layers.children())
        assert isinstance(first, torch.nn.Linear)
        first.weight.copy_(torch.tensor([[1.0, 0.1]]))
        first.bias.fill_(-0.5)
        policy.mean_head.weight.fill_(2.0)
        policy.mean_head.bias.fill_(0.2)
    export(policy, spec, tmp_path / "known.onnx")
    rows = [[12.0, -1.0], [13.0, 9.0], [0.0, 0.0], [10.0, -0.5], [30.0, -1.0]]
    actions = OnnxPolicy(tmp_path / "known.onnx").act(
        [np.array(rows, dtype=np.float32)], None, deterministic=True
    )
    # row 0: normalised (1, 0), hidden 0.5, mean 1.2, / 3
    # row 1: (1.5, 40 -> 5), hidden 1.5, mean 3.2 -> 3, / 3
    # row 2: (-5, 4), hidden 0, mean 0.2, / 3
    # row 3: (0, 2), hidden -0.3 -> 0, mean 0.2, / 3
    # row 4: (10 -> 5, 0), hidden 4.5, mean 9.2 -> 3, / 3
    assert actions.continuous[:, 0] == pytest.approx([0.4, 1.0, 0.2 / 3, 0.2 / 3, 1.0], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_with_everything_forbidden_run_like_in_unitys_loader(
    tmp_path: Path, kind: str
) -> None:
    spec = make_spec((4, 2), *KINDS[kind])
    export(make_policy(spec, normalize=True), spec, tmp_path / "zero.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "zero.onnx"))
    zeros = {v.name: np.zeros((1, v.shape[1]), np.float32) for v in session.get_inputs()}
    outputs = dict(
        zip([v.name for v in session.get_outputs()], session.run(None, zeros), strict=True)
    )
    for name, array in outputs.items():
        assert array.dtype == (np.int64 if name.endswith("discrete_actions") else np.float32)
        assert np.isfinite(array).all()
    sizes = KINDS[kind][1]
    for name in ("discrete_actions", "deterministic_discrete_actions"):
        if sizes:
            assert outputs[name].shape == (1, len(sizes))
            assert (outputs[name] < np.array(sizes)).all()


def test_drawn_continuous_actions_have_the_policys_mean_and_deviation(tmp_path: Path) -> None:
    spec = make_spec((4,), 3, ())
    policy = make_policy(spec)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([0.2, 0.4, 0.1]).log())
    export(policy, spec, tmp_path / "drawn.onnx")
    rows = np.tile(np.array([[0.3, -0.2, 0.1, 0.5]], np.float32), (20_000, 1))
    file = OnnxPolicy(tmp_path / "drawn.onnx", seed=5)
    drawn = file.act([rows], None, deterministic=False).continuous
    mean = live_actions(policy, [rows[:1]], None).continuous[0]
    assert (np.abs(mean * 3) + 5 * 0.4 < 3).all()  # no draw is clipped
    deviation = np.array([0.2, 0.4, 0.1]) / 3
    # 5 standard errors: deviation / sqrt(n) of a mean, deviation / sqrt(2 n) of a deviation
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * deviation / np.sqrt(20_000)).all()
    assert (np.abs(drawn.std(axis=0) - deviation) < 5 * deviation / np.sqrt(40_000)).all()
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 5 / np.sqrt(20_000)


def test_drawn_discrete_actions_follow_the_policys_probabilities(tmp_path: Path) -> None:
    spec = make_spec((4,), 0, (3, 5))
    policy = make_policy(spec)
    with torch.no_grad():
        policy.branch_head.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0, 2.0, -2.0, 1.0]))
        policy.branch_head.weight.zero_()
    export(policy, spec, tmp_path / "drawn.onnx")
    count = 20_000
    file = OnnxPolicy(tmp_path / "drawn.onnx", seed=5)
    mask = np.tile(np.array([[1, 1, 1, 1, 0, 1, 0, 1]], np.bool_), (count, 1))
    drawn = file.act([np.zeros((count, 4), np.float32)], mask, deterministic=False).discrete
    logits = policy.branch_head.bias.detach().double().numpy()
    for column, allowed, values in (
        (drawn[:, 0], [True] * 3, logits[:3]),
        (drawn[:, 1], [True, False, True, False, True], logits[3:]),
    ):
        weights = np.exp(values) * allowed
        expected = weights / weights.sum()
        found = np.bincount(column, minlength=len(values)) / count
        assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / count)).all()
        assert found[~np.array(allowed)].sum() == 0


def test_seed_makes_draws_repeatable(tmp_path: Path) -> None:
    spec = make_spec((4,), 2, (3,))
    export(make_policy(spec), spec, tmp_path / "seed.onnx")
    obs, mask = random_inputs(spec, 50)
    first, again, other = (
        OnnxPolicy(tmp_path / "seed.onnx", seed=seed).act(obs, mask, deterministic=False)
        for seed in (7, 7, 8)
    )
    assert np.array_equal(first.continuous, again.continuous)
    assert np.array_equal(first.discrete, again.discrete)
    assert not np.array_equal(first.continuous, other.continuous)


def test_ties_are_no_difference(tmp_path: Path) -> None:
    spec = make_spec((4,), 0, (4, 3))
    policy = make_policy(spec)
    with torch.no_grad():
        policy.branch_head.weight.zero_()
        policy.branch_head.bias.fill_(0.25)
    model = build_model(policy)
    for k in (0, 1):  # the next float32 after 0.25 is 3e-8 away: the file prefers the last
        change(model, f"branch_{k}.bias", lambda array: array + 3e-8 * np.arange(len(array)))
    onnx.save(model, str(tmp_path / "tie.onnx"))
    obs, _ = random_inputs(spec, 2)
    chosen = OnnxPolicy(tmp_path / "tie.onnx").act(obs, None, deterministic=True).discrete
    assert chosen.tolist() == [[3, 2], [3, 2]]
    assert live_actions(policy, obs, None).discrete.tolist() == [[0, 0], [0, 0]]
    assert compare(tmp_path / "tie.onnx", policy, spec, 64, 0).max_difference < LIMIT


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(entry for entry in model.graph.initializer if entry.name == name)


def change(model: onnx.ModelProto, name: str, by: Callable[[Any], Any]) -> None:
    entry = initializer(model, name)
    changed = by(numpy_helper.to_array(entry).copy()).astype(np.float32)
    entry.CopyFrom(numpy_helper.from_array(changed, name))


def nodes_of(model: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def bump_one_weight(model: onnx.ModelProto) -> None:
    def bump(array: Any) -> Any:
        array[0, 0] += 1e-3
        return array

    change(model, "body.1.weight", bump)


def forget_clip(model: onnx.ModelProto) -> None:
    for node in nodes_of(model, "Clip")[:2]:
        for attribute in node.attribute:
            attribute.f *= 100


def swap_deviation(model: onnx.ModelProto) -> None:
    change(model, "deviation", lambda array: array * 1.001)


def ignore_masks(model: onnx.ModelProto) -> None:
    change(model, "penalty", lambda array: array * 0)


def shift_masks(model: onnx.ModelProto) -> None:
    node = nodes_of(model, "Slice")[1]
    for attribute in node.attribute:
        if attribute.name in ("starts", "ends"):
            attribute.ints[0] -= 1


def relu_for_swish(model: onnx.ModelProto) -> None:
    for node in nodes_of(model, "Sigmoid")[:1]:
        node.op_type = "Relu"


def least_likely(model: onnx.ModelProto) -> None:
    nodes_of(model, "ArgMax")[0].input[0] = "branch_0.penalised"


def draw_forbidden(model: onnx.ModelProto) -> None:
    for k, node in enumerate(nodes_of(model, "Multinomial")):
        node.input[0] = f"branch_{k}"  # logits without mask


def forget_division(model: onnx.ModelProto) -> None:
    change(model, "action_limit", lambda array: array / 3)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (bump_one_weight, "differs by"),
        (forget_clip, "differs by"),
        (swap_deviation, "continuous_actions differs by"),
        (ignore_masks, "branch_0 |forbids"),
        (shift_masks, "branch_1.probabilities differs by|forbids"),
        (relu_for_swish, "differs by"),
        (least_likely, "deterministic_discrete_actions differs by"),
        (draw_forbidden, "forbids"),
        (forget_division, "expected -1 to 1|continuous_actions differs by"),
    ],
)
def test_comparison_notices_a_wrong_graph(
    tmp_path: Path, damage: Callable[[onnx.ModelProto], None], found: str
) -> None:
    spec = make_spec((4, 3), 2, (3, 4))
    policy = make_policy(spec, normalize=True)
    model = build_model(policy)
    onnx.save(model, str(tmp_path / "right.onnx"))
    assert compare(tmp_path / "right.onnx", policy, spec, 64, 0).max_difference < LIMIT
    damage(model)
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    with pytest.raises(ExportError, match=found):
        compare(tmp_path / "wrong.onnx", policy, spec, 64, 0)


def test_a_file_of_another_policy_never_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec((4,), 2, ())
    policy, other = make_policy(spec), make_policy(spec, seed=1)
    path = tmp_path / "Walker-1.onnx"
    export(policy, spec, path)
    before = path.read_bytes()
    monkeypatch.setattr("trainer.export_onnx.build_model", lambda _: build_model(other))
    with pytest.raises(ExportError, match=r"Walker-1\.onnx: .*continuous_actions differs by"):
        export(policy, spec, path)
    assert path.read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"Walker-1.onnx", "Walker-1.onnx.json"}


def test_what_was_found_is_stored_beside_the_file(tmp_path: Path) -> None:
    spec = make_spec((4,), 2, (3,))
    report = export(make_policy(spec), spec, tmp_path / "Walker-1.onnx", num_rows=33)
    stored = json.loads((tmp_path / "Walker-1.onnx.json").read_text())
    assert stored["max_difference"] == report.max_difference
    assert (stored["num_rows"], report.num_rows, stored["opset"]) == (33, 33, 9)
    assert issubclass(ExportError, UserError)


def test_large_activations_are_judged_by_what_float32_can_do(tmp_path: Path) -> None:
    spec = make_spec((60,), 5, ())
    policy = make_policy(spec, hidden_units=256, num_layers=3, normalize=True)
    with torch.no_grad():
        for parameter in policy.actor_body.parameters():
            parameter.mul_(8)
    model = build_model(policy)
    onnx.save(model, str(tmp_path / "large.onnx"))
    comparison = compare(tmp_path / "large.onnx", policy, spec, 64, 0)
    assert comparison.max_difference > LIMIT  # otherwise this tests nothing
    assert comparison.rounding is not None
    assert policy.mean_head.weight.dtype == torch.float32  # float64 was a copy
    change(model, "mean.weight", lambda array: array * 1.001)
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    with pytest.raises(ExportError, match="differs by"):
        compare(tmp_path / "wrong.onnx", policy, spec, 64, 0)


def test_diverged_weights_are_refused_with_what_to_do(tmp_path: Path) -> None:
    spec = make_spec((4,), 2, ())
    policy = make_policy(spec)
    with torch.no_grad():
        policy.mean_head.weight[0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"mean_head\.weight holds NaN.*learning_rate"):
        export(policy, spec, tmp_path / "nan.onnx")
    assert not list(tmp_path.iterdir())


def test_exporting_leaves_the_policy_and_its_flat_parameters_alone(tmp_path: Path) -> None:
    spec = make_spec((4,), 2, (3,))
    policy = make_policy(spec, normalize=True)
    algorithm = PPO(
        policy, PPOHyperparameters(), torch.tensor([0.99]), 1000, torch.Generator().manual_seed(0)
    )
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    random_before = torch.get_rng_state()
    export(policy, spec, tmp_path / "flat.onnx")
    assert torch.equal(random_before, torch.get_rng_state())
    for key, value in policy.state_dict().items():
        assert torch.equal(value, before[key])
    with torch.no_grad():
        # the views still are the policy's weights
        algorithm.optimizers["optimizer"].parameters.vector.add_(1.0)
    assert torch.equal(policy.mean_head.bias, before["mean_head.bias"] + 1.0)


def test_onnx_policy_refuses_other_environments_and_other_files(tmp_path: Path) -> None:
    spec = make_spec((4, 2), 2, ())
    path = tmp_path / "Walker.onnx"
    export(make_policy(spec), spec, path)
    with pytest.raises(OnnxError, match=r"shapes \[\(4,\), \(2,\)\], the environment has \[\(4,\)"):
        OnnxPolicy(path).act([np.zeros((1, 4), np.float32)], None, deterministic=True)
    with pytest.raises(OnnxError, match="cannot be loaded"):
        OnnxPolicy(tmp_path / "missing.onnx")
    path.write_bytes(b"nonsense")
    with pytest.raises(OnnxError, match="cannot be loaded"):
        OnnxPolicy(path)


def test_onnx_policy_refuses_an_older_format(tmp_path: Path) -> None:
    model = build_model(make_policy(make_spec((4,), 2, ())))
    change(model, "version_number.1", lambda array: array - 1)
    onnx.save(model, str(tmp_path / "old.onnx"))
    with pytest.raises(OnnxError, match="version_number 2; expected 3"):
        OnnxPolicy(tmp_path / "old.onnx")


def test_masks_that_are_left_out_allow_everything(tmp_path: Path) -> None:
    spec = make_spec((4,), 0, (3, 2))
    export(make_policy(spec), spec, tmp_path / "mask.onnx")
    obs, _ = random_inputs(spec, 6)
    policy = OnnxPolicy(tmp_path / "mask.onnx")
    everything = np.ones((6, 5), np.bool_)
    left_out = policy.act(obs, None, deterministic=True).discrete
    given = policy.act(obs, everything, deterministic=True).discrete
    assert np.array_equal(left_out, given)
    only_last = np.tile(np.array([[0, 0, 1, 0, 1]], np.bool_), (6, 1))
    assert policy.act(obs, only_last, deterministic=True).discrete.tolist() == [[2, 1]] * 6
