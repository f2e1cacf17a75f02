"""Runs mlagents-learn 1.1.0 under a current torch; runs in the peer's own venv.

Same arguments as mlagents-learn. Nothing that is measured is changed:

- The ONNX export after the last step is told to use the old exporter of torch, for which
  mlagents 1.1.0 was written.
- Every update writes a line with its step to the console. mlagents-learn counts whole trajectories
  and updates some of them after a full buffer, so the benchmark has to ask.
"""

from __future__ import annotations

import functools
from typing import Any

import torch.onnx
from mlagents.trainers.learn import main  # type: ignore[import-not-found]  # peer's venv only
from mlagents.trainers.ppo.trainer import PPOTrainer  # type: ignore[import-not-found]


def announce_updates() -> None:
    """Makes PPOTrainer write a line before every update."""
    update_policy = PPOTrainer._update_policy

    def announced(trainer: Any) -> Any:
        print(f"[bench] update at step {trainer.get_step}")
        return update_policy(trainer)

    PPOTrainer._update_policy = announced


if __name__ == "__main__":
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    announce_updates()
    main()
