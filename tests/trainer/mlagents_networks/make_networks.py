"""Makes the runs beside this file with the real mlagents-learn 1.1.0: one for each kind of network.

    PYTHONPATH=. python tests/trainer/mlagents_networks/make_networks.py .venv-mlagents [NAME...]

The venv comes from `benchmarks/make_peers.sh mlagents`. A run's folder holds what it was made with
(`run.json`: sensors, actions, and the behaviour as it stands in the YAML), ML-Agents' checkpoint
and export, packed by xz, and what they do not tell (`answers.npz`); see thinned_learn.py.
"""

from __future__ import annotations

import json
import lzma
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BEHAVIOR = "Crab"
MEMORY = {"memory": {"memory_size": 8, "sequence_length": 4}}
Shapes = dict[str, list[int]]

EVERYTHING: Shapes = {
    "a_crowd": [3, 2],
    "camera": [1, 5, 6],
    "goal": [3],
    "near": [4],
    "view": [2, 6, 5],
    "z_crowd": [2, 3],
}
# Sensors by name, in the order of names as in Unity; `goal` is a goal signal. Then continuous size,
# branches, and what differs in the settings.
RUNS: dict[str, tuple[Shapes, int, list[int], dict[str, Any]]] = {
    "simple": ({"camera": [3, 20, 20], "near": [3]}, 2, [], {}),
    "nature_cnn": ({"camera": [1, 36, 36]}, 2, [], {"vis_encode_type": "nature_cnn"}),
    "resnet": ({"camera": [3, 15, 18], "near": [3]}, 2, [], {"vis_encode_type": "resnet"}),
    "match3": (
        {"camera": [1, 5, 6], "near": [3], "view": [2, 6, 5]},
        *(2, [3, 2], {"vis_encode_type": "match3"}),
    ),
    "fully_connected": ({"camera": [3, 4, 5]}, 2, [], {"vis_encode_type": "fully_connected"}),
    "entities": ({"a_crowd": [3, 2], "near": [4], "z_crowd": [4, 3]}, 2, [3, 2], {}),
    "entities_alone": ({"crowd": [5, 4]}, 2, [], {}),
    "goal": ({"goal": [3], "near": [4], "wide": [2]}, 2, [], {"num_layers": 3}),
    "goal_image": (
        {"goal": [1, 5, 4], "near": [4]},
        *(0, [3, 2], {"num_layers": 1, "vis_encode_type": "fully_connected"}),
    ),
    "goal_unconditioned": (
        {"goal": [3], "near": [4]},
        *(2, [], {"goal_conditioning_type": "none"}),
    ),
    "everything": (EVERYTHING, 2, [3, 2], {"vis_encode_type": "match3", **MEMORY}),
    "everything_shared": (
        EVERYTHING,
        *(2, [3, 2], {"vis_encode_type": "match3", "shared_critic": True, **MEMORY}),
    ),
}


def describe(name: str) -> dict[str, Any]:
    """Gives what `run.json` holds: a behaviour that is over after a few updates."""
    shapes, continuous, branches, changes = RUNS[name]
    network = {"hidden_units": 8, "num_layers": 2, "normalize": True, **changes}
    hyperparameters = {
        "batch_size": 16,
        "buffer_size": 64,
        "learning_rate": 3.0e-3,
        "shared_critic": network.pop("shared_critic", False),
    }
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": hyperparameters,
        "network_settings": network,
        "max_steps": 200,
        "time_horizon": 16,
        "summary_freq": 100,
        "checkpoint_interval": 1000,
    }
    sensors = [
        {"name": sensor, "shape": shape, "is_goal": sensor == "goal"}
        for sensor, shape in shapes.items()
    ]
    return {
        "sensors": sensors,
        "continuous": continuous,
        "branches": branches,
        "behavior": behavior,
    }


def make(name: str, python: Path, port: int) -> None:
    """Trains with mlagents-learn and keeps the files that tests read."""
    run, target = describe(name), HERE / name
    target.mkdir(exist_ok=True)
    (target / "run.json").write_text(json.dumps(run, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = {"behaviors": {BEHAVIOR: run["behavior"]}}
        (work / "settings.yaml").write_text(yaml.safe_dump(settings))
        simulator = [sys.executable, str(HERE / "noisy_simulator.py"), str(target / "run.json")]
        build = work / "build.x86_64"
        path = f"PYTHONPATH={shlex.quote(str(ROOT))}"
        build.write_text(f'#!/bin/sh\n{path} exec {shlex.join(simulator)} "$@"\n')
        build.chmod(0o755)
        words = [str(work / "settings.yaml"), "--env", str(build), "--run-id", name, "--seed", "1"]
        words += ["--base-port", str(port), "--no-graphics", "--torch-device", "cpu"]
        subprocess.run(
            [python, HERE / "thinned_learn.py", *words],
            cwd=work,
            check=True,
            env={**os.environ, "ANSWERS": str(target / "answers.npz")},
        )
        for file in (f"{BEHAVIOR}.onnx", f"{BEHAVIOR}/checkpoint.pt"):
            made = work / "results" / name / file
            packed = lzma.compress(made.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
            (target / f"{made.name}.xz").write_bytes(packed)


if __name__ == "__main__":
    python = Path(sys.argv[1]).absolute() / "bin" / "python"
    for number, name in enumerate(sys.argv[2:] or RUNS):
        make(name, python, 31_500 + number)
