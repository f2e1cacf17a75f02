"""An environment full of cameras, whose pixels are random but follow from its seed."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

HEIGHT, WIDTH = 10, 12


class CameraEnv(gymnasium.Env[dict[str, Any], Any]):  # type: ignore[misc]  # no stubs
    """Ends by chance after about ten steps, odd ends are cut short."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {
                "colour": spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8),
                "depth": spaces.Box(0.0, 9.0, (HEIGHT, WIDTH, 2), np.float32),
                "desired_goal": spaces.Box(-1.0, 1.0, (2,), np.float32),
                "grey": spaces.Box(0, 255, (HEIGHT, WIDTH), np.uint8),
                "stack": spaces.Box(0, 255, (4, HEIGHT, WIDTH), np.uint8),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(0.0), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        obs = self._observe(float(action[0]))
        chance = float(self.np_random.random())
        return obs, float(action[0]), chance < 0.05, 0.05 <= chance < 0.1, {}

    def _observe(self, action: float) -> dict[str, Any]:
        draw = self.np_random
        return {
            "colour": draw.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
            "depth": draw.random((HEIGHT, WIDTH, 2), np.float32) * 9,
            "desired_goal": np.array([action, draw.random()], np.float32),
            "grey": draw.integers(0, 256, (HEIGHT, WIDTH), np.uint8),
            "stack": draw.integers(0, 256, (4, HEIGHT, WIDTH), np.uint8),
        }
