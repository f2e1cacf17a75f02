"""Microseconds that deciding takes, by onnxruntime and by the eager policy, for the same rows.

    python -m benchmarks.acting

One thread; the shapes are those of the other benchmarks. `refresh` is what new weights cost, once
per update.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.machine import cpu_model
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from trainer.compiled_policy import CompiledPolicy
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic

# Name, observations, continuous actions, branches, hidden units, layers, rows per pass.
SHAPES = [
    ("Walker, 10 agents", 243, 39, (), 512, 3, 10),
    ("Walker, 40 agents", 243, 39, (), 512, 3, 40),
    ("3DBall, 12 agents", 8, 2, (), 128, 2, 12),
    ("Walker2d-v5, 4 agents", 17, 6, (), 64, 2, 4),
    ("CartPole-v1, 4 agents", 4, 0, (2,), 64, 2, 4),
]
NUM_ROUNDS, CALLS_PER_ROUND = 7, 100


def median_us(function: Callable[[], object], calls: int = CALLS_PER_ROUND) -> float:
    """Gives the median over rounds of a call's mean time."""
    function()
    rounds = []
    for _ in range(NUM_ROUNDS):
        started = time.perf_counter()
        for _ in range(calls):
            function()
        rounds.append((time.perf_counter() - started) / calls * 1e6)
    return float(np.median(rounds))


def main() -> None:
    """Prints a table."""
    torch.set_num_threads(1)
    print(cpu_model())
    for name, size, continuous, branches, hidden, layers, num_rows in SHAPES:
        sensor = ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "s")
        spec = BehaviorSpec([sensor], ActionSpec(continuous, branches))
        network = NetworkSettings(normalize=True, hidden_units=hidden, num_layers=layers)
        policy = ActorCritic("Benchmark", spec, network, 1, False)
        compiled = CompiledPolicy(policy, seed=0)
        generator = torch.Generator().manual_seed(0)
        obs = np.random.default_rng(0).standard_normal((num_rows, size), np.float32)
        tensor = torch.from_numpy(obs)
        mask = np.ones((num_rows, sum(branches)), np.bool_) if branches else None
        masks = None if mask is None else torch.from_numpy(mask)

        slow_us = median_us(lambda: policy.act(policy.inputs([tensor]), masks, generator))  # noqa: B023
        fast_us = median_us(lambda: compiled.act([obs], mask))  # noqa: B023
        refresh_us = median_us(compiled.refresh, calls=5)
        print(
            f"{name:24} eager {slow_us:6.0f} us, compiled {fast_us:6.0f} us "
            f"({slow_us / fast_us:.1f} x); refresh {refresh_us / 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
