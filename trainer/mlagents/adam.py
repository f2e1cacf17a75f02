"""ML-Agents' optimiser: the moments of its Adam, laid out as ours keeps them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.mlagents.checkpoint import ADAM, MlagentsCheckpoint
from trainer.mlagents.sources import Source, parameter_names
from trainer.nn.actor_critic import ActorCritic


def moments_of(
    checkpoint: MlagentsCheckpoint, policy: ActorCritic, sources: Mapping[str, Source]
) -> dict[str, Tensor] | str:
    """Gives Adam's state for our one flat vector of parameters, or why it cannot be had."""
    adam = checkpoint.modules.get(ADAM)
    if not isinstance(adam, dict) or not adam.get("param_groups"):
        return f"the checkpoint has no '{ADAM}'"
    is_shared = policy.critic_body is policy.actor_body
    names = list(parameter_names(checkpoint.modules, is_shared=is_shared))
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
