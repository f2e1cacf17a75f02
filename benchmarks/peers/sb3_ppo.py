"""Trains PPO of Stable-Baselines3 once and prints what it measured; runs in the peer's own venv.

    python benchmarks/peers/sb3_ppo.py --env Walker2d-v5 --vectorization dummy --updates 20

Prints one line of JSON with steps per second over whole cycles of collecting and updating: from
the beginning of the second rollout to the end of the last update. Observations are normalised
(VecNormalize), as on our side.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize


class Clock(BaseCallback):  # type: ignore[misc]  # untyped here, it lives in the peer's venv
    """Remembers when every rollout began, and the steps then."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: list[tuple[float, int]] = []

    def _on_rollout_start(self) -> None:
        self.rollouts.append((time.perf_counter(), self.num_timesteps))

    def _on_step(self) -> bool:
        return True


def main() -> None:
    """Trains and prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    parser.add_argument("--vectorization", choices=["dummy", "subproc"], required=True)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--num-steps", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-epoch", type=int, default=10)
    parser.add_argument("--hidden-units", type=int, default=64)
    parser.add_argument("--num-layers", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(1)
    kind = DummyVecEnv if options.vectorization == "dummy" else SubprocVecEnv
    envs = make_vec_env(options.env, n_envs=8, seed=1, vec_env_cls=kind)
    layers = [options.hidden_units] * options.num_layers
    model = PPO(
        "MlpPolicy",
        VecNormalize(envs, norm_obs=True, norm_reward=False),
        n_steps=options.num_steps,
        batch_size=options.batch_size,
        n_epochs=options.num_epoch,
        learning_rate=3e-4,
        device="cpu",
        seed=1,
        policy_kwargs={
            "net_arch": {"pi": layers, "vf": layers},
            "activation_fn": torch.nn.Tanh,
        },
    )
    clock = Clock()
    model.learn((1 + options.updates) * 8 * options.num_steps, callback=clock)
    ended_s = time.perf_counter()
    began_s, steps_before = clock.rollouts[1]
    episodes = [episode["r"] for episode in model.ep_info_buffer or ()]
    result = {
        "steps_per_s": round((model.num_timesteps - steps_before) / (ended_s - began_s), 1),
        "updates": options.updates,
        "last_mean_return": round(sum(episodes) / max(1, len(episodes)), 1),
    }
    print(json.dumps(result))
    envs.close()


if __name__ == "__main__":
    main()
