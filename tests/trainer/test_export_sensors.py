"""Files of policies with cameras, crowds and goals: what Unity is to find in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from sensor_specs import behavior, entities, image, random_obs, vector

from envs.spec import BehaviorSpec, ObservationSpec
from trainer.actor import to_simulator
from trainer.config.settings import NetworkSettings
from trainer.export_onnx import LIMIT, ExportError, compare, export
from trainer.nn.actor_critic import ActorCritic
from trainer.onnx_graph import build_model
from trainer.onnx_policy import OnnxError, OnnxPolicy

# reference/mlagents-export-and-outputs.md, 1.3
OPERATORS = {
    *("Add", "ArgMax", "Cast", "Clip", "Concat", "Constant", "Conv", "Div", "Exp", "Gemm"),
    *("Identity", "LSTM", "LeakyRelu", "Less", "Log", "MatMul", "MaxPool", "Mul", "Multinomial"),
    *("Pow", "RandomNormalLike", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Slice"),
    *("Softmax", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"),
}
ACTIONS: dict[str, tuple[int, tuple[int, ...]]] = {
    "continuous": (3, ()),
    "discrete": (0, (3, 2)),
    "hybrid": (2, (4,)),
}
SENSORS: dict[str, tuple[ObservationSpec, ...]] = {
    "vector": (vector(4),),
    "visual": (image(3, 20, 24),),
    "variable": (entities(5, 6),),
    "several": (
        entities(3, 2, "a"),
        image(1, 20, 20, "b", dtype="float32"),
        vector(4, "c"),
        entities(5, 6, "d"),
        image(3, 24, 20, "e"),
        vector(2, "f"),
    ),
    "goal": (vector(3, "goal", is_goal=True), vector(4), image(1, 20, 20), entities(5, 6)),
    "goals": (image(1, 20, 20, is_goal=True), vector(4), vector(2, "aim", is_goal=True)),
}


def make_policy(spec: BehaviorSpec, *, shared_critic: bool = False, **network: Any) -> ActorCritic:
    """Like a trained one: heads, attention and biases are large enough to be seen."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = NetworkSettings(**{"hidden_units": 16, "normalize": True, **network})
    policy = ActorCritic("Crab", spec, settings, 1, shared_critic)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "encoders" not in name and (name.endswith("bias") or name == "log_std"):
                parameter.normal_(std=0.5)
            elif "entities" in name:
                parameter.mul_(8)
            elif "head.weight" in name:
                parameter.normal_(std=0.3)
    policy.update_normalizer([3 * column.float() + 1 for column in random_obs(spec, 200)])
    return policy


@pytest.mark.parametrize("conditioning", ["hyper", "none"])
@pytest.mark.parametrize("shared_critic", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("sensors", SENSORS)
@pytest.mark.parametrize("actions", ACTIONS)
def test_file_acts_like_the_live_policy(
    tmp_path: Path, actions: str, sensors: str, shared_critic: bool, conditioning: str
) -> None:
    continuous, branches = ACTIONS[actions]
    spec = behavior(*SENSORS[sensors], continuous=continuous, branches=branches)
    policy = make_policy(spec, shared_critic=shared_critic, goal_conditioning_type=conditioning)
    path = tmp_path / "Crab.onnx"
    assert export(policy, spec, path).max_difference < LIMIT
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 9)]
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    read = {name for node in model.graph.node for name in node.input}
    assert {value.name for value in model.graph.input} <= read  # nothing Unity feeds in vain
    assert {value.name for value in model.graph.initializer} <= read
    inputs = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    expected = {f"obs_{i}": ["batch", *sensor.shape] for i, sensor in enumerate(spec[0])}
    assert list(inputs)[: len(expected)] == list(expected)
    assert {name: inputs[name] for name in expected} == expected

    file = OnnxPolicy(path)
    for rows in (1, 7):
        obs = random_obs(spec, rows, seed=rows)
        chosen = file.act([column.numpy() for column in obs], None, deterministic=True)
        live = policy.act(policy.inputs(obs), None, torch.Generator(), deterministic=True)
        wanted = to_simulator(live)
        # float32 in another order; the actions lie in -1..1
        assert chosen.continuous == pytest.approx(wanted.continuous, abs=1e-5)
        assert np.array_equal(chosen.discrete, wanted.discrete)
        assert rows == 1 or not continuous or len(np.unique(chosen.continuous)) > continuous


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_activation_and_layers_reach_the_file_everywhere(
    tmp_path: Path, activation: str, num_layers: int
) -> None:
    spec = behavior(*SENSORS["goal"])
    policy = make_policy(spec, activation=activation, num_layers=num_layers)
    assert export(policy, spec, tmp_path / "Crab.onnx").max_difference < LIMIT


@pytest.mark.parametrize(
    ("encoder", "size"),
    [("simple", 41), ("nature_cnn", 44), ("resnet", 31), ("match3", 7), ("fully_connected", 3)],
)
def test_every_encoder_is_written(tmp_path: Path, encoder: str, size: int) -> None:
    spec = behavior(image(3, size, size + 5))
    policy = make_policy(spec, vis_encode_type=encoder)
    path = tmp_path / "Crab.onnx"
    assert export(policy, spec, path).max_difference < LIMIT
    operators = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert operators <= OPERATORS
    assert ("Conv" in operators) is (encoder != "fully_connected")
    assert ("MaxPool" in operators) is (encoder == "resnet")


def test_images_are_fed_as_zero_to_one_whatever_they_were_trained_from(tmp_path: Path) -> None:
    spec = behavior(image(3, 20, 20))
    path = tmp_path / "Crab.onnx"
    export(make_policy(spec), spec, path)
    file = OnnxPolicy(path)
    pixels = random_obs(spec, 5)[0].numpy()
    as_unity_feeds = [(pixels / 255).astype(np.float32)]
    found, same = (
        file.act(obs, None, deterministic=True).continuous for obs in ([pixels], as_unity_feeds)
    )
    assert found == pytest.approx(same, abs=1e-6)
    dark = file.act([pixels // 2], None, deterministic=True).continuous
    assert np.abs(dark - found).max() > 1e-3
    constants = {numpy_helper.to_array(entry).item() for entry in scalars(path)}
    assert 255.0 not in constants


def test_very_large_images_are_compared_in_fewer_rows(tmp_path: Path) -> None:
    rows = {}
    for size in (20, 220):
        spec = behavior(image(3, size, size))
        policy = make_policy(spec, vis_encode_type="resnet")
        rows[size] = export(policy, spec, tmp_path / "Crab.onnx", num_rows=50).num_rows
    assert rows == {20: 50, 220: 16}


def scalars(path: Path) -> list[onnx.TensorProto]:
    entries = onnx.load(str(path)).graph.initializer
    floats = [entry for entry in entries if entry.data_type == TensorProto.FLOAT]
    return [entry for entry in floats if numpy_helper.to_array(entry).size == 1]


def test_camera_of_another_size_is_refused(tmp_path: Path) -> None:
    spec = behavior(image(3, 20, 20), vector(4))
    path = tmp_path / "Crab.onnx"
    export(make_policy(spec), spec, path)
    other = behavior(image(3, 24, 20), vector(4))
    obs = [column.numpy() for column in random_obs(other, 2)]
    with pytest.raises(OnnxError, match=r"\[\(3, 20, 20\), \(4,\)\], the environment has"):
        OnnxPolicy(path).act(obs, None, deterministic=True)


def test_transposes_are_those_that_every_importer_reads() -> None:
    """Barracuda cannot read (0, 2, 3, 1), nor two Transposes in a row that make it."""
    model = build_model(make_policy(behavior(*SENSORS["several"])))
    makers = {output: node for node in model.graph.node for output in node.output}
    turned = [node for node in model.graph.node if node.op_type == "Transpose"]
    assert len(turned) == 5
    for node in turned:
        assert list(node.attribute[0].ints) in ([0, 2, 1, 3], [0, 1, 3, 2])
        assert makers[node.input[0]].op_type != "Transpose"


# What may go wrong in a graph, one node or constant at a time; each must be found by `compare`.
NODES = ("MaxPool", "LeakyRelu", "Relu", "Less", "Sqrt", "Softmax", "ReduceMean", "Sigmoid")


@pytest.mark.parametrize("operator", NODES)
def test_wrong_node_is_found(tmp_path: Path, operator: str) -> None:
    spec = behavior(*SENSORS["goal"])
    resnet = operator in ("MaxPool", "Relu")
    policy = make_policy(spec, vis_encode_type="resnet" if resnet else "simple")
    model = build_model(policy)
    found = [node for node in model.graph.node if node.op_type == operator]
    assert found
    for node in found:
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        (wrong,) = (other for other in spoilt.graph.node if other.name == node.name)
        spoil(wrong, spoilt)
        path = tmp_path / "wrong.onnx"
        path.write_bytes(spoilt.SerializeToString())
        with pytest.raises(ExportError, match="differs by"):
            compare(path, policy, spec, 64, 0)


def spoil(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    """Changes what a node does, but not the shape of what it gives."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    match node.op_type:
        case "MaxPool":
            node.op_type = "AveragePool"
        case "LeakyRelu":
            attributes["alpha"].f = 0.02
        case "Less":
            limits = {entry.name: entry for entry in model.graph.initializer}
            limit = limits[node.input[1]]
            limit.CopyFrom(numpy_helper.from_array(np.array(2.0, np.float32), limit.name))
        case "Softmax":
            attributes["axis"].i = 2
        case "Relu" | "Sqrt" | "Sigmoid":
            node.op_type = "Tanh"
        case "ReduceMean":
            node.op_type = "ReduceSum"


def test_wrong_weight_of_any_layer_is_found(tmp_path: Path) -> None:
    spec = behavior(*SENSORS["goals"], entities(5, 6), image(1, 15, 15, "other"))
    policy = make_policy(spec, vis_encode_type="resnet")
    model = build_model(policy)
    path = tmp_path / "wrong.onnx"
    names = [entry.name for entry in model.graph.initializer if entry.name.endswith("weight")]
    assert len(names) > 40
    for name in names[::3]:
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        (wrong,) = (entry for entry in spoilt.graph.initializer if entry.name == name)
        values = numpy_helper.to_array(wrong)
        wrong.CopyFrom(numpy_helper.from_array(np.flip(values, 0).copy(), name))
        path.write_bytes(spoilt.SerializeToString())
        with pytest.raises(ExportError, match="differs by"):
            compare(path, policy, spec, 32, 0)
