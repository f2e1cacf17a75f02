"""A small Gymnasium environment whose two sensors differ in size and scale, so mix-ups show."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ACTIONS: dict[str, Any] = {
    "continuous": spaces.Box(-1, 1, (2,), np.float32),
    "discrete": spaces.MultiDiscrete([3, 2]),
    "hybrid": spaces.Dict(
        {"gear": spaces.MultiDiscrete([3, 2]), "move": spaces.Box(-1, 1, (2,), np.float32)}
    ),
}


class TwoSensors(gymnasium.Env[dict[str, Any], Any]):  # type: ignore[misc]  # no stubs
    """Pays for the first number of the action; ends after ten actions."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, actions: str = "continuous") -> None:
        self.observation_space = spaces.Dict(
            {
                "near": spaces.Box(-np.inf, np.inf, (3,), np.float32),
                "wide": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )
        self.action_space = ACTIONS[actions]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.num_steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.num_steps += 1
        first = action["move"] if isinstance(action, dict) else action
        return self._observe(), float(first[0]), self.num_steps == 10, False, {}

    def _observe(self) -> dict[str, Any]:
        near, wide = self.np_random.normal(size=3), self.np_random.normal(size=2)
        return {
            "near": near.astype(np.float32),
            "wide": (100 + 10 * wide).astype(np.float32),
        }
