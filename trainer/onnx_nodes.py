"""A graph under construction: nodes, constants, inputs and outputs, one call each.

Only operators and forms of opset 9 that ML-Agents' own exports have, which all of Unity's
importers read. The one exception is Elu (activation `elu`); Barracuda, Sentis and Inference Engine
all have it.

Letters: B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

BATCH = "batch"
FLOAT: int = TensorProto.FLOAT
ACTIVATION_OPERATORS = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}


class Graph:
    """Collects nodes and constants; every method gives the name of what it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int) -> str:
        """Adds what Unity feeds, (B, *shape) floats."""
        self.inputs.append(helper.make_tensor_value_info(name, FLOAT, [BATCH, *shape]))
        return name

    def output(self, name: str, *shape: int, kind: int = FLOAT) -> None:
        """Lets Unity see a value, (B, *shape)."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, [BATCH, *shape]))

    def constant(self, name: str, value: Tensor | Sequence[float] | float) -> str:
        """Adds float32 numbers."""
        array = value.detach().cpu().float() if isinstance(value, Tensor) else torch.tensor(value)
        numpy_array = np.ascontiguousarray(array.numpy(), dtype=np.float32)
        self.initializers.append(numpy_helper.from_array(numpy_array, name))
        return name

    def constant_output(self, name: str, value: Sequence[Any]) -> None:
        """Gives Unity a number: an output that is an initializer, by way of Identity."""
        self.add("Identity", [self.constant(f"{name}.1", value)], name)
        shape = list(self.initializers[-1].dims)
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))

    def reshape(self, inputs: str, output: str, *shape: int) -> str:
        """Gives a value other axes behind the first one, which stays what it is."""
        axes = np.array([-1, *shape], dtype=np.int64)
        self.initializers.append(numpy_helper.from_array(axes, f"{output}.shape"))
        return self.add("Reshape", [inputs, f"{output}.shape"], output)

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds one operator; its attributes are those of the ONNX specification."""
        self.add_wide(operator, inputs, [output], **attributes)
        return output

    def add_wide(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Adds an operator with several outputs; it is named after the first."""
        name = f"{operator}_{outputs[0]}"
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))

    def dense(self, name: str, inputs: str, weight: Tensor, bias: Tensor) -> str:
        """Adds a dense layer of (B, inputs); weight (outputs, inputs), bias (outputs,)."""
        names = [self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.add("Gemm", [inputs, *names], name, alpha=1.0, beta=1.0, transB=1)

    def activation(self, kind: str, inputs: str) -> str:
        """Adds one of `trainer.nn.mlp.ACTIVATIONS`."""
        if kind == "swish":
            gate = self.add("Sigmoid", [inputs], f"{inputs}.gate")
            return self.add("Mul", [inputs, gate], f"{inputs}.active")
        return self.add(ACTIVATION_OPERATORS[kind], [inputs], f"{inputs}.active")
