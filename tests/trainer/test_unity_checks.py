"""Good files, and files that are broken on purpose in each way that Unity looks at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.onnx_graph import build_model
from trainer.onnx_policy import OnnxError
from trainer.unity_checks import Check, Verdict, check
from trainer.unity_model import read_model

MLAGENTS = sorted((Path(__file__).parent / "mlagents_runs").glob("*/Crab.onnx"))
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

Break = Callable[[onnx.ModelProto], None]


def spec_of(
    sizes: tuple[int, ...] = (3, 2), continuous: int = 2, branches: tuple[int, ...] = (3, 2)
) -> BehaviorSpec:
    sensors = [
        ObservationSpec((size,), (DimensionProperty.NONE,), Kind.DEFAULT, f"eye{i}")
        for i, size in enumerate(sizes)
    ]
    return BehaviorSpec(sensors, ActionSpec(continuous, branches))


def model_of(spec: BehaviorSpec) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = NetworkSettings(hidden_units=8, num_layers=1, normalize=True)
    return build_model(ActorCritic("Crab", spec, network, 1, False))


def checks_of(
    model: onnx.ModelProto, folder: Path, spec: BehaviorSpec | None = None
) -> list[Check]:
    path = folder / "Crab.onnx"
    path.write_bytes(model.SerializeToString())
    return check(read_model(path), spec)


def findings(checks: list[Check]) -> list[str]:
    return [f"{c.verdict.name}: {c.found} | {c.consequence}" for c in checks if c.verdict]


# Files that are right.


@pytest.mark.parametrize(
    ("continuous", "branches"), [(2, ()), (0, (3, 2)), (2, (3, 2)), (1, (1,)), (3, ())]
)
def test_our_exports_have_nothing_that_unity_objects_to(
    tmp_path: Path, continuous: int, branches: tuple[int, ...]
) -> None:
    spec = spec_of((3, 2), continuous, branches)
    checks = checks_of(model_of(spec), tmp_path, spec)
    assert findings(checks) == []
    assert len(checks) > 15


@pytest.mark.parametrize("path", MLAGENTS, ids=lambda path: path.parent.name)
def test_files_of_the_real_mlagents_learn_have_nothing_that_unity_objects_to(path: Path) -> None:
    checks = check(read_model(path))
    assert findings(checks) == []


def test_consequence_is_told_exactly_where_something_is_found(tmp_path: Path) -> None:
    model = model_of(spec_of())
    drop_output(model, "version_number")
    for found in checks_of(model, tmp_path, spec_of((4,))):
        assert bool(found.consequence) == bool(found.verdict), found


# Ways to break a file.


def drop_output(model: onnx.ModelProto, *names: str) -> None:
    """Takes outputs away, and what only they need."""
    graph = model.graph
    kept = [value for value in graph.output if value.name not in names]
    del graph.output[:]
    graph.output.extend(kept)
    nodes = [node for node in graph.node if node.output[0] not in names]
    del graph.node[:]
    graph.node.extend(nodes)


def value_of(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    values: list[onnx.ValueInfoProto] = [*model.graph.input, *model.graph.output]
    return next(value for value in values if value.name == name)


def set_constant(name: str, *numbers: float) -> Break:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == f"{name}.1")
        shape = list(tensor.dims)
        tensor.CopyFrom(
            numpy_helper.from_array(np.array(numbers, np.float32).reshape(shape), f"{name}.1")
        )

    return change


def without(*names: str) -> Break:
    return lambda model: drop_output(model, *names)


def without_input(name: str) -> Break:
    """Makes an input a constant of ones with a batch of one row: nobody has to feed it."""

    def change(model: onnx.ModelProto) -> None:
        value = value_of(model, name)
        size = value.type.tensor_type.shape.dim[1].dim_value
        model.graph.input.remove(value)
        model.graph.initializer.append(
            numpy_helper.from_array(np.ones((1, size), np.float32), name)
        )

    return change


def rename_input(name: str, new: str) -> Break:
    def change(model: onnx.ModelProto) -> None:
        value_of(model, name).name = new
        for node in model.graph.node:
            for i, read in enumerate(node.input):
                if read == name:
                    node.input[i] = new

    return change


def more_input(name: str, kind: int = FLOAT, shape: tuple[Any, ...] = ("batch", 3)) -> Break:
    return lambda model: model.graph.input.append(
        helper.make_tensor_value_info(name, kind, list(shape))
    )


def fixed_batch(model: onnx.ModelProto) -> None:
    value_of(model, "obs_0").type.tensor_type.shape.dim[0].dim_value = 1


def rows_become_one(model: onnx.ModelProto) -> None:
    """An answer that forgets how many agents asked."""
    node = next(n for n in model.graph.node if n.output[0] == "deterministic_continuous_actions")
    node.output[0] = "many"
    model.graph.node.append(
        helper.make_node(
            "ReduceMean", ["many"], ["deterministic_continuous_actions"], axes=[0], keepdims=1
        )
    )


def constant_node(model: onnx.ModelProto) -> None:
    drop = next(n for n in model.graph.node if n.output[0] == "version_number")
    tensor = helper.make_tensor("value", FLOAT, [1], [3.0])
    drop.CopyFrom(helper.make_node("Constant", [], ["version_number"], value=tensor))


def constant_computed(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.output[0] == "memory_size")
    node.CopyFrom(helper.make_node("Sub", ["memory_size.1", "memory_size.1"], ["memory_size"]))


def constant_of_integers(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "version_number.1")
    tensor.CopyFrom(numpy_helper.from_array(np.array([3], np.int64), "version_number.1"))
    value_of(model, "version_number").type.tensor_type.elem_type = INT64


def discrete_as_float(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.output[0] == "deterministic_discrete_actions")
    node.output[0] = "indices"
    model.graph.node.append(
        helper.make_node("Cast", ["indices"], ["deterministic_discrete_actions"], to=FLOAT)
    )
    value_of(model, "deterministic_discrete_actions").type.tensor_type.elem_type = FLOAT


def named_output(name: str) -> Break:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Identity", ["memory_size.1"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, [1]))

    return change


def operator(name: str, domain: str = "") -> Break:
    """Puts one more operator between the mean and the action."""

    def change(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.output[0] == "continuous_actions")
        node.output[0] = "before"
        more = helper.make_node(name, ["before"], ["continuous_actions"], domain=domain)
        model.graph.node.append(more)
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def opset(version: int) -> Break:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["memory_size.1"], ["inside"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", FLOAT, [1])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["chosen"], then_branch=inner, else_branch=inner)
    )


def external(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "body.0.weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def not_a_graph(model: onnx.ModelProto) -> None:
    model.graph.node[-1].input[0] = "nobody"


def nan_weights(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "mean.bias")
    tensor.CopyFrom(numpy_helper.from_array(np.full(2, np.nan, np.float32), "mean.bias"))


def memory(
    size: float = 4, *, reads: bool = True, writes: bool = True, width: int | None = None
) -> Break:
    """Gives the model a memory that is handed through."""
    shape: list[str | int | None] = ["batch", 1, int(size) if width is None else width]

    def change(model: onnx.ModelProto) -> None:
        set_constant("memory_size", size)(model)
        source = "recurrent_in"
        if reads:
            model.graph.input.append(helper.make_tensor_value_info("recurrent_in", FLOAT, shape))
        else:
            source = "zeros"
            zeros = np.zeros((1, 1, int(size)), np.float32)
            model.graph.initializer.append(numpy_helper.from_array(zeros, source))
        if writes:
            model.graph.node.append(helper.make_node("Identity", [source], ["recurrent_out"]))
            model.graph.output.append(helper.make_tensor_value_info("recurrent_out", FLOAT, shape))
        elif reads:
            model.graph.node.append(helper.make_node("Identity", [source], ["unused"]))

    return change


ERROR, WARNING = Verdict.ERROR, Verdict.WARNING
BREAKS: dict[str, tuple[Break, Verdict, str]] = {
    # 2.2.1
    "no version": (
        without("version_number"),
        WARNING,
        "version_number is missing | Unity warns",
    ),
    "no memory size": (
        without("memory_size"),
        WARNING,
        "memory_size is missing | Unity warns",
    ),
    # 2.2.2
    "no actions": (
        without(
            "continuous_actions",
            "deterministic_continuous_actions",
            "discrete_actions",
            "deterministic_discrete_actions",
        ),
        WARNING,
        "no action output: none of action, continuous_actions",
    ),
    # 2.2.3
    "no continuous shape": (
        without("continuous_action_output_shape"),
        WARNING,
        "continuous_actions without continuous_action_output_shape",
    ),
    "no discrete shape": (
        without("discrete_action_output_shape"),
        WARNING,
        "discrete_actions without discrete_action_output_shape",
    ),
    # 2.2.4
    "no deterministic continuous": (
        without("deterministic_continuous_actions"),
        WARNING,
        "deterministic_continuous_actions is missing | with Deterministic Inference ticked",
    ),
    "no deterministic discrete": (
        without("deterministic_discrete_actions"),
        WARNING,
        "deterministic_discrete_actions is missing | with Deterministic Inference ticked",
    ),
    "empty deterministic": (
        set_constant("continuous_action_output_shape", 0),
        WARNING,
        "deterministic_continuous_actions is there, but continuous_action_output_shape is 0",
    ),
    # 2.2.5
    "old version": (set_constant("version_number", 1), ERROR, "is 1, expected 3 (or 2) | UnityAg"),
    "new version": (set_constant("version_number", 4), ERROR, "is 4, expected 3 (or 2) | UnityAg"),
    "version 2": (set_constant("version_number", 2), WARNING, "version_number is 2, of packages 1"),
    "version 2 with memory": (
        lambda model: (set_constant("version_number", 2)(model), memory()(model))[0],
        ERROR,
        "version_number 2 with memory, expected 3",
    ),
    # 2.2.6
    "memory of -1": (set_constant("memory_size", -1), WARNING, "memory_size is -1, expected 0 or"),
    # 2.2.7
    "gap in observations": (
        rename_input("obs_1", "obs_2"),
        WARNING,
        "input obs_1 is missing; expected obs_0, obs_1, ... without a gap",
    ),
    "no memory in": (memory(reads=False), WARNING, "memory of 4 numbers without recurrent_in"),
    "no masks": (without_input("action_masks"), WARNING, "discrete actions without the input act"),
    # 2.2.8
    "unexpected input": (
        rename_input("obs_1", "vector_observation"),
        ERROR,
        'unexpected input vector_observation | Unity warns, then raises "Unknown tensorProxy',
    ),
    "input of integers": (
        more_input("prev_action", INT64),
        ERROR,
        "input prev_action is int64, expected float",
    ),
    "observation of rank 5": (
        more_input("obs_2", shape=("batch", 1, 2, 3, 4)),
        WARNING,
        "obs_2 has shape (batch, 1, 2, 3, 4); expected (batch, n)",
    ),
    "input that nothing reads": (
        more_input("recurrent_in", shape=("batch", 1, 4)),
        WARNING,
        "nothing reads the input recurrent_in; ML-Agents leaves such inputs out",
    ),
    # 2.2.10
    "no memory out": (memory(writes=False), WARNING, "memory of 4 numbers without recurrent_out"),
    "memory of another size": (
        memory(width=6),
        WARNING,
        "recurrent_in has shape (batch, 1, 6), expected (batch, 1, 4)",
    ),
    # 2.1
    "constant node": (
        constant_node,
        WARNING,
        "version_number is made by: Constant node; expected initializer by way of Identity",
    ),
    "computed constant": (constant_computed, WARNING, "memory_size is made by: computed; expected"),
    "constant of integers": (
        constant_of_integers,
        ERROR,
        "version_number is int64, expected float | the newest loader casts it to Tensor<float>",
    ),
    "name by accident": (
        named_output("my_discrete_actions_2"),
        WARNING,
        "output my_discrete_actions_2 contains discrete_actions | Unity may take it for",
    ),
    # 2.3
    "fixed batch": (fixed_batch, ERROR, "axis 0 of obs_0 has a fixed size, expected an open one"),
    "does not run with four": (fixed_batch, ERROR, "does not run on zeros, nothing allowed, batch"),
    "one answer for all": (
        rows_become_one,
        ERROR,
        "deterministic_continuous_actions has shape (1, 2) on zeros, nothing allowed, batch 4, exp",
    ),
    "does not run": (not_a_graph, ERROR, "does not run on zeros, nothing allowed, batch 1"),
    "discrete as float": (
        discrete_as_float,
        ERROR,
        "deterministic_discrete_actions is float, expected int64 | Unity reads it as Tensor<int>",
    ),
    "another number of actions": (
        set_constant("continuous_action_output_shape", 3),
        ERROR,
        "continuous_actions has shape (1, 2) on one row, expected (1, 3)",
    ),
    "not a number": (nan_weights, WARNING, "deterministic_continuous_actions is [nan, nan] on ze"),
    # 1
    "invalid": (not_a_graph, ERROR, "no valid ONNX: "),
    "newer opset": (opset(10), WARNING, "opset 10, expected 9, the only one that ML-Agents writes"),
    "strange operator": (
        operator("Erf"),
        WARNING,
        "operators that ML-Agents never writes: Erf | some generations of Unity may not import",
    ),
    "foreign operator": (
        operator("Gelu", "com.microsoft"),
        ERROR,
        "operators that are not ONNX' own: com.microsoft.Gelu | import fails",
    ),
    "graph inside": (subgraph, WARNING, "graphs inside If; expected one flat graph"),
    "weights outside": (external, ERROR, "weights outside the file: body.0.weight; expected all"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_file_is_found_out(tmp_path: Path, name: str) -> None:
    change, verdict, words = BREAKS[name]
    model = model_of(spec_of())
    change(model)
    found = findings(checks_of(model, tmp_path))
    assert any(line.startswith(f"{verdict.name}: ") and words in line for line in found), found


def test_memory_that_is_right_is_no_finding(tmp_path: Path) -> None:
    model = model_of(spec_of())
    memory()(model)
    assert findings(checks_of(model, tmp_path)) == []


def test_discrete_action_that_does_not_exist_is_found_out(tmp_path: Path) -> None:
    model = model_of(spec_of())
    node = next(n for n in model.graph.node if n.output[0] == "deterministic_discrete_actions")
    node.output[0] = "indices"
    nine = numpy_helper.from_array(np.array([[9, 9]], np.int64), "nine")
    model.graph.initializer.append(nine)
    model.graph.node.append(
        helper.make_node("Add", ["indices", "nine"], ["deterministic_discrete_actions"])
    )
    (line,) = findings(checks_of(model, tmp_path))
    assert line.startswith("ERROR: deterministic_discrete_actions is [")
    assert "of branches with [3. 2.] | agents receive actions that do not exist" in line


# Against what a behaviour observes and does: 2.2.7 to 2.2.9.


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (spec_of((3, 2, 5)), "WARNING: sensor 2 (eye2) has no input obs_2"),
        (spec_of((3,)), "ERROR: obs_1 belongs to no sensor; the behaviour has 1"),
        (spec_of((4, 2)), "WARNING: obs_0 has shape (batch, 3), sensor 0 (eye0) (4,)"),
        (spec_of(continuous=1), "WARNING: continuous_action_output_shape is [2], the behaviour h"),
        (spec_of(continuous=0), "WARNING: continuous_action_output_shape is [2], the behaviour h"),
        (spec_of(branches=(2, 3)), "WARNING: discrete_action_output_shape is [3, 2], the behavio"),
        (spec_of(branches=(3,)), "WARNING: discrete_action_output_shape is [3, 2], the behaviour"),
        (spec_of(branches=(3,)), "WARNING: action_masks has shape (batch, 5), the branches have 3"),
    ],
)
def test_behavior_of_other_sizes_is_found_out(
    tmp_path: Path, spec: BehaviorSpec, expected: str
) -> None:
    found = findings(checks_of(model_of(spec_of()), tmp_path, spec))
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x04"])
def test_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(OnnxError, match=r"x\.onnx is no ONNX model"):
        read_model(path)
    with pytest.raises(OnnxError, match="cannot be read: No such file"):
        read_model(tmp_path / "y.onnx")
