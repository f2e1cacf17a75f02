"""ML-Agents' own checkpoints (`checkpoint.pt` of a PPO run), as states that a run can start from.

Such a file is a dict of modules: `Policy`, `Optimizer:critic`, `Optimizer:value_optimizer` (Adam)
and `global_step`. `parameter_sources` says which of their tensors become which of ours; what a
network has beyond vector observations and its heads belongs there as more lines of that table.

Letters: C continuous action size, D size of all vector observations end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.spec import BehaviorSpec
from trainer.algos.registry import build_algorithm
from trainer.checkpoint import CheckpointError, State, read_document, state_of
from trainer.config.hyperparameters import PPOHyperparameters
from trainer.config.settings import BehaviorSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.body import NetworkBody
from trainer.nn.mlp import MLP
from trainer.rewards.extrinsic import ExtrinsicReward
from trainer.saved_policy import build_policy, spec_to_state

POLICY, CRITIC = "Policy", "Optimizer:critic"
ADAM = "Optimizer:value_optimizer"
STEP, STEP_KEY = "global_step", "_GlobalSteps__global_step"
NORMALIZER = "network_body.observation_encoder.processors.{i}.normalizer."
VALUE_HEADS = "value_heads.value_heads."
# Numbers for Unity that ML-Agents keeps among the weights, and second names of normalisers.
BOOKKEEPING = (
    "version_number",
    "is_continuous_int_deprecated",
    "continuous_act_size_vector",
    "discrete_act_size_vector",
    "act_size_vector_deprecated",
    "memory_size_vector",
    "network_body.processors.",
)
OTHER_TRAINERS = {"Optimizer:q_network": "SAC", "Optimizer:adam": "POCA"}
# Parts of names, and what they belong to; the first that fits is told.
FAMILIES = {
    "lstm": "memory (LSTM)",
    "conv_layers": "camera encoder",
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

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class MlagentsCheckpoint:
    """A file of ML-Agents, read but not yet understood: that needs a behaviour's network."""

    path: Path
    modules: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps that ML-Agents had counted; 0 if it did not say."""
        counted = self.modules.get(STEP, {}).get(STEP_KEY)
        return int(counted) if counted is not None else 0


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


@dataclass(frozen=True, slots=True)
class Adopted:
    """A state that `Behavior` takes, and what the user should know about it."""

    state: State
    report: tuple[str, ...]


@dataclass(slots=True)
class _Findings:
    """What does not fit, what stays fresh and what is left behind."""

    mismatches: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def load_start(path: Path) -> State | MlagentsCheckpoint:
    """Reads a `.pt` file that weights may come from, ppo-train's or ML-Agents'; runs no code in it.

    Raises:
        CheckpointError: it is missing, damaged, another program's, or of ML-Agents' SAC or POCA.
    """
    document = read_document(path)
    if not isinstance(document, dict) or POLICY not in document:
        return state_of(document, path)
    for module, trainer in OTHER_TRAINERS.items():
        if module in document:
            raise CheckpointError(
                f"Checkpoint {path} is of ML-Agents' {trainer} trainer (it holds '{module}'). "
                f"Expected one of its PPO trainer, or one of ppo-train's: train anew."
            )
    if not all(isinstance(document.get(name), dict) for name in (POLICY, CRITIC)):
        raise CheckpointError(
            f"Checkpoint {path} looks like ML-Agents' (it holds '{POLICY}'), but '{CRITIC}' is "
            f"missing; it holds {', '.join(sorted(map(str, document)))}. Expected a file that "
            f"mlagents-learn has saved in a PPO run: choose another one."
        )
    return MlagentsCheckpoint(path, document)


def parameter_sources(policy: ActorCritic, signals: Sequence[str]) -> dict[str, Source]:
    """Says where every parameter of a policy comes from, by our name of it.

    The same table moves weights and the optimiser's moments. A parameter without a line is
    something that this version cannot take over.
    """
    critic = POLICY if policy.critic_body is policy.actor_body else CRITIC
    sources = _dense_stack("actor_body", POLICY, policy.actor_body)
    sources |= _dense_stack("critic_body", critic, policy.critic_body)
    gaussian = "action_model._continuous_distribution"
    if policy.continuous_size:
        sources["log_std"] = Source(POLICY, (f"{gaussian}.log_sigma",), flat=True)  # (1, C) -> (C,)
    branches = range(len(policy.branch_sizes))
    for kind in ("weight", "bias"):
        if policy.continuous_size:
            sources[f"mean_head.{kind}"] = Source(POLICY, (f"{gaussian}.mu.{kind}",))
        if branches:
            names = [f"action_model._discrete_distribution.branches.{k}.{kind}" for k in branches]
            sources[f"branch_head.{kind}"] = Source(POLICY, tuple(names))
        heads = tuple(f"{VALUE_HEADS}{signal}.{kind}" for signal in signals)
        sources[f"value_head.{kind}"] = Source(critic, heads)
    return sources


def _dense_stack(ours: str, module: str, body: NetworkBody) -> dict[str, Source]:
    """Layers with an activation after each: ML-Agents counts those too, hence 2 i."""
    if not isinstance(body.hidden, MLP):
        return {}
    return {
        f"{ours}.hidden.layers.{i}.{kind}": Source(
            module, (f"network_body._body_endoder.seq_layers.{2 * i}.{kind}",)
        )
        for i in range(len(body.hidden.layers))
        for kind in ("weight", "bias")
    }


def adopt(
    checkpoint: MlagentsCheckpoint,
    behavior: str,
    spec: BehaviorSpec,
    settings: BehaviorSettings,
    seed: int,
) -> Adopted:
    """Turns a checkpoint of ML-Agents into the state of one of our behaviours.

    Args:
        checkpoint: what ML-Agents has saved.
        behavior: the behaviour's name.
        spec: what the simulator says of it; the network must be for the same sensors and actions.
        settings: of the behaviour; the network must be the same.
        seed: of value heads that the checkpoint lacks, and of the generators.

    Returns:
        A state for `Behavior`, and lines that say what was taken and what not.

    Raises:
        CheckpointError: the checkpoint's network is another one; the text says how it differs.
    """
    torch.manual_seed(seed)
    policy = build_policy(behavior, spec, settings)
    signals = list(settings.reward_signals)
    sources = parameter_sources(policy, signals)
    found = _Findings()
    if settings.network_settings.activation != "swish":
        found.mismatches.append(
            f"activation: ML-Agents' is always swish, now {settings.network_settings.activation}"
        )
    for key in ("layer_norm", "bounded_mean"):
        if getattr(settings.network_settings, key):
            found.mismatches.append(f"{key}: ML-Agents' networks have none, now true")
    weights = _weights(checkpoint, policy, sources, signals, found)
    weights |= _normalizer(checkpoint.modules[POLICY], policy, found)
    _look_for_more(checkpoint, policy, sources, signals, found)
    if found.mismatches:
        raise CheckpointError(_refusal(checkpoint, behavior, found.mismatches))
    policy.load_state_dict(weights)

    moments = _moments(checkpoint, policy, sources, settings)
    state: State = {
        "behavior": behavior,
        "spec": spec_to_state(spec),
        "settings": settings.model_dump_json(),
        "step": checkpoint.step,
        "num_updates": 0,
        "summarised_step": 0,
        "policy": {name: value.clone() for name, value in policy.state_dict().items()},
        "algorithm": _algorithm_state(policy, settings, moments, seed + 1),
        "rewards": [
            ExtrinsicReward(signal).state_dict() for signal in settings.reward_signals.values()
        ],
        "acting_generator": torch.Generator().manual_seed(seed + 2).get_state(),
        "recent_returns": [],
        "recent_lengths": [],
    }
    return Adopted(state, _report(checkpoint, policy, moments, found))


def _algorithm_state(
    policy: ActorCritic, settings: BehaviorSettings, moments: dict[str, Tensor] | str, seed: int
) -> dict[str, object]:
    """Gives the state of a fresh algorithm, with Adam's moments if there are any."""
    gamma = torch.zeros(len(settings.reward_signals))  # the state does not depend on it
    chance = torch.Generator().manual_seed(seed)
    state = build_algorithm(settings, policy, gamma, chance).state_dict()
    if not isinstance(moments, str):
        optimizer = state["optimizer"]
        assert isinstance(optimizer, dict)
        optimizer["state"] = {0: moments}
    return state


def _weights(
    checkpoint: MlagentsCheckpoint,
    policy: ActorCritic,
    sources: Mapping[str, Source],
    signals: Sequence[str],
    found: _Findings,
) -> dict[str, Tensor]:
    """Gives every parameter of the policy; value heads that are not there stay as they are."""
    weights: dict[str, Tensor] = {}
    for ours, fresh in policy.named_parameters(remove_duplicate=False):
        source = sources.get(ours)
        if source is None:
            found.mismatches.append(f"{ours}: this version takes no such part from ML-Agents")
            continue
        tensors = dict(checkpoint.modules[source.module])
        if ours.startswith("value_head."):
            kind = ours.rpartition(".")[2]
            for i, signal in enumerate(signals):
                name = f"{VALUE_HEADS}{signal}.{kind}"
                if name not in tensors:
                    tensors[name] = fresh.detach()[i : i + 1]
                    found.fresh += [f"value head of {signal}"] if kind == "weight" else []
        missing = [name for name in source.names if name not in tensors]
        if missing:
            found.mismatches.append(f"{missing[0]}: checkpoint none, now {tuple(fresh.shape)}")
            continue
        taken = source.take(tensors)
        if taken.shape != fresh.shape:
            names = source.names[0] if len(source.names) == 1 else f"{source.names[0]} and others"
            shapes = f"checkpoint {tuple(taken.shape)}, now {tuple(fresh.shape)}"
            found.mismatches.append(f"{names}: {shapes}")
            continue
        weights[ours] = taken
    return weights


def _normalizer(theirs: Tensors, policy: ActorCritic, found: _Findings) -> dict[str, Tensor]:
    """Joins the normalisers of all sensors into ours.

    ML-Agents keeps a sum of squares under the name of the variance, and a count per sensor. All
    counts are equal; ours is the first.
    """
    if policy.normalizer is None:
        return {}
    means, variances, counts = [], [], []
    for i, size in enumerate(policy.sensors.vector_sizes):
        prefix = NORMALIZER.format(i=i)
        mean = theirs.get(f"{prefix}running_mean")
        if mean is None or tuple(mean.shape) != (size,):
            shape = "none" if mean is None else tuple(mean.shape)
            found.mismatches.append(f"{prefix}running_mean: checkpoint {shape}, now {(size,)}")
            return {}
        counts.append(theirs[f"{prefix}normalization_steps"].double().reshape(()))
        means.append(mean.double())
        variances.append(theirs[f"{prefix}running_variance"].double() / counts[-1])
    mean, variance = torch.cat(means), torch.cat(variances)  # (D,) each
    return {
        "normalizer.steps": counts[0],
        "normalizer.mean": mean,
        "normalizer.sum_of_squares": variance * counts[0],
        "normalizer.shift": mean.float(),
        "normalizer.scale": variance.rsqrt().float(),
    }


def _look_for_more(
    checkpoint: MlagentsCheckpoint,
    policy: ActorCritic,
    sources: Mapping[str, Source],
    signals: Sequence[str],
    found: _Findings,
) -> None:
    """Finds what the checkpoint holds and nobody has taken: more network, or more signals."""
    taken = {name for source in sources.values() for name in source.names}
    num_normalizers = 0 if policy.normalizer is None else len(policy.sensors.vector_sizes)
    normalizers = tuple(NORMALIZER.format(i=i) for i in range(num_normalizers))
    heads, more = set(), dict[str, list[str]]()
    for module in (POLICY, CRITIC):
        for name in checkpoint.modules[module]:
            signal = name.removeprefix(VALUE_HEADS).rpartition(".")[0]
            if name in taken or name.startswith((*BOOKKEEPING, *normalizers)):
                continue
            if name.startswith(VALUE_HEADS) and signal not in signals:
                heads.add(signal)
                continue
            family = next((text for part, text in FAMILIES.items() if part in name), "unknown part")
            more.setdefault(family, []).append(f"{module} {name}")
    found.mismatches[:0] = [
        f"{family}: checkpoint {len(names)} tensors more ({names[0]}), now none"
        for family, names in more.items()
    ]
    found.left += [f"value head of {signal}" for signal in sorted(heads)]
    known = (POLICY, CRITIC, ADAM, STEP)
    found.left += [f"'{module}'" for module in checkpoint.modules if module not in known]


def _moments(
    checkpoint: MlagentsCheckpoint,
    policy: ActorCritic,
    sources: Mapping[str, Source],
    settings: BehaviorSettings,
) -> dict[str, Tensor] | str:
    """Gives Adam's state for our one flat vector of parameters, or why it cannot be had.

    ML-Agents' Adam counts the parameters of the actor, then those of a critic of its own.
    """
    if not isinstance(settings.hyperparameters, PPOHyperparameters):
        return f"it is PPO's, and trainer_type is {settings.trainer_type}"
    if settings.hyperparameters.critic_learning_rate is not None:
        return "it is for actor and critic together, and critic_learning_rate parts them"
    adam = checkpoint.modules.get(ADAM)
    if not isinstance(adam, dict) or not adam.get("param_groups"):
        return f"the checkpoint has no '{ADAM}'"
    names = list(_parameters(checkpoint.modules, is_shared=policy.critic_body is policy.actor_body))
    numbers = adam["param_groups"][0]["params"]
    if len(names) != len(numbers):
        return f"it is for {len(numbers)} parameters, and the networks have {len(names)}"
    by_name = {
        name: adam["state"][number]
        for name, number in zip(names, numbers, strict=True)
        if number in adam["state"]
    }
    parts: dict[str, list[Tensor]] = {"exp_avg": [], "exp_avg_sq": []}
    counts: set[float] = set()
    for ours, parameter in policy.named_parameters():
        source = sources[ours]
        entries = {name: by_name.get((source.module, name)) for name in source.names}
        known = {name: entry for name, entry in entries.items() if entry is not None}
        if len(known) != len(entries):
            return f"it knows nothing of {next(name for name in entries if name not in known)}"
        counts |= {float(entry["step"]) for entry in known.values()}
        for key, part in parts.items():
            moment = source.take({name: entry[key] for name, entry in known.items()})
            if moment.shape != parameter.shape:
                return f"its {key} of {source.names[0]} has shape {tuple(moment.shape)}"
            part.append(moment.flatten())
    if len(counts) != 1:
        return f"its parameters have taken different numbers of steps ({sorted(counts)})"
    moments = {key: torch.cat(part) for key, part in parts.items()}
    return {"step": torch.tensor(counts.pop()), **moments}


def _parameters(modules: Mapping[str, Any], *, is_shared: bool) -> Iterator[tuple[str, str]]:
    """Gives module and name of every parameter in the order in which their optimiser counts.

    Buffers (normalisers) do not count, and a parameter with two names counts under its first.
    """
    for module in (POLICY,) if is_shared else (POLICY, CRITIC):
        seen: set[int] = set()
        for name, tensor in modules[module].items():
            is_second_name = tensor.numel() > 0 and tensor.data_ptr() in seen
            if ".normalizer." not in name and not is_second_name:
                seen.add(tensor.data_ptr())
                yield module, name


def _refusal(checkpoint: MlagentsCheckpoint, behavior: str, mismatches: Sequence[str]) -> str:
    return (
        f"Behavior '{behavior}': ML-Agents' checkpoint {checkpoint.path} does not fit the network "
        f"that the settings and the simulator ask for ({len(mismatches)} differences: "
        f"{'; '.join(mismatches[:4])}). Use the network_settings, observations and actions that it "
        f"was trained with, or start without it."
    )


def _report(
    checkpoint: MlagentsCheckpoint,
    policy: ActorCritic,
    moments: Mapping[str, Tensor] | str,
    found: _Findings,
) -> tuple[str, ...]:
    """Says what was taken and what was not."""
    count = sum(parameter.numel() for parameter in policy.parameters())
    taken = [f"weights of actor and critic ({count:,} parameters)"]
    if policy.normalizer is not None:
        taken.append(f"normaliser ({int(policy.normalizer.steps.item()):,} rows)")
    not_taken = []
    if isinstance(moments, str):
        not_taken.append(f"optimiser ({moments}; it starts afresh)")
    else:
        taken.append(f"optimiser (Adam after {int(moments['step'].item()):,} steps)")
    not_taken += [f"{part} (the checkpoint has none; it starts afresh)" for part in found.fresh]
    not_taken += [f"{part} (nothing here uses it)" for part in found.left]
    lines = [f"Taken from ML-Agents' {checkpoint.path}: {', '.join(taken)}, step."]
    if not_taken:
        lines.append(f"Not taken from ML-Agents' {checkpoint.path}: {', '.join(not_taken)}.")
    return tuple(lines)
