"""A policy as an ONNX graph that every Unity package of the last years reads.

Built node by node with the names, types, order and operators that ML-Agents' own exports have
(opset 9, IR version 4): inputs `obs_<i>`, with discrete actions `action_masks`, and with memory
`recurrent_in`, which comes back as `recurrent_out`; constants are outputs, each fed by Identity
from an initializer. `onnx_body.py` writes what lies between the observations and the heads,
`onnx_nodes.py` single nodes.

Letters: B rows, C continuous action size, K discrete branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version

import onnx
from onnx import TensorProto, helper

from envs.batch import ACTION_LIMIT
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.distributions import MASKED_LOGIT
from trainer.nn.std_head import LARGEST_LOG_STD, SMALLEST_LOG_STD
from trainer.onnx_body import add_features, add_memory
from trainer.onnx_nodes import BATCH, Graph
from trainer.onnx_policy import UNITY_FORMAT

OPSET = 9
IR_VERSION = 4


def build_model(policy: ActorCritic) -> onnx.ModelProto:
    """Gives the actor as a graph; the critic stays behind.

    Inner values that `with_outputs` can show: `noise` (B, C), and for branch k
    `branch_<k>.probabilities`.
    """
    graph = Graph()
    graph.constant_output("version_number", [UNITY_FORMAT])
    graph.constant_output("memory_size", [float(policy.memory_size)])
    features = add_features(graph, policy, policy.actor_body)
    masks = graph.input("action_masks", sum(policy.branch_sizes)) if policy.branch_sizes else None
    if policy.actor_memory is not None:
        features = add_memory(graph, policy.actor_memory, features)
    if policy.continuous_size:
        _continuous_head(graph, policy, features)
    if masks is not None:
        _discrete_head(graph, policy, features, masks)
    if policy.actor_memory is not None:
        graph.output("recurrent_out", 1, policy.memory_size)  # Unity expects it last
    return _model_of(graph)


def build_critic_memory(policy: ActorCritic) -> onnx.ModelProto:
    """Gives one step of the critic's memory as a graph, without its values.

    Agents that act carry it along, so that learning can begin anywhere.
    """
    assert policy.critic_memory is not None
    graph = Graph()
    add_memory(graph, policy.critic_memory, add_features(graph, policy, policy.critic_body))
    graph.output("recurrent_out", 1, policy.memory_size)
    return _model_of(graph)


@lru_cache
def _own_version() -> str:
    # Reading the installed package's metadata takes longer than building a small policy's graph.
    return version("ppo-train")


def _model_of(graph: Graph) -> onnx.ModelProto:
    proto = helper.make_graph(
        graph.nodes, "policy", graph.inputs, graph.outputs, graph.initializers
    )
    model = helper.make_model(
        proto,
        producer_name="ppo-train",
        producer_version=_own_version(),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = IR_VERSION
    return model


def _continuous_head(graph: Graph, policy: ActorCritic, features: str) -> None:
    """Gaussian: drawn and likeliest action, clipped and scaled to -1..1."""
    size = policy.continuous_size
    head = policy.mean_head
    if policy.has_bounded_mean:
        free = graph.dense("free_mean", features, head.weight, head.bias)
        within = graph.add("Tanh", [free], "bounded_mean")
        mean = graph.add("Mul", [within, graph.constant("bound", ACTION_LIMIT)], "mean")
    else:
        mean = graph.dense("mean", features, head.weight, head.bias)
    deviation = _deviation(graph, policy, features)
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


def _deviation(graph: Graph, policy: ActorCritic, features: str) -> str:
    """Standard deviation of the Gaussian, (1, C), or (B, C) where it depends on the observation."""
    head = policy.std_head
    if head is None:
        return graph.constant("deviation", policy.log_std.detach().exp().unsqueeze(0))
    free = graph.dense("free_deviation", features, head.weight, head.bias)
    if not head.has_softplus:
        log_std = graph.add(
            "Clip", [free], "log_deviation", min=SMALLEST_LOG_STD, max=LARGEST_LOG_STD
        )
        return graph.add("Exp", [log_std], "deviation")
    # Not all of Unity's importers are known to have Softplus: ln(1 + e^x) is
    # max(x, 0) + ln(1 + e^-|x|), where e^-|x| cannot overflow, and |x| = max(x, 0) + max(-x, 0).
    minus_one = graph.constant("minus_one", -1.0)
    positive = graph.add("Relu", [free], "deviation.positive")
    turned = graph.add("Mul", [free, minus_one], "deviation.turned")
    negative = graph.add("Relu", [turned], "deviation.negative")
    size = graph.add("Add", [positive, negative], "deviation.size")
    minus_size = graph.add("Mul", [size, minus_one], "deviation.minus_size")
    fading = graph.add("Exp", [minus_size], "deviation.fading")
    beyond_one = graph.add("Sub", [fading, minus_one], "deviation.beyond_one")
    rest = graph.add("Log", [beyond_one], "deviation.rest")
    softplus = graph.add("Add", [positive, rest], "deviation.softplus")
    return graph.add("Add", [softplus, graph.constant("min_std", head.min_std)], "deviation")


def _discrete_head(graph: Graph, policy: ActorCritic, features: str, masks: str) -> None:
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


def cut_to_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Gives the part of the graph that outputs, or inner float values (B, size), come from."""
    graph = model.graph
    outputs = {value.name: value for value in graph.output}
    inner = helper.make_tensor_value_info
    wanted, nodes = set(names), []
    for node in reversed(graph.node):  # nodes come after what they read
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    cut = helper.make_graph(
        nodes[::-1],
        graph.name,
        [value for value in graph.input if value.name in wanted],
        [outputs.get(name) or inner(name, TensorProto.FLOAT, [BATCH, None]) for name in names],
        [constant for constant in graph.initializer if constant.name in wanted],
    )
    copy = helper.make_model(cut, opset_imports=model.opset_import)
    copy.ir_version = model.ir_version
    return copy
