"""What an ONNX file is, from anywhere, as far as Unity cares: facts for `trainer.unity_checks`.

The newest of Unity's loaders runs a model once on a batch of one row of zeros and reads its
constants from the answer; the same is done here, in onnxruntime, and with four rows too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from envs.graph_policy import open_session
from trainer.onnx_policy import OnnxError

BATCHES = (1, 4)
# How a graph output that never changes comes about.
IDENTITY, INITIALIZER, CONSTANT_NODE, COMPUTED = (
    "initializer by way of Identity",
    "initializer itself",
    "Constant node",
    "computed",
)

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or output as the file declares it."""

    name: str
    dtype: str  # ONNX' name in small letters, such as `float` and `int64`
    shape: tuple[int | str, ...]  # a text where the size is open

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """All that is known of a file before anything is judged."""

    path: Path
    producer: str
    ir_version: int
    opsets: Mapping[str, int]  # by domain; the empty one is ONNX' own
    operators: Mapping[str, int]  # how often, by name
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    origins: Mapping[str, str]  # of every output
    unread_inputs: tuple[str, ...]
    subgraphs: tuple[str, ...]  # operators that hold a graph
    external_data: tuple[str, ...]  # initializers that lie in another file
    flaw: str | None  # what onnx.checker says
    answers: Mapping[int, Arrays | str]  # by batch size: outputs on zeros, or why there are none

    def input(self, name: str) -> TensorFacts | None:
        """Gives an input by name."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def output(self, name: str) -> TensorFacts | None:
        """Gives an output by name."""
        return next((tensor for tensor in self.outputs if tensor.name == name), None)

    def answer(self, name: str, batch: int = 1) -> NDArray[Any] | None:
        """Gives the numbers of an output on zeros; None if there are none, or it did not run."""
        answers = self.answers[batch]
        return None if isinstance(answers, str) else answers.get(name)


def read_model(path: Path) -> ModelFacts:
    """Reads a file and runs it on zeros.

    Raises:
        OnnxError: the file is missing, or no ONNX model.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise OnnxError(
            f"{path} cannot be read: {error.strerror}. Expected an ONNX file, such as "
            f"results/<run-id>/<Behaviour>.onnx."
        ) from error
    except Exception as error:  # protobuf's own class is not public
        raise OnnxError(_not_a_model(path, str(error))) from error
    if not model.graph.node:
        raise OnnxError(_not_a_model(path, "it holds no graph"))
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    read = {name for node in graph.node for name in node.input}
    inputs = tuple(_tensor(value) for value in graph.input if value.name not in initializers)
    producers = {name: node for node in graph.node for name in node.output}
    return ModelFacts(
        path=path,
        producer=f"{model.producer_name} {model.producer_version}".strip() or "somebody unknown",
        ir_version=model.ir_version,
        opsets={opset.domain: opset.version for opset in model.opset_import},
        operators=dict(sorted(Counter(_operator(node) for node in graph.node).items())),
        inputs=inputs,
        outputs=tuple(_tensor(value) for value in graph.output),
        origins={
            value.name: _origin(value.name, producers, initializers) for value in graph.output
        },
        unread_inputs=tuple(tensor.name for tensor in inputs if tensor.name not in read),
        subgraphs=tuple(sorted({node.op_type for node in graph.node if _has_graph(node)})),
        external_data=tuple(tensor.name for tensor in graph.initializer if tensor.data_location),
        flaw=_flaw(model),
        answers=_answers(path, inputs),
    )


def _not_a_model(path: Path, reason: str) -> str:
    return (
        f"{path} is no ONNX model ({' '.join(reason.split())[:200]}). Expected a file such as "
        f"ppo-train and mlagents-learn export."
    )


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _has_graph(node: onnx.NodeProto) -> bool:
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attribute)


def _tensor(value: onnx.ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in kind.shape.dim
    )
    return TensorFacts(value.name, TensorProto.DataType.Name(kind.elem_type).lower(), shape)


def _origin(name: str, producers: Mapping[str, onnx.NodeProto], initializers: set[str]) -> str:
    """Follows an output back through Identity; torch chains them when two constants are equal."""
    if name in initializers:
        return INITIALIZER
    node = producers.get(name)
    while node is not None and node.op_type == "Identity":
        if node.input[0] in initializers:
            return IDENTITY
        node = producers.get(node.input[0])
    return CONSTANT_NODE if node is not None and node.op_type == "Constant" else COMPUTED


def _flaw(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker has no list of what it raises
        return " ".join(str(error).split())[:300]
    return None


def _answers(path: Path, inputs: tuple[TensorFacts, ...]) -> dict[int, Arrays | str]:
    """Runs the model on zeros, once per batch size."""
    try:
        session = open_session(path)
    except Exception as error:  # onnxruntime's own classes are not public
        return dict.fromkeys(BATCHES, f"onnxruntime cannot load it: {_first_line(error)}")
    answers: dict[int, Arrays | str] = {}
    names = [entry.name for entry in session.get_outputs()]
    for batch in BATCHES:
        try:
            feed = {tensor.name: _zeros(tensor, batch) for tensor in inputs}
            outputs = zip(names, session.run(names, feed), strict=True)
            answers[batch] = {name: value for name, value in outputs if _are_numbers(value)}
        except Exception as error:  # likewise; and sizes that no memory has room for
            answers[batch] = _first_line(error)
    return answers


def _are_numbers(value: object) -> bool:
    """Tells whether an output can hold actions or constants; texts and sequences cannot."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _zeros(tensor: TensorFacts, batch: int) -> NDArray[Any]:
    """Zeros for an input; axis 0 is the batch, other sizes that are open count as 1."""
    number = TensorProto.DataType.Value(tensor.dtype.upper())
    sizes = [size if isinstance(size, int) else 1 for size in tensor.shape]
    return np.zeros([batch, *sizes[1:]] if sizes else [], helper.tensor_dtype_to_np_dtype(number))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
