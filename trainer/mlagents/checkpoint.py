"""ML-Agents' own `checkpoint.pt`, as it lies on disk.

Such a file is a dict of modules: `Policy`, `Optimizer:critic`, `Optimizer:value_optimizer` (Adam)
and `global_step`. Nothing here knows what their tensors mean; `sources.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint import CheckpointError, State, read_document, state_of

POLICY, CRITIC = "Policy", "Optimizer:critic"
ADAM = "Optimizer:value_optimizer"
STEP, STEP_KEY = "global_step", "_GlobalSteps__global_step"
KNOWN_MODULES = (POLICY, CRITIC, ADAM, STEP)
OTHER_TRAINERS = {"Optimizer:q_network": "SAC", "Optimizer:adam": "POCA"}


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
