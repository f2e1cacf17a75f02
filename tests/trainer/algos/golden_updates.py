"""One update of every algorithm on a rollout of fixed numbers; writes what came of it.

    python tests/trainer/algos/golden_updates.py

writes golden_updates.json anew. Do so only when the mathematics is meant to change, and look at
what the difference of that file says. Weights and rollout are sines of counted numbers and all is
computed in double precision, so that no other machine and no other random generator matters.

Letters: B decisions, S segments, R reward signals, C continuous action size, K discrete branches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bandit import new_algorithm, new_policy
from torch import Tensor

from trainer.nn.actor_critic import ActorCritic
from trainer.nn.memory import Sequences
from trainer.rollout.rollout import Rollout

FILE = Path(__file__).with_name("golden_updates.json")
STARTS = torch.tensor([0, 5, 9, 12])  # (S + 1,)
ROWS, SIGNALS, STEP = 12, 2, 300
BATCHES = {"batch_size": 4, "learning_rate": 0.01}
# Adam's and RMSprop's first step is the gradient's sign, unless this number is as large as it.
SEEN, SEEN_A2C = {"adam_epsilon": 0.1}, {"optimizer_epsilon": 0.1}
DPPO = {"kl_low": 0.5, "kl_high": 2.0, "kl_alpha": 1.5, "kl_hinge": 50.0, "kl_stop": 4.0}
# Name: trainer type, hyperparameters, network settings.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ppo": ("ppo", {**BATCHES, "beta": 0.01, "max_grad_norm": 0.5}, {}),
    "ppo, all schedules linear": (
        "ppo",
        {**BATCHES, "beta": 0.01, "learning_rate_schedule": "linear"},
        {"normalize": True},
    ),
    "ppo, per dimension": (
        "ppo",
        {**BATCHES, "beta": 0.01, "ratio": "per_dimension", "value_clip": 0.1},
        {},
    ),
    "ppo, frozen policy": (
        "ppo",
        {
            **BATCHES,
            "target_kl": 0.02,
            "past_target_kl": "freeze_policy",
            "recompute_advantages": True,
            "critic_learning_rate": 0.02,
        },
        {},
    ),
    "ppo, deviation by state": ("ppo", {**BATCHES, "beta": 0.01}, {"std_type": "state_softplus"}),
    "ppo, memory": ("ppo", {**BATCHES, "batch_size": 8}, {"memory": {"memory_size": 4}}),
    "ppo_kl": ("ppo_kl", {**BATCHES, "kl_target": 1e-4}, {}),
    "ppo_kl, rule of DPPO": ("ppo_kl", {**BATCHES, **DPPO, "kl_target": 1e-3}, {}),
    "ppo_kl, fixed": ("ppo_kl", {**BATCHES, "kl_mode": "fixed", "kl_coefficient": 3.0}, {}),
    "a2c": ("a2c", {**SEEN_A2C, "beta": 0.01}, {}),
    "a2c, two steps": ("a2c", {**SEEN_A2C, "n_steps": 2, "optimizer": "adam"}, {}),
    "a2c, error of one step": ("a2c", {**SEEN_A2C, "critic_target": "td_error"}, {}),
    "a2c, return": ("a2c", {**SEEN_A2C, "critic_target": "q"}, {}),
    "reinforce": ("reinforce", {**BATCHES, **SEEN, "beta": 0.01}, {}),
    "reinforce, mean of whole returns": (
        "reinforce",
        {**SEEN, "learning_rate": 0.01, "baseline": "mean", "returns": "whole"},
        {},
    ),
    "trpo": ("trpo", BATCHES, {}),
    "trpo, fixed deviation": ("trpo", {**BATCHES, "max_kl": 0.05}, {"std_type": "fixed"}),
    "npg": ("npg", {**BATCHES, "num_cg_iterations": 5, "cg_damping": 0.01}, {}),
}


@contextmanager
def double_precision() -> Iterator[None]:
    """Makes new tensors double for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def waves(*shape: int, seed: float) -> Tensor:
    """Numbers between -1 and 1 that are neither random nor alike."""
    count = torch.Size(shape).numel()
    return torch.sin(seed + 1.7 * torch.arange(count, dtype=torch.float64)).reshape(shape)


def fixed_policy(network: dict[str, Any]) -> ActorCritic:
    """A hybrid policy with two value heads whose weights are given numbers."""
    policy = new_policy(2, (3, 2), num_inputs=3, num_signals=SIGNALS, hidden_units=5, **network)
    with torch.no_grad():
        for i, parameter in enumerate(policy.parameters()):
            parameter.copy_(0.5 * waves(*parameter.shape, seed=0.1 + i))
    if policy.normalizer is not None:
        policy.update_normalizer([3 * waves(20, 3, seed=0.9) + 1])
    return policy


def fixed_rollout(policy: ActorCritic) -> Rollout:
    """Twelve decisions in three segments, the middle one cut short, by a policy a bit different."""
    mask = torch.ones(ROWS, 5, dtype=torch.bool)
    mask[2::3, 1] = False
    count = torch.arange(ROWS)
    obs, continuous = waves(ROWS, 3, seed=2.0), 2 * waves(ROWS, 2, seed=3.0)
    discrete = torch.stack([count % 2 * 2, count % 2], dim=1)  # (B, K), all allowed
    sequences = None
    if policy.memory_size:
        sequences = Sequences(STARTS, 0.3 * waves(3, policy.memory_width, seed=4.0), 5)
    with torch.no_grad():
        now = policy.evaluate(policy.inputs([obs]), mask, continuous, discrete, sequences)
    return Rollout(
        obs=(obs,),
        action_mask=mask,
        continuous=continuous,
        discrete=discrete,
        log_probs=now.log_probs + 0.15 * waves(ROWS, 4, seed=5.0),
        rewards=waves(ROWS, SIGNALS, seed=6.0),
        segment_starts=STARTS,
        bootstrap_obs=(waves(3, 3, seed=7.0),),
        terminated=torch.tensor([True, False, True]),
        sequences=sequences,
    )


def update(name: str) -> dict[str, list[float]]:
    """What an update says and does: statistics, and two sums of each tensor's change."""
    trainer_type, hyperparameters, network = CASES[name]
    with double_precision():
        policy = fixed_policy(network)
        algorithm = new_algorithm(policy, trainer_type, buffer_size=ROWS, **hyperparameters)
        before = {key: value.clone() for key, value in policy.state_dict().items()}
        told = algorithm.update(fixed_rollout(policy), STEP)
        found = {tag: [float(value)] for tag, value in told.statistics.items()}
        for key, value in policy.state_dict().items():
            change = value - before[key]
            wave = waves(*change.shape, seed=0.5)
            found[key] = [float(change.sum()), float((change * wave).sum())]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    golden = {name: update(name) for name in CASES}
    FILE.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"wrote {FILE}: {len(golden)} updates")
