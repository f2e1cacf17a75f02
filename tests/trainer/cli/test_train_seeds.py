"""Which seeds simulators get, from one start of a run to the next."""

from __future__ import annotations

from pathlib import Path

from trainer_process import checkpoint, ppo_train, write_yaml

MODULE = '''
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Own(gymnasium.Env):
    """Writes down every seed that it gets."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            with open("seeds", "a") as seeds:
                seeds.write(f"{seed}\\n")
        self.left = 5
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}
'''
WORDS = ("own.yaml", "--env", "gym:own:Own", "--num-envs", 2, "--num-areas", 2, "--seed", 7)


def seeds_of(cwd: Path, *words: object, max_steps: int) -> list[int]:
    """Runs to `max_steps` and gives the seeds of the four environments."""
    behavior = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 32, "buffer_size": 64},
        "network_settings": {"hidden_units": 8, "num_layers": 1},
        "max_steps": max_steps,
    }
    write_yaml(cwd / "own.yaml", {"behaviors": {"Own": behavior}})
    (cwd / "seeds").write_text("")
    ppo_train(*WORDS, *words, cwd=cwd)
    return sorted(map(int, (cwd / "seeds").read_text().split()))


def test_resumed_run_does_not_meet_the_episodes_of_its_beginning_again(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MODULE)
    # Simulator i gets 7 + i, and environment k of it 1000 times that, plus k.
    assert seeds_of(tmp_path, max_steps=100) == [7000, 7001, 8000, 8001]
    step = checkpoint(tmp_path / "results" / "ppo", "Own")["step"]
    assert step >= 100
    first = 1000 * (7 + step)
    expected = [first, first + 1, first + 1000, first + 1001]
    assert seeds_of(tmp_path, "--resume", max_steps=200) == expected
