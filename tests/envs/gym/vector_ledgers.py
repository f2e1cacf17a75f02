"""Vector environments whose numbers tell what happened, one for each autoreset mode.

Environment k observes (100 * k + episode, env_step within it); its reward is 10 * episode +
env_step. Actions are those of LedgerEnv.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from ledger_env import BOTH, RAISE, TERMINATE, TRUNCATE


class VectorLedger(VectorEnv[Any, Any, Any]):  # type: ignore[misc]  # gymnasium is untyped for mypy
    """Common part: counts, and leaves it to the modes what follows an episode's end."""

    mode: ClassVar[AutoresetMode]
    num_built: ClassVar[int] = 0

    def __init__(self, num_envs: int) -> None:
        type(self).num_built += 1
        self.metadata = {"autoreset_mode": self.mode}
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.single_action_space = spaces.Discrete(5)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.episode = np.zeros(num_envs, np.int64)
        self.env_step = np.zeros(num_envs, np.int64)
        self.actions: list[list[int]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        mask = np.ones(self.num_envs, bool) if options is None else options["reset_mask"]
        self._restart(mask)
        return self.seen(), {}

    def _restart(self, mask: Any) -> None:
        self.episode[mask] += 1
        self.env_step[mask] = 0

    def seen(self) -> Any:
        first = 100.0 * np.arange(self.num_envs) + self.episode
        return np.stack([first, self.env_step], axis=1)

    def advance(self, actions: Any, mask: Any) -> tuple[Any, Any, Any]:
        """Steps those in `mask`; gives rewards and ends."""
        assert actions.dtype == np.int64
        self.actions.append(actions.tolist())
        if (actions[mask] == RAISE).any():
            raise ArithmeticError("the ledgers do not add up")
        self.env_step[mask] += 1
        rewards = np.where(mask, 10.0 * self.episode + self.env_step, 0.0)
        terminated = mask & np.isin(actions, (TERMINATE, BOTH))
        truncated = mask & np.isin(actions, (TRUNCATE, BOTH))
        return rewards, terminated, truncated


class NextStep(VectorLedger):
    """Shows the last observation; the next step ignores its action and resets."""

    mode = AutoresetMode.NEXT_STEP

    def step(self, actions: Any) -> Any:
        over = getattr(self, "over", np.zeros(self.num_envs, bool))
        rewards, terminated, truncated = self.advance(actions, ~over)
        self._restart(over)
        self.over = terminated | truncated
        return self.seen(), rewards, terminated, truncated, {}


class SameStep(VectorLedger):
    """Shows the next episode's first observation, and the last one in infos."""

    mode = AutoresetMode.SAME_STEP

    def step(self, actions: Any) -> Any:
        rewards, terminated, truncated = self.advance(actions, np.ones(self.num_envs, bool))
        over, infos = terminated | truncated, {}
        if over.any():
            final = np.full(self.num_envs, None, object)
            for row in np.flatnonzero(over):
                final[row] = self.seen()[row]
            infos = {"final_obs": final, "_final_obs": over}
        self._restart(over)
        return self.seen(), rewards, terminated, truncated, infos


class Disabled(VectorLedger):
    """Demands to be reset with a mask."""

    mode = AutoresetMode.DISABLED

    def step(self, actions: Any) -> Any:
        over = getattr(self, "over", np.zeros(self.num_envs, bool))
        assert not over.any(), "it was not reset"
        rewards, terminated, truncated = self.advance(actions, ~over)
        self.over = terminated | truncated
        return self.seen(), rewards, terminated, truncated, {}

    def _restart(self, mask: Any) -> None:
        super()._restart(mask)
        if hasattr(self, "over"):
            self.over[mask] = False


class Unlabelled(NextStep):
    """Does not say what follows an end."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.metadata = {}


class Spoilt(NextStep):
    """Environment 1 observes NaN in its first episode."""

    def seen(self) -> Any:
        obs = super().seen()
        if self.num_envs > 1 and self.episode[1] == 1 and self.env_step[1] == 1:
            obs[1, 1] = np.nan
        return obs
