"""From ML-Agents' checkpoint to a state that a run of ours can start from, and what was taken.

Letters: D size of all vector observations end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from envs.spec import BehaviorSpec
from trainer.algos.registry import build_algorithm
from trainer.checkpoint import CheckpointError, State
from trainer.config.hyperparameters import PPOHyperparameters
from trainer.config.settings import BehaviorSettings, NetworkSettings
from trainer.mlagents.adam import moments_of
from trainer.mlagents.checkpoint import CRITIC, KNOWN_MODULES, POLICY, MlagentsCheckpoint
from trainer.mlagents.sources import (
    CONSTANTS,
    FAMILIES,
    SECOND_NAMES,
    VALUE_HEADS,
    Source,
    Tensors,
    normalizers,
    parameter_sources,
)
from trainer.nn.actor_critic import ActorCritic
from trainer.rewards.extrinsic import ExtrinsicReward
from trainer.saved_policy import build_policy, spec_to_state
from trainer.stop_conditions import StopConditions


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
    sources = parameter_sources(policy, signals, settings.network_settings.vis_encode_type)
    found = _Findings()
    _compare_kinds(settings.network_settings, policy, found)
    if policy.std_head is not None:  # its tensors have no name in the table of sources
        raise CheckpointError(_refusal(checkpoint, behavior, found.mismatches))
    weights = _weights(checkpoint, policy, sources, signals, found)
    weights |= _normalizer(checkpoint.modules[POLICY], policy, found)
    _look_for_more(checkpoint, policy, sources, signals, found)
    if found.mismatches:
        raise CheckpointError(_refusal(checkpoint, behavior, found.mismatches))
    policy.load_state_dict(weights)

    moments = _moments(checkpoint, policy, sources, settings)
    state = _state(policy, behavior, spec, settings, moments, seed) | {"step": checkpoint.step}
    return Adopted(state, _report(checkpoint, policy, moments, found))


def _moments(
    checkpoint: MlagentsCheckpoint,
    policy: ActorCritic,
    sources: Mapping[str, Source],
    settings: BehaviorSettings,
) -> dict[str, Tensor] | str:
    """Gives Adam's moments, or why they cannot be taken."""
    if not isinstance(settings.hyperparameters, PPOHyperparameters):
        return f"it is PPO's, and trainer_type is {settings.trainer_type}"
    if settings.hyperparameters.critic_learning_rate is not None:
        return "it is for actor and critic together, and critic_learning_rate parts them"
    return moments_of(checkpoint, policy, sources)


def _state(
    policy: ActorCritic,
    behavior: str,
    spec: BehaviorSpec,
    settings: BehaviorSettings,
    moments: dict[str, Tensor] | str,
    seed: int,
) -> State:
    """Gives the state of a behaviour that has this policy, and has done nothing yet."""
    return {
        "behavior": behavior,
        "spec": spec_to_state(spec),
        "settings": settings.model_dump_json(),
        "num_updates": 0,
        "learning_rate_factor": 1.0,
        "summarised_step": 0,
        "live_changes": {},
        "stop_conditions": StopConditions(settings.stop).state_dict(),
        "policy": {name: value.clone() for name, value in policy.state_dict().items()},
        "algorithm": _algorithm_state(policy, settings, moments, seed + 1),
        "rewards": [
            ExtrinsicReward(signal).state_dict() for signal in settings.reward_signals.values()
        ],
        "acting_generator": torch.Generator().manual_seed(seed + 2).get_state(),
        "recent_returns": [],
        "recent_lengths": [],
    }


def _compare_kinds(network: NetworkSettings, policy: ActorCritic, found: _Findings) -> None:
    """Finds what ML-Agents' networks never are, whatever their shapes."""
    if network.activation != "swish":
        found.mismatches.append(f"activation: ML-Agents' is always swish, now {network.activation}")
    for key in ("layer_norm", "bounded_mean"):
        if getattr(network, key):
            found.mismatches.append(f"{key}: ML-Agents' networks have none, now true")
    if policy.continuous_size and network.std_type != "learned":
        found.mismatches.append(f"std_type: ML-Agents' is always learned, now {network.std_type}")


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
        source = sources[ours]
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
    sizes = policy.sensors.vector_sizes
    for prefix, size in zip(normalizers(policy.sensors), sizes, strict=True):
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
    statistics = [] if policy.normalizer is None else normalizers(policy.sensors)
    ignored = (*CONSTANTS, SECOND_NAMES, *statistics)
    heads, more = set(), dict[str, list[str]]()
    for module in (POLICY, CRITIC):
        for name in checkpoint.modules[module]:
            signal = name.removeprefix(VALUE_HEADS).rpartition(".")[0]
            if name in taken or name.startswith(ignored):
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
    found.left += [f"'{module}'" for module in checkpoint.modules if module not in KNOWN_MODULES]


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
