"""Agent-steps per second, end to end, with a vector environment on the device that learns.

    python -m benchmarks.gpu_vector [--device cuda] [--agents 16384]

Trains `trainer/torch_vector/oscillators.py` (60 observations, 20 actions) with 3x256 networks
through `ppo-train`, and times it by its console from outside, as benchmarks/trainers.py does: whole
cycles of collecting 24 env_steps and 5 epochs of 4 minibatches. Must on one H200: 2 million
agent-steps/s. Without a GPU it runs on the CPU, with fewer agents, and promises nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks import machine, report, trainers
from benchmarks.trainers import Job

ENVIRONMENT = "trainer.torch_vector.oscillators:Oscillators"
NUM_STEPS, NUM_EPOCH, NUM_MINIBATCHES = 24, 5, 4
HIDDEN_UNITS, NUM_LAYERS = 256, 3
MUST = 2e6
AGENTS_ON_CPU = 512
CYCLES_PER_MARK = 5


def settings(num_agents: int) -> dict[str, object]:
    """Gives our YAML."""
    rollout = NUM_STEPS * num_agents
    hyperparameters = {
        "batch_size": rollout // NUM_MINIBATCHES,
        "buffer_size": rollout,
        "learning_rate": 1.0e-3,
        "learning_rate_schedule": "constant",
        "beta": 0.0,
        "num_epoch": NUM_EPOCH,
        "max_grad_norm": 1.0,
    }
    network = {"hidden_units": HIDDEN_UNITS, "num_layers": NUM_LAYERS, "activation": "tanh"}
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": hyperparameters,
        "network_settings": network,
        "reward_signals": {"extrinsic": {"gamma": 0.97, "strength": 1.0}},
        "time_horizon": NUM_STEPS,
    }
    return {"behaviors": {"Oscillators": behavior}}


def measure_ours(num_agents: int, device: str, updates: int) -> float:
    """Trains once."""
    job = Job(settings(num_agents), f"torch:{ENVIRONMENT}", 0, num_agents, NUM_STEPS * num_agents)
    return trainers.end_to_end(trainers.ppo_train(device), job, updates, CYCLES_PER_MARK)


def main() -> None:
    """Measures, and publishes the row."""
    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--agents", type=int, default=16_384 if has_gpu else AGENTS_ON_CPU)
    parser.add_argument("--updates", type=int, default=50 if has_gpu else 10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    about = machine.describe()
    if has_gpu:
        about["gpu"] = torch.cuda.get_device_name()
    measured: list[float] = []
    for _ in range(options.rounds):
        measured.append(measure_ours(options.agents, options.device, options.updates))
        print(f"{measured[-1]:14,.0f}", flush=True)
    ours = report.median(measured)
    row = report.TableRow(
        work=f"Oscillators, {options.agents:,} agents on {options.device}, 60 obs, 20 actions, "
        f"{NUM_STEPS} steps, {NUM_MINIBATCHES} minibatches, {NUM_EPOCH} epochs, 3x256",
        ours=f"{ours:,.0f} steps/s",
        peer="",
        ratio=None,
        must=f">= {MUST:,.0f} steps/s" if has_gpu else "",
        met=ours >= MUST if has_gpu else None,
    )
    report.publish("gpu_vector", about, [row], {"ppo-train": measured}, options.results)


if __name__ == "__main__":
    main()
