"""An environment that forbids, refuses what it has forbidden, and says so in every known way."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ALLOWED = ([1, 0, 1, 0, 1], [0, 1, 1, 1, 0])  # of branches 2 and 3, in even and odd env_steps


class MaskedEnv(gymnasium.Env[Any, Any]):  # type: ignore[misc]  # gymnasium is untyped for mypy
    """Episodes of 7 env_steps; `form` is how it gives its masks."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self, form: str = "flat") -> None:
        self.form = form
        self.env_step = 0
        if form == "method":
            self.action_masks = lambda: np.array(self.allowed, bool)

    @property
    def allowed(self) -> list[int]:
        return ALLOWED[self.env_step % 2]

    def _info(self) -> dict[str, Any]:
        forms: dict[str, Any] = {
            "flat": np.array(self.allowed, np.int8),
            "branches": (np.array(self.allowed[:2]), np.array(self.allowed[2:])),
            "short": [1, 1],
            "nothing": [0, 0, 1, 1, 1],
        }
        return {} if self.form == "method" else {"action_mask": forms[self.form]}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.env_step = 0
        return np.zeros(1, np.float32), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not (self.allowed[action[0]] and self.allowed[2 + action[1]]):
            raise ValueError(f"{action} was forbidden in env_step {self.env_step}")
        self.env_step += 1
        obs = np.full(1, self.env_step / 7, np.float32)
        return obs, 1.0, self.env_step == 7, False, self._info()
