"""Files from anywhere: whatever they hold, there are facts and verdicts, and no trace."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.unity_checks import Verdict, check
from trainer.unity_model import ModelFacts, read_model

FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING
ONE_TO_TWO = BehaviorSpec(
    [ObservationSpec((1,), (DimensionProperty.NONE,), Kind.DEFAULT, "eye")], ActionSpec(2, ())
)


def model_of(
    folder: Path,
    *constants: onnx.TensorProto,
    size: int = 1,
    kind: int = FLOAT,
    is_sequence: bool = False,
) -> ModelFacts:
    """One that gives its input back as its actions, and constants by their names."""
    make = helper.make_tensor_sequence_value_info if is_sequence else helper.make_tensor_value_info
    ends = [make(name, kind, ["batch", size]) for name in ("obs_0", "continuous_actions")]
    nodes = [helper.make_node("Identity", ["obs_0"], ["continuous_actions"])]
    nodes += [helper.make_node("Identity", [f"{c.name}.1"], [c.name]) for c in constants]
    outputs = [helper.make_tensor_value_info(c.name, c.data_type, list(c.dims)) for c in constants]
    for constant in constants:
        constant.name += ".1"
    graph = helper.make_graph(nodes, "odd", ends[:1], [*ends[1:], *outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    path = folder / "odd.onnx"
    onnx.save(model, path)
    return read_model(path)


def findings(model: ModelFacts) -> list[str]:
    return [found.found for found in check(model, ONE_TO_TWO) if found.verdict is Verdict.ERROR]


@pytest.mark.parametrize(("size", "words"), [(10**13, "Unable to allocate"), (-3, "negative dim")])
def test_size_that_no_memory_has_room_for_is_a_model_that_does_not_run(
    tmp_path: Path, size: int, words: str
) -> None:
    model = model_of(tmp_path, size=size)
    answer = model.answers[1]
    assert isinstance(answer, str)
    assert words in answer
    assert any("does not run on zeros" in line and words in line for line in findings(model))


@pytest.mark.parametrize(("kind", "is_sequence"), [(STRING, False), (FLOAT, True)])
def test_actions_that_are_no_numbers_are_no_answer(
    tmp_path: Path, kind: int, is_sequence: bool
) -> None:
    model = model_of(tmp_path, kind=kind, is_sequence=is_sequence)
    assert model.answer("continuous_actions") is None
    assert any(line.startswith("input obs_0 is ") for line in findings(model))


def test_constant_that_is_a_text_is_no_answer(tmp_path: Path) -> None:
    text = TensorProto(name="version_number", data_type=STRING, dims=[1], string_data=[b"three"])
    model = model_of(tmp_path, text)
    assert model.answer("version_number") is None
    assert "version_number is string, expected float" in findings(model)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1.5])
def test_shape_that_is_no_number_of_actions_is_found_out(tmp_path: Path, number: float) -> None:
    shape = helper.make_tensor("continuous_action_output_shape", FLOAT, [1], [number])
    model = model_of(tmp_path, shape)
    assert f"continuous_actions has shape (1, 1) on one row, expected (1, {number:g})" in findings(
        model
    )
    warned = [found.found for found in check(model, ONE_TO_TWO)]
    expected = f"continuous_action_output_shape is [{number}], the behaviour has [2]"
    assert expected in warned
