"""A Gymnasium environment that puts its last action into its observations, so that mix-ups show."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class HybridEnv(gymnasium.Env[dict[str, Any], dict[str, Any]]):  # type: ignore[misc]  # no stubs
    """Ends, is cut short, or both at once, by chance; 10 episodes last about 100 env_steps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, scale: float = 1.0) -> None:
        self.observation_space = spaces.Dict(
            {
                "seen": spaces.Tuple((spaces.Box(-9, 9, (2, 2), np.float64), spaces.Discrete(5))),
                "achieved_goal": spaces.Box(-9, 9, (3,), np.float32),
                "flags": spaces.MultiBinary(2),
            }
        )
        self.action_space = spaces.Dict(
            {
                "move": spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 1.0]), dtype=np.float64),
                "gear": spaces.Discrete(3, start=-1),
                "levers": spaces.MultiBinary(2),
            }
        )
        self.scale = scale
        self.bonus = 0.0

    def set_parameters(self, parameters: dict[str, float]) -> None:
        self.bonus = parameters["bonus"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.num_steps = 0
        action = {"move": np.zeros(2), "gear": 0, "levers": np.zeros(2, np.int8)}
        return self._observe(action), {}

    def step(
        self, action: dict[str, Any]
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.num_steps += 1
        chance = float(self.np_random.random())
        reward = self.scale * self.num_steps + float(action["move"][0]) + self.bonus
        info: dict[str, Any] = {}
        if chance < 0.12:
            info["stats"] = {"Hybrid/Length": self.num_steps}
        # Below 0.04 terminated, to 0.08 both, to 0.12 truncated.
        return self._observe(action), reward, chance < 0.08, 0.04 <= chance < 0.12, info

    def _observe(self, action: dict[str, Any]) -> dict[str, Any]:
        move, gear = action["move"], int(action["gear"])
        return {
            "achieved_goal": np.array([self.num_steps % 9, move[0], move[1]], np.float32),
            "flags": np.asarray(action["levers"], np.int8),
            "seen": (self.np_random.random((2, 2)), np.int64(gear + 2)),
        }
