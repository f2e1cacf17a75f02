"""Makes the run folders beside this file with the real mlagents-learn 1.1.0.

    PYTHONPATH=. python tests/trainer/mlagents_runs/make_runs.py .venv-mlagents

The venv comes from `benchmarks/make_peers.sh mlagents`. Tests read what is committed here, so that
they need neither that venv nor the minute this takes.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BEHAVIOR = "Crab"
# Folder here: actions of TwoSensors, and what differs in the settings.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "continuous": ("continuous", {}),
    "discrete": ("discrete", {}),
    "hybrid": ("hybrid", {"num_layers": 1}),
    "shared_critic": ("continuous", {"shared_critic": True}),
    "without_normalizer": ("continuous", {"normalize": False}),
    "memory": ("hybrid", {"memory": {"memory_size": 8, "sequence_length": 4}}),
}
KEPT = (f"{BEHAVIOR}.onnx", f"{BEHAVIOR}/checkpoint.pt", "run_logs/training_status.json")


def settings(changes: dict[str, Any]) -> dict[str, Any]:
    """Gives a YAML that is over after a few updates."""
    shared = changes.get("shared_critic", False)
    network = {"hidden_units": 8, "num_layers": 2, "normalize": True, **changes}
    network.pop("shared_critic", None)
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {
            "batch_size": 16,
            "buffer_size": 64,
            "learning_rate": 3.0e-3,
            "shared_critic": shared,
        },
        "network_settings": network,
        "max_steps": 300,
        "time_horizon": 16,
        "summary_freq": 100,
        "checkpoint_interval": 150,
    }
    return {"behaviors": {BEHAVIOR: behavior}}


def make(name: str, python: Path, port: int) -> None:
    """Trains with mlagents-learn and keeps the files that tests read."""
    actions, changes = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "settings.yaml").write_text(yaml.safe_dump(settings(changes)))
        simulator = [sys.executable, "-m", "envs.gym", "--env", "two_sensors:TwoSensors"]
        simulator += ["--kwargs", f'{{"actions": "{actions}"}}', "--behavior", BEHAVIOR]
        build = work / "build.x86_64"
        path = f"PYTHONPATH={shlex.quote(f'{ROOT}:{HERE}')}"
        build.write_text(f'#!/bin/sh\n{path} exec {shlex.join(simulator)} "$@"\n')
        build.chmod(0o755)
        words = [str(work / "settings.yaml"), "--env", str(build), "--run-id", name, "--seed", "1"]
        words += ["--base-port", str(port), "--no-graphics", "--torch-device", "cpu"]
        learn = ROOT / "benchmarks" / "peers" / "mlagents_learn.py"
        subprocess.run([python, learn, *words], cwd=work, check=True)
        for file in KEPT:
            target = HERE / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(work / "results" / name / file, target)


if __name__ == "__main__":
    python = Path(sys.argv[1]).absolute() / "bin" / "python"
    for number, name in enumerate(sys.argv[2:] or RUNS):
        make(name, python, 31_400 + number)
