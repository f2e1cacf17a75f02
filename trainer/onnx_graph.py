"""A policy as an ONNX graph that every Unity package of the last years reads.

Built node by node with the names, types, order and operators that ML-Agents' own exports have
(opset 9, IR version 4): inputs `obs_<i>`, with discrete actions `action_masks`, and with memory
`recurrent_in`, which comes back as `recurrent_out`; constants are outputs, each fed by Identity
from an initializer. The one operator that ML-Agents never writes is Elu (activation `elu`);
Barracuda, Sentis and Inference Engine all have it.

Letters: B rows, C continuous action size, K discrete branches, H features, M memory size.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from trainer.actor import ACTION_LIMIT
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.distributions import MASKED_LOGIT
from trainer.nn.memory import Memory
from trainer.nn.mlp import MLP
from trainer.nn.normalizer import CLIP
from trainer.onnx_policy import UNITY_FORMAT

OPSET = 9
IR_VERSION = 4
BATCH = "batch"
ACTIVATION_OPERATORS = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}


class _Graph:
    """Collects nodes and constants; every method gives the name of what it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape]))
        return name

    def output(self, name: str, *shape: int, kind: int = TensorProto.FLOAT) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, kind, [BATCH, *shape]))

    def constant(self, name: str, value: Tensor | Sequence[float] | float) -> str:
        array = value.detach().cpu().float() if isinstance(value, Tensor) else torch.tensor(value)
        numpy_array = np.ascontiguousarray(array.numpy(), dtype=np.float32)
        self.initializers.append(numpy_helper.from_array(numpy_array, name))
        return name

    def constant_output(self, name: str, value: Sequence[Any]) -> None:
        """Gives Unity a number: an output that is an initializer, by way of Identity."""
        self.add("Identity", [self.constant(f"{name}.1", value)], name)
        shape = list(self.initializers[-1].dims)
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.add_wide(operator, inputs, [output], **attributes)
        return output

    def add_wide(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Adds an operator with several outputs."""
        name = f"{operator}_{outputs[0]}"
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))

    def dense(self, name: str, inputs: str, weight: Tensor, bias: Tensor) -> str:
        names = [self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.add("Gemm", [inputs, *names], name, alpha=1.0, beta=1.0, transB=1)


def build_model(policy: ActorCritic) -> onnx.ModelProto:
    """Gives the actor as a graph; the critic stays behind.

    Inner values that `with_outputs` can show: `noise` (B, C), and for branch k
    `branch_<k>.probabilities`.
    """
    graph = _Graph()
    graph.constant_output("version_number", [UNITY_FORMAT])
    graph.constant_output("memory_size", [float(policy.memory_size)])
    features = _features(graph, policy)
    masks = graph.input("action_masks", sum(policy.branch_sizes)) if policy.branch_sizes else None
    if policy.actor_memory is not None:
        features = _memory(graph, policy.actor_memory, features)
    if policy.continuous_size:
        _continuous_head(graph, policy, features)
    if masks is not None:
        _discrete_head(graph, policy, features, masks)
    if policy.actor_memory is not None:
        graph.output("recurrent_out", 1, policy.memory_size)  # Unity expects it last
    proto = helper.make_graph(
        graph.nodes, "policy", graph.inputs, graph.outputs, graph.initializers
    )
    model = helper.make_model(
        proto,
        producer_name="ppo-train",
        producer_version=version("ppo-train"),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = IR_VERSION
    return model


def _features(graph: _Graph, policy: ActorCritic) -> str:
    """Observations -> normaliser -> body."""
    encoded = []
    start = 0
    for i, size in enumerate(policy.sensors.vector_sizes):
        obs = graph.input(f"obs_{i}", size)
        if policy.normalizer is not None:
            part = slice(start, start + size)
            # scale is 1 / deviation; Unity's importers have always met a division here
            mean = graph.constant(f"obs_{i}.mean", policy.normalizer.shift[part])
            deviation = graph.constant(f"obs_{i}.deviation", 1 / policy.normalizer.scale[part])
            obs = graph.add("Sub", [obs, mean], f"obs_{i}.centred")
            obs = graph.add("Div", [obs, deviation], f"obs_{i}.scaled")
            obs = graph.add("Clip", [obs], f"obs_{i}.normalized", min=-CLIP, max=CLIP)
        encoded.append(obs)
        start += size
    hidden = encoded[0]
    if len(encoded) > 1:
        hidden = graph.add("Concat", encoded, "inputs", axis=1)
    body = policy.actor_body.hidden
    for i, layer in enumerate(body.layers):
        assert isinstance(layer, nn.Linear)
        hidden = graph.dense(f"body.{i}", hidden, layer.weight, layer.bias)
        hidden = _activation(graph, body, hidden)
    return hidden


def _activation(graph: _Graph, body: MLP, hidden: str) -> str:
    if body.activation == "swish":
        gate = graph.add("Sigmoid", [hidden], f"{hidden}.gate")
        return graph.add("Mul", [hidden, gate], f"{hidden}.active")
    return graph.add(ACTIVATION_OPERATORS[body.activation], [hidden], f"{hidden}.active")


def _memory(graph: _Graph, memory: Memory, features: str) -> str:
    """One step of the LSTM: features and `recurrent_in` -> what the heads read."""
    size = memory.num_features
    carried = graph.input("recurrent_in", 1, memory.memory_size)
    carried = graph.add("Transpose", [carried], "memory", perm=[1, 0, 2])  # -> (1, B, M)
    # Slices instead of a Split, which Sentis lacked.
    halves = [
        graph.add("Slice", [carried], f"memory.{name}", axes=[2], starts=[start], ends=[end])
        for name, start, end in (("hidden", 0, size), ("cell", size, 2 * size))
    ]
    lstm = memory.lstm
    biases = [_onnx_gates(lstm.get_parameter(f"bias_{of}_l0"), size) for of in ("ih", "hh")]
    weights = [
        graph.constant(
            f"lstm.{name}", _onnx_gates(lstm.get_parameter(parameter), size).unsqueeze(0)
        )
        for name, parameter in (("W", "weight_ih_l0"), ("R", "weight_hh_l0"))
    ]
    bias = graph.constant("lstm.B", torch.cat(biases).unsqueeze(0))  # (1, 4 M)
    steps = graph.add("Unsqueeze", [features], "features.steps", axes=[0])  # (B, H) -> (1, B, H)
    graph.add_wide(
        "LSTM",
        [steps, *weights, bias, "", *halves],
        ["lstm.read", "lstm.hidden", "lstm.cell"],  # (1, 1, B, M / 2), (1, B, M / 2) twice
        hidden_size=size,
    )
    after = graph.add("Concat", ["lstm.hidden", "lstm.cell"], "memory.after", axis=2)
    graph.add("Transpose", [after], "recurrent_out", perm=[1, 0, 2])
    return graph.add("Squeeze", ["lstm.read"], "features.remembered", axes=[0, 1])


def _onnx_gates(weights: Tensor, size: int) -> Tensor:
    """Puts torch's gates (input, forget, cell, output) into ONNX's order; (4 size, any)."""
    i, f, c, o = torch.split(weights.detach(), size)
    return torch.cat([i, o, f, c])


def _continuous_head(graph: _Graph, policy: ActorCritic, features: str) -> None:
    """Gaussian: drawn and likeliest action, clipped and scaled to -1..1."""
    size = policy.continuous_size
    mean = graph.dense("mean", features, policy.mean_head.weight, policy.mean_head.bias)
    deviation = graph.constant("deviation", policy.log_std.detach().exp().unsqueeze(0))  # (1, C)
    noise = graph.add("RandomNormalLike", [mean], "noise", dtype=TensorProto.FLOAT)
    scaled_noise = graph.add("Mul", [noise, deviation], "scaled_noise")
    drawn = graph.add("Add", [mean, scaled_noise], "drawn")
    limit = graph.constant("action_limit", ACTION_LIMIT)
    for source, name in ((drawn, "continuous_actions"), (mean, "deterministic_continuous_actions")):
        clipped = graph.add(
            "Clip", [source], f"{source}.clipped", min=-ACTION_LIMIT, max=ACTION_LIMIT
        )
        graph.add("Div", [clipped, limit], name)
    graph.output("continuous_actions", size)
    graph.constant_output("continuous_action_output_shape", [float(size)])
    graph.output("deterministic_continuous_actions", size)


def _discrete_head(graph: _Graph, policy: ActorCritic, features: str, masks: str) -> None:
    """One categorical per branch: a draw and the likeliest, among the allowed."""
    sizes = policy.branch_sizes
    one = graph.constant("one", 1.0)
    penalty = graph.constant("penalty", -MASKED_LOGIT)
    drawn, likeliest = [], []
    start = 0
    for k, size in enumerate(sizes):
        part = slice(start, start + size)
        weight, bias = policy.branch_head.weight[part], policy.branch_head.bias[part]
        logits = graph.dense(f"branch_{k}", features, weight, bias)
        allowed = graph.add(
            "Slice", [masks], f"branch_{k}.allowed", axes=[1], starts=[start], ends=[start + size]
        )
        # logits * mask - 1e8 * (1 - mask): exactly the logit where allowed, exactly -1e8 where not
        kept = graph.add("Mul", [logits, allowed], f"branch_{k}.kept")
        forbidden = graph.add("Sub", [one, allowed], f"branch_{k}.forbidden")
        penalised = graph.add("Mul", [forbidden, penalty], f"branch_{k}.penalised")
        masked = graph.add("Sub", [kept, penalised], f"branch_{k}.masked")
        probabilities = graph.add("Softmax", [masked], f"branch_{k}.probabilities", axis=1)
        log_probs = graph.add("Log", [probabilities], f"branch_{k}.log_probs")
        drawn.append(
            graph.add(
                "Multinomial",
                [log_probs],
                f"branch_{k}.drawn",
                dtype=TensorProto.INT64,
                sample_size=1,
            )
        )
        likeliest.append(graph.add("ArgMax", [masked], f"branch_{k}.likeliest", axis=1, keepdims=1))
        start += size
    graph.add("Concat", drawn, "discrete_actions", axis=1)
    graph.output("discrete_actions", len(sizes), kind=TensorProto.INT64)
    graph.constant_output("discrete_action_output_shape", [[float(size) for size in sizes]])
    graph.add("Concat", likeliest, "deterministic_discrete_actions", axis=1)
    graph.output("deterministic_discrete_actions", len(sizes), kind=TensorProto.INT64)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Gives a copy of the graph that shows inner float values (B, any size) as outputs too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in names:
        copy.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, None])
        )
    return copy
