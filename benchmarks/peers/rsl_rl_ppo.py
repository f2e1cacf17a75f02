"""Trains PPO of rsl_rl once and prints what it measured; runs in the peer's own venv.

    python benchmarks/peers/rsl_rl_ppo.py --env Walker2d-v5 --updates 20

rsl_rl has continuous actions only, and expects environments that speak torch: here a Gymnasium
vector environment of one process, whose columns are wrapped without a copy. Observations are
normalised, as on our side; one torch thread.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from peer_clock import Clock, parse
from rsl_rl.env import VecEnv
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict


class Environments(VecEnv):  # type: ignore[misc]  # untyped here, it lives in the peer's venv
    """Gymnasium's environments as rsl_rl wants them."""

    def __init__(self, env: str, num_envs: int) -> None:
        same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        self._envs = gymnasium.make_vec(
            env, num_envs=num_envs, vectorization_mode="sync", vector_kwargs=same_step
        )
        space = self._envs.single_action_space
        assert isinstance(space, gymnasium.spaces.Box), "rsl_rl has continuous actions only"
        self._low, self._high = space.low, space.high
        self.num_envs, self.num_actions = num_envs, space.shape[0]
        self.max_episode_length = 1000
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)
        self.device = "cpu"
        self.cfg: dict[str, object] = {}
        self._obs = self._envs.reset(seed=1)[0]

    def get_observations(self) -> TensorDict:
        """What the agents see now."""
        obs = torch.from_numpy(np.asarray(self._obs, np.float32))
        return TensorDict({"policy": obs}, batch_size=[self.num_envs])

    def step(self, actions: torch.Tensor) -> tuple[Any, ...]:
        """One env_step of all."""
        clipped = np.clip(actions.numpy(), self._low, self._high)
        self._obs, rewards, terminated, truncated, _ = self._envs.step(clipped)
        extras = {"time_outs": torch.from_numpy(truncated)}
        dones = torch.from_numpy(terminated | truncated)
        return self.get_observations(), torch.from_numpy(rewards).float(), dones, extras


def main() -> None:
    """Trains and prints the figures."""
    options = parse()
    torch.set_num_threads(1)
    per_update = options.envs * options.steps
    network = {
        "class_name": "MLPModel",
        "hidden_dims": [options.hidden] * options.layers,
        "activation": "tanh",
        "obs_normalization": True,
    }
    settings = {
        "num_steps_per_env": options.steps,
        "save_interval": 10**9,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {**network, "distribution_cfg": {"class_name": "GaussianDistribution"}},
        "critic": dict(network),
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": options.epochs,
            "num_mini_batches": per_update // options.batch,
            "learning_rate": 3e-4,
            "schedule": "fixed",
            "max_grad_norm": 0.5,
            "entropy_coef": 0.0,
        },
    }
    clock = Clock(per_update)
    runner = OnPolicyRunner(Environments(options.env, options.envs), settings, device="cpu")
    update = runner.alg.update

    def clocked() -> Any:
        found = update()
        clock.update_ended()
        return found

    runner.alg.update = clocked
    runner.learn(1 + options.updates)
    clock.print_result()


if __name__ == "__main__":
    main()
