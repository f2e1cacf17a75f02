"""An environment whose actions say how it goes on, and which keeps books of what happened to it."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

GO_ON, TERMINATE, TRUNCATE, BOTH, RAISE = range(5)


class LedgerEnv(gymnasium.Env[Any, Any]):  # type: ignore[misc]  # gymnasium is untyped for mypy
    """Observes (the episode's random number, episode, env_step), gets 10 * episode + env_step."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(5)

    def __init__(self, tell: bool = False) -> None:
        self.tell = tell
        self.number = np.nan
        self.episode = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.number = float(self.np_random.random())
        self.episode += 1
        self.env_step = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action == RAISE:
            raise ArithmeticError("the ledger does not add up")
        self.env_step += 1
        return (
            self._observe(),
            10.0 * self.episode + self.env_step,
            action in (TERMINATE, BOTH),
            action in (TRUNCATE, BOTH),
            {"stats": {"Ledger/Step": self.env_step}} if self.tell else {},
        )

    def _observe(self) -> Any:
        return np.array([self.number, self.episode, self.env_step], np.float32)


class ParameterEnv(LedgerEnv):
    """Observes its parameter instead of a random number."""

    def set_parameters(self, parameters: dict[str, float]) -> None:
        self.parameters = dict(parameters)

    def _observe(self) -> Any:
        self.number = getattr(self, "parameters", {}).get("mass", -1.0)
        return super()._observe()


class VolumeEnv(LedgerEnv):
    """Observes what no sensor of ours can carry."""

    observation_space = spaces.Box(0.0, 1.0, (8, 8, 8, 3), np.float32)


def not_an_environment() -> object:
    return object()


a_number = 3
