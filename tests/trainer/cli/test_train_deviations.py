"""A standard deviation of each kind through the command line: trained, resumed, verified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_process import checkpoint, ppo_train, tiny_build, tiny_yaml, weights


@pytest.mark.parametrize(
    ("trainer_type", "network", "names"),
    [
        ("trpo", {"std_type": "fixed", "initial_log_std": -1.2}, ["log_std"]),
        ("a2c", {"std_type": "state_log_std"}, ["std_head.bias", "std_head.weight"]),
        (
            "ppo",
            {"std_type": "state_softplus", "min_std": 0.05},
            ["std_head.bias", "std_head.weight"],
        ),
    ],
)
def test_run_with_a_deviation_is_trained_resumed_and_verified(
    trainer_type: str, network: dict[str, object], names: list[str], tmp_path: Path
) -> None:
    tiny_build(tmp_path, "--actions", "2,0")
    rates = {"buffer_size": 64, "learning_rate": 5e-3}
    changes: dict[str, Any] = {
        "trainer_type": trainer_type,
        "hyperparameters": rates if trainer_type == "a2c" else {**rates, "batch_size": 16},
        **{f"network_settings__{key}": value for key, value in network.items()},
    }
    words = ("settings.yaml", "--env", "tiny.x86_64", "--seed", 1, "--run-id", "run")
    tiny_yaml(tmp_path, max_steps=300, **changes)
    ppo_train(*words, cwd=tmp_path)
    run = tmp_path / "results" / "run"
    first = weights(run, "1D")
    assert sorted(name for name in first if "std" in name) == names

    tiny_yaml(tmp_path, max_steps=500, **changes)
    ppo_train(*words, "--resume", cwd=tmp_path)
    assert checkpoint(run, "1D")["step"] >= 500
    for name, tensor in weights(run, "1D").items():
        if name in names:
            assert torch.equal(tensor, first[name]) == (network["std_type"] == "fixed"), name
    said = ppo_train("verify", "results/run/1D.onnx", "--spec", "run", cwd=tmp_path)
    assert re.search(r"checks, 0 warnings, 0 errors", said), said
    said = ppo_train("eval", "--run-id", "run", "--episodes", 2, "--seed", 3, cwd=tmp_path)
    assert "1D: mean return" in said
