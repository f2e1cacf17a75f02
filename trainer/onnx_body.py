"""The networks below the heads as ONNX: normaliser, image encoders, attention, goals, dense layers.

Each function writes what the module of the same name under trainer/nn computes, operator by
operator. Images are fed as floats of 0 to 1, whatever they were trained from.

Letters: B rows, E places for entities, Q embedding size, H features, M memory size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.nn.actor_critic import ActorCritic
from trainer.nn.attention import (
    EMBEDDING_SIZE,
    MASKED_SCORE,
    NO_ENTITY,
    NUM_HEADS,
    PADDING_BELOW,
    EntityAttention,
    EntityEmbedding,
    ResidualSelfAttention,
)
from trainer.nn.body import NetworkBody
from trainer.nn.conditioning import ConditionedMLP, HyperLayer
from trainer.nn.encoders import ImageEncoder, ResidualBlock
from trainer.nn.memory import Memory
from trainer.nn.mlp import LAYER_NORM_EPSILON, MLP
from trainer.nn.normalizer import Normalizer
from trainer.nn.sensors import SensorKind
from trainer.onnx_nodes import FLOAT, Graph


def add_features(graph: Graph, policy: ActorCritic, body: NetworkBody) -> str:
    """Adds the inputs `obs_<i>` and everything up to a body's features; gives their name."""
    encoders = iter(body.encoders)
    parts, crowds, goals = [], [], []
    start = 0  # in the joined vectors
    for i, sensor in enumerate(policy.sensors.all):
        obs = graph.input(f"obs_{i}", *sensor.shape)
        match sensor.kind:
            case SensorKind.VECTOR:
                end = start + sensor.shape[0]
                if policy.normalizer is not None:
                    obs = _normalized(graph, policy.normalizer, slice(start, end), obs)
                start = end
            case SensorKind.IMAGE:
                encoder = next(encoders)
                assert isinstance(encoder, ImageEncoder)
                obs = _layers(graph, encoder.layers, obs, f"{obs}.encoder")
            case SensorKind.ENTITIES:
                crowds.append(obs)
                continue
        parts.append(obs)
        if sensor.is_goal:
            goals.append(obs)
    if body.entities is not None:
        encoded = _concatenated(graph, parts, "encoded") if parts else None
        parts = [encoded] if encoded is not None else []
        parts.append(_entities(graph, body.entities, policy, crowds, encoded))
    inputs = _concatenated(graph, parts, "inputs")
    if isinstance(body.hidden, MLP):
        return _dense(graph, body.hidden, inputs, "body")
    return _conditioned(graph, body.hidden, inputs, _concatenated(graph, goals, "goals"))


def _concatenated(graph: Graph, parts: Sequence[str], name: str) -> str:
    return parts[0] if len(parts) == 1 else graph.add("Concat", parts, name, axis=1)


def _normalized(graph: Graph, normalizer: Normalizer, part: slice, obs: str) -> str:
    # scale is 1 / deviation; Unity's importers have always met a division here
    mean = graph.constant(f"{obs}.mean", normalizer.shift[part])
    deviation = graph.constant(f"{obs}.deviation", 1 / normalizer.scale[part])
    centred = graph.add("Sub", [obs, mean], f"{obs}.centred")
    scaled = graph.add("Div", [centred, deviation], f"{obs}.scaled")
    return graph.add(
        "Clip", [scaled], f"{obs}.normalized", min=-normalizer.clip, max=normalizer.clip
    )


def _dense(graph: Graph, mlp: MLP, hidden: str, name: str) -> str:
    for i, layer in enumerate(mlp.layers):
        assert isinstance(layer, nn.Linear)
        hidden = graph.dense(f"{name}.{i}", hidden, layer.weight, layer.bias)
        if mlp.has_layer_norm:
            hidden = _layer_norm(graph, hidden, 1, f"{name}.{i}.normed")
        hidden = graph.activation(mlp.activation, hidden)
    return hidden


def _layers(graph: Graph, layers: nn.Sequential, images: str, name: str) -> str:
    """Adds the layers of an image encoder one after the other."""
    for i, layer in enumerate(layers):
        output = f"{name}.{i}"
        match layer:
            case nn.Conv2d():
                images = _convolution(graph, layer, images, output)
            case nn.MaxPool2d():
                pooled = {"kernel_shape": layer.kernel_size, "strides": layer.stride}
                both = {name: [size] * 2 for name, size in pooled.items()}  # square
                images = graph.add("MaxPool", [images], output, **both)
            case nn.LeakyReLU():
                images = graph.add("LeakyRelu", [images], output, alpha=layer.negative_slope)
            case nn.ReLU():
                images = graph.add("Relu", [images], output)
            case nn.SiLU():
                images = graph.activation("swish", images)
            case ResidualBlock():
                changed = _layers(graph, layer.layers, images, output)
                images = graph.add("Add", [images, changed], f"{output}.sum")
            case nn.Flatten():
                dense = layers[i + 1]
                assert isinstance(dense, nn.Linear)
                images = graph.reshape(images, output, dense.in_features)
            case nn.Linear():
                images = graph.dense(output, images, layer.weight, layer.bias)
            case _:
                raise AssertionError(f"no ONNX for {layer}")
    return images


def _convolution(graph: Graph, layer: nn.Conv2d, images: str, output: str) -> str:
    assert layer.bias is not None
    weight = graph.constant(f"{output}.weight", layer.weight)
    bias = graph.constant(f"{output}.bias", layer.bias)
    pad = int(layer.padding[0])
    return graph.add(
        "Conv",
        [images, weight, bias],
        output,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=[pad] * 4,
        dilations=[1, 1],
        group=1,
    )


def _per_entity(graph: Graph, name: str, inputs: str, weight: Tensor, bias: Tensor) -> str:
    """Adds a dense layer of (B, E, inputs); weight (outputs, inputs)."""
    turned = graph.constant(f"{name}.weight", weight.t())
    product = graph.add("MatMul", [inputs, turned], f"{name}.product")
    return graph.add("Add", [product, graph.constant(f"{name}.bias", bias)], name)


def _layer_norm(graph: Graph, inputs: str, axis: int, name: str) -> str:
    mean = graph.add("ReduceMean", [inputs], f"{name}.mean", axes=[axis], keepdims=1)
    centred = graph.add("Sub", [inputs, mean], f"{name}.centred")
    squares = graph.add("Mul", [centred, centred], f"{name}.squares")
    variance = graph.add("ReduceMean", [squares], f"{name}.variance", axes=[axis], keepdims=1)
    epsilon = graph.constant(f"{name}.epsilon", LAYER_NORM_EPSILON)
    positive = graph.add("Add", [variance, epsilon], f"{name}.positive")
    deviation = graph.add("Sqrt", [positive], f"{name}.deviation")
    return graph.add("Div", [centred, deviation], name)


def _entities(
    graph: Graph,
    entities: EntityAttention,
    policy: ActorCritic,
    crowds: Sequence[str],
    encoded: str | None,
) -> str:
    """(B, places, size)... and what is known otherwise -> (B, Q)."""
    myself = None
    if entities.myself is not None:
        assert encoded is not None
        layer = entities.myself
        myself = graph.dense("myself", encoded, layer.weight, layer.bias)
        myself = graph.activation(entities.activation, myself)
    embedded, padding = [], []
    for crowd, embed in zip(crowds, entities.embeddings, strict=True):
        assert isinstance(embed, EntityEmbedding)
        embedded.append(_embedding(graph, embed, crowd, myself))
        squares = graph.add("Mul", [crowd, crowd], f"{crowd}.squares")
        total = graph.add("ReduceSum", [squares], f"{crowd}.total", axes=[2], keepdims=0)
        limit = graph.constant(f"{crowd}.limit", PADDING_BELOW)
        is_empty = graph.add("Less", [total, limit], f"{crowd}.is_empty")
        padding.append(graph.add("Cast", [is_empty], f"{crowd}.padding", to=FLOAT))
    places = sum(sensor.shape[0] for sensor in policy.sensors.of_kind(SensorKind.ENTITIES))
    everyone = _concatenated(graph, embedded, "entities")
    return _attention(
        graph, entities.attention, everyone, _concatenated(graph, padding, "padding"), places
    )


def _embedding(graph: Graph, embed: EntityEmbedding, crowd: str, myself: str | None) -> str:
    name, weight = f"{crowd}.embedding", embed.layer.weight
    hidden = _per_entity(graph, name, crowd, weight[:, embed.self_size :], embed.layer.bias)
    if myself is not None:
        own = graph.constant(f"{name}.of_self.weight", weight[:, : embed.self_size].t())
        shared = graph.add("MatMul", [myself, own], f"{name}.of_self")
        shared = graph.reshape(shared, f"{name}.for_each", 1, EMBEDDING_SIZE)
        hidden = graph.add("Add", [hidden, shared], f"{name}.beside_self")
    return graph.activation(embed.activation, hidden)


def _attention(
    graph: Graph, attention: ResidualSelfAttention, entities: str, padding: str, places: int
) -> str:
    """(B, E, Q), (B, E) with 1 for unused places -> (B, Q)."""
    normed = _layer_norm(graph, entities, 2, "attention.normed")

    def heads(name: str, layer: nn.Linear) -> str:
        flat = _per_entity(graph, f"attention.{name}", normed, layer.weight, layer.bias)
        split = (places, NUM_HEADS, EMBEDDING_SIZE // NUM_HEADS)
        shaped = graph.reshape(flat, f"attention.{name}.split", *split)
        return graph.add("Transpose", [shaped], f"attention.{name}.heads", perm=[0, 2, 1, 3])

    query, key, value = (
        heads(name, getattr(attention, name)) for name in ("query", "key", "value")
    )
    # The division stands between two Transposes: Barracuda cannot read the one they would make.
    root = graph.constant("attention.root", math.sqrt(EMBEDDING_SIZE))
    key = graph.add("Div", [key, root], "attention.key.scaled")
    key = graph.add("Transpose", [key], "attention.key.turned", perm=[0, 1, 3, 2])
    scores = graph.add("MatMul", [query, key], "attention.scores")  # (B, heads, E, E)

    one = graph.constant("attention.one", 1.0)
    hidden = graph.reshape(padding, "attention.hidden", 1, 1, places)
    shown = graph.add("Sub", [one, hidden], "attention.shown")
    kept = graph.add("Mul", [scores, shown], "attention.kept")
    masked = graph.constant("attention.masked_score", MASKED_SCORE)
    penalty = graph.add("Mul", [hidden, masked], "attention.penalty")
    scores = graph.add("Add", [kept, penalty], "attention.masked")
    weights = graph.add("Softmax", [scores], "attention.weights", axis=3)

    seen = graph.add("MatMul", [weights, value], "attention.seen")
    seen = graph.add("Transpose", [seen], "attention.seen.turned", perm=[0, 2, 1, 3])
    seen = graph.reshape(seen, "attention.seen.flat", places, EMBEDDING_SIZE)
    changed = _per_entity(graph, "attention.out", seen, attention.out.weight, attention.out.bias)
    residual = graph.add("Add", [changed, normed], "attention.residual")
    mixed = _layer_norm(graph, residual, 2, "attention.mixed")

    present = graph.add("Sub", [one, padding], "attention.present")
    each = graph.reshape(present, "attention.present.each", places, 1)
    counted = graph.add("Mul", [mixed, each], "attention.counted")
    total = graph.add("ReduceSum", [counted], "attention.total", axes=[1], keepdims=0)
    number = graph.add("ReduceSum", [present], "attention.number", axes=[1], keepdims=1)
    at_least = graph.constant("attention.no_entity", NO_ENTITY)
    divisor = graph.add("Add", [number, at_least], "attention.divisor")
    return graph.add("Div", [total, divisor], "attention.mean")


def _conditioned(graph: Graph, mlp: ConditionedMLP, inputs: str, goals: str) -> str:
    hidden = _dense(graph, mlp.plain, inputs, "body")
    hidden = _hyper_layer(graph, mlp.last, hidden, goals)
    if mlp.plain.has_layer_norm:
        hidden = _layer_norm(graph, hidden, 1, "goal.steered.normed")
    return graph.activation(mlp.activation, hidden)


def _hyper_layer(graph: Graph, layer: HyperLayer, inputs: str, goals: str) -> str:
    hidden = _dense(graph, layer.goal_layers, goals, "goal")
    normed = _layer_norm(graph, hidden, 1, "goal.normed")
    made = graph.dense("goal.weights", normed, layer.weights.weight, layer.weights.bias)
    made = graph.reshape(made, "goal.matrix", layer.num_inputs, layer.num_outputs)
    row = graph.add("Unsqueeze", [inputs], "goal.row", axes=[1])
    product = graph.add("MatMul", [row, made], "goal.product")
    product = graph.add("Squeeze", [product], "goal.flat", axes=[1])
    return graph.add("Add", [product, graph.constant("goal.bias", layer.bias)], "goal.steered")


def add_memory(graph: Graph, memory: Memory, features: str) -> str:
    """Adds `recurrent_in` and one step of the LSTM; gives the name of what the heads read."""
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
