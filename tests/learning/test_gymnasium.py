"""Gymnasium's small classics reach a known return within a step limit, on 5 of 5 seeds.

The returns are those of `ppo-train eval`: 20 whole episodes, deterministic. Figures:
docs/learning.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from trainer_process import ROOT, checkpoint, ppo_train

PATIENCE_S = 1500.0
CASES = [
    # Settings, behaviour, mean return, within steps. The best returns are 500 and 1000.
    ("CartPole-v1.yaml", "CartPole", 475.0, 100_000),
    ("InvertedPendulum-v5.yaml", "InvertedPendulum", 950.0, 200_000),
]


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S + 300)
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(("settings", "behavior", "threshold", "limit"), CASES)
def test_known_return_is_reached(
    tmp_path: Path, settings: str, behavior: str, threshold: float, limit: int, seed: int
) -> None:
    path = ROOT / "configs" / "gym" / settings
    words = ("--run-id", "run", "--seed", seed)
    ppo_train(path, *words, cwd=tmp_path, patience_s=PATIENCE_S)
    state = checkpoint(tmp_path / "results" / "run", behavior)
    assert state["step"] <= limit
    recent = state["recent_returns"]
    said = ppo_train(
        *("eval", "--run-id", "run", "--episodes", 20, "--seed", 1000 + seed), cwd=tmp_path
    )
    found = re.search(rf"{behavior}: mean return (\S+), std \S+, min (\S+),", said)
    assert found, said
    print(
        f"{behavior} seed {seed}: step {state['step']}, deterministic mean {found[1]} (lowest "
        f"{found[2]}), last {len(recent)} of training {sum(recent) / len(recent):.1f}"
    )
    assert float(found[1]) >= threshold
