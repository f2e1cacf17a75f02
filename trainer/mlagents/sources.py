"""Which tensors of ML-Agents become which of ours: the table, part by part of a network.

Both programs build the same layers, so the table only translates names: a module's place in our
tree to the name of the same module in theirs. Their names are facts of ML-Agents 1.1.0, its
spelling of "endoder" included.

Letters: C continuous action size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config.behavior_settings import VisualEncoder
from trainer.mlagents.checkpoint import CRITIC, POLICY
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.attention import EntityAttention
from trainer.nn.body import NetworkBody
from trainer.nn.conditioning import ConditionedMLP
from trainer.nn.encoders import ImageEncoder
from trainer.nn.mlp import MLP
from trainer.nn.sensors import SensorKind, Sensors

OBSERVATIONS = "network_body.observation_encoder"
DENSE = "network_body._body_endoder"
LSTM = "network_body.lstm.lstm"
GAUSSIAN = "action_model._continuous_distribution"
BRANCH = "action_model._discrete_distribution.branches"
VALUE_HEADS = "value_heads.value_heads."
SECOND_NAMES = "network_body.processors."  # of everything that OBSERVATIONS.processors has
# Numbers for Unity that ML-Agents keeps among the weights.
CONSTANTS = (
    "version_number",
    "is_continuous_int_deprecated",
    "continuous_act_size_vector",
    "discrete_act_size_vector",
    "act_size_vector_deprecated",
    "memory_size_vector",
)
# Parts of names, and what they belong to; the first that fits is told.
FAMILIES = {
    "lstm": "memory (LSTM)",
    "conv_layers": "camera encoder",
    "sequential": "camera encoder",
    "dense": "camera encoder",
    "self_ent_encoder": "attention over variable-length observations",
    "x_self_encoder": "attention over variable-length observations",
    "rsa": "attention over variable-length observations",
    "hypernet": "goal conditioning",
    "_body_endoder.layers": "goal conditioning",
    "normalizer": "normaliser",
    "_body_endoder": "dense layers",
    "_continuous_distribution": "continuous actions",
    "_discrete_distribution": "discrete actions",
}
LAYER = ("weight", "bias")

Tensors = Mapping[str, Tensor]
Pairs = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Source:
    """Which tensors of ML-Agents become one of ours: joined along their first axis."""

    module: str
    names: tuple[str, ...]
    flat: bool = False

    def take(self, tensors: Tensors) -> Tensor:
        """Joins them; `tensors` may be the weights, or anything else that goes by their names."""
        joined = torch.cat([tensors[name] for name in self.names])
        return joined.flatten() if self.flat else joined


def parameter_sources(
    policy: ActorCritic, signals: Sequence[str], encoder: VisualEncoder
) -> dict[str, Source]:
    """Says where every parameter of a policy comes from, by our name of it.

    The same table moves weights and the optimiser's moments.
    """
    critic = POLICY if policy.critic_body is policy.actor_body else CRITIC
    sources = {}
    for side, module, body, memory in (
        ("actor", POLICY, policy.actor_body, policy.actor_memory),
        ("critic", critic, policy.critic_body, policy.critic_memory),
    ):
        for ours, theirs in _body(body, policy.sensors, encoder):
            sources[f"{side}_body.{ours}"] = Source(module, (theirs,))
        for name, _ in memory.lstm.named_parameters() if memory is not None else ():
            sources[f"{side}_memory.lstm.{name}"] = Source(module, (f"{LSTM}.{name}",))
    return sources | _heads(policy, signals, critic)


def normalizers(sensors: Sensors) -> list[str]:
    """Gives the beginnings of the names of each vector's normaliser, in sensor order."""
    return [f"{_processor(i)}.normalizer." for i in _places(sensors, SensorKind.VECTOR)]


def parameter_names(
    modules: Mapping[str, Tensors], *, is_shared: bool
) -> Iterator[tuple[str, str]]:
    """Gives module and name of every parameter in the order in which ML-Agents' Adam counts.

    The actor's come first, then those of a critic of its own. Buffers (normalisers) do not count,
    and a parameter with two names counts under its first.
    """
    for module in (POLICY,) if is_shared else (POLICY, CRITIC):
        for name in modules[module]:
            if ".normalizer." not in name and not name.startswith(SECOND_NAMES):
                yield module, name


def _heads(policy: ActorCritic, signals: Sequence[str], critic: str) -> dict[str, Source]:
    sources = {}
    if policy.continuous_size:
        sources["log_std"] = Source(POLICY, (f"{GAUSSIAN}.log_sigma",), flat=True)  # (1, C) -> (C,)
    branches = range(len(policy.branch_sizes))
    for kind in LAYER:
        if policy.continuous_size:
            sources[f"mean_head.{kind}"] = Source(POLICY, (f"{GAUSSIAN}.mu.{kind}",))
        if branches:
            names = tuple(f"{BRANCH}.{k}.{kind}" for k in branches)
            sources[f"branch_head.{kind}"] = Source(POLICY, names)
        heads = tuple(f"{VALUE_HEADS}{signal}.{kind}" for signal in signals)
        sources[f"value_head.{kind}"] = Source(critic, heads)
    return sources


def _body(body: NetworkBody, sensors: Sensors, encoder: VisualEncoder) -> Pairs:
    """Yields our name of each parameter, inside the body, and theirs."""
    cameras = zip(body.encoders, _places(sensors, SensorKind.IMAGE), strict=True)
    for n, (camera, i) in enumerate(cameras):
        assert isinstance(camera, ImageEncoder)
        for ours, theirs in _camera(camera, encoder):
            yield f"encoders.{n}.{ours}", f"{_processor(i)}.{theirs}"
    if body.entities is not None:
        for ours, theirs in _entities(body.entities, _places(sensors, SensorKind.ENTITIES)):
            yield f"entities.{ours}", f"{OBSERVATIONS}.{theirs}"
    hidden = body.hidden
    dense = _stack("", "seq_layers.", hidden) if isinstance(hidden, MLP) else _conditioned(hidden)
    for ours, theirs in dense:
        yield f"hidden.{ours}", f"{DENSE}.{theirs}"


def _camera(camera: ImageEncoder, encoder: VisualEncoder) -> Pairs:
    """Convolutions are counted as ours are; the dense layer behind them has a name of its own."""
    stack, dense = ("sequential", "dense") if encoder == "resnet" else ("conv_layers", "dense.0")
    ours_dense = f"layers.{len(camera.layers) - 2}."
    for ours, _ in camera.named_parameters():
        if ours.startswith(ours_dense):
            yield ours, f"{dense}.{ours.removeprefix(ours_dense)}"
        else:
            yield ours, f"{stack}.{ours.removeprefix('layers.')}"


def _entities(entities: EntityAttention, places: Sequence[int]) -> Pairs:
    layers = {f"attention.{ours}": f"rsa.fc_{ours[0]}" for ours in ("query", "key", "value")}
    layers["attention.out"] = "rsa.fc_out"
    if entities.myself is not None:
        layers["myself"] = "x_self_encoder.seq_layers.0"
    for n, i in enumerate(places):
        layers[f"embeddings.{n}.layer"] = f"processors.{i}.self_ent_encoder.seq_layers.0"
    for ours, theirs in layers.items():
        for kind in LAYER:
            yield f"{ours}.{kind}", f"{theirs}.{kind}"


def _conditioned(hidden: ConditionedMLP) -> Pairs:
    """Dense layers, the last of which is a network (two layers, a norm, a layer) and a bias."""
    yield from _stack("plain.", "layers.", hidden.plain)
    last, made_by = f"layers.{2 * len(hidden.plain.layers)}", hidden.last.goal_layers
    yield from _stack("last.goal_layers.", f"{last}.hypernet.", made_by)
    for kind in LAYER:
        yield f"last.weights.{kind}", f"{last}.hypernet.{2 * len(made_by.layers) + 1}.{kind}"
    yield "last.bias", f"{last}.bias"


def _stack(ours: str, theirs: str, stack: MLP) -> Pairs:
    """Layers with an activation after each: ML-Agents counts those too, hence 2 i."""
    for i in range(len(stack.layers)):
        for kind in LAYER:
            yield f"{ours}layers.{i}.{kind}", f"{theirs}{2 * i}.{kind}"


def _places(sensors: Sensors, kind: SensorKind) -> list[int]:
    """ML-Agents counts all sensors, whatever they are."""
    return [i for i, sensor in enumerate(sensors.all) if sensor.kind is kind]


def _processor(i: int) -> str:
    return f"{OBSERVATIONS}.processors.{i}"
