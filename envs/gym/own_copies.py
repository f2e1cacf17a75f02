"""Steps K Gymnasium environments one after the other, in the trainer's process.

Letters: K environments, C continuous action size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from envs.batch import Bool, Float32, Int32, Observations
from envs.bridge.side_channels import Sampler, StatsAggregation, StatsMessage
from envs.errors import BadDataError
from envs.gym.agent import Parameters, env_seed, layouts_of, require_equal_spaces
from envs.gym.make import Env
from envs.gym.masks import MASK_KEY, ActionMasks, require_no_late_mask
from envs.gym.spaces import ActionLayout, ObservationLayout
from envs.in_process.copies import Failure, Turn
from envs.spec import ActionSpec, BehaviorSpec


def spec_of(observations: ObservationLayout, actions: ActionLayout) -> BehaviorSpec:
    """Gives what the trainer has to know of these spaces; images are (C, H, W)."""
    sensors = [sensor.spec(has_channels_last=False) for sensor in observations.sensors]
    return BehaviorSpec(sensors, ActionSpec(actions.num_continuous, actions.branches))


class Columns:
    """What K environments observe: written as the spaces have it, read as the trainer has it."""

    def __init__(self, observations: ObservationLayout, num_rows: int) -> None:
        self.written: list[Observations] = [
            np.zeros((num_rows, *sensor.shape), sensor.dtype) for sensor in observations.sensors
        ]
        # Images are written as (H, W, C).
        self.read = tuple(
            column.transpose(0, 3, 1, 2) if column.ndim == 4 else column for column in self.written
        )
        self.rows = [tuple(column[row] for column in self.written) for row in range(num_rows)]

    def taken(self, rows: Sequence[int]) -> tuple[Observations, ...]:
        """Gives copies of some rows."""
        return tuple(column[list(rows)] for column in self.read)


class OwnCopies:
    """Implements `Copies` with single environments, each a unit.

    Args:
        build: gives a new environment.
        behavior_id: of all.
        num_envs: how many.
    """

    def __init__(self, build: Callable[[], Env], behavior_id: str, num_envs: int) -> None:
        self.behavior_id = behavior_id
        self.units: Sequence[slice] = [slice(row, row + 1) for row in range(num_envs)]
        self._build = build
        self._envs: list[Env | None] = [build()]
        first = self._envs[0]
        assert first is not None
        self._pattern = first  # whose spaces all have
        self._observations, self._actions = layouts_of(first)
        self.spec = spec_of(self._observations, self._actions)
        self._envs += [None] * (num_envs - 1)
        self._columns = Columns(self._observations, num_envs)
        self._final = Columns(self._observations, num_envs)
        self._reward = np.zeros(num_envs, np.float32)
        self._final_reward = np.zeros(num_envs, np.float32)
        self._asks = np.zeros(num_envs, np.bool_)
        self._parameters = Parameters([first] * num_envs, 0)
        self._masks = ActionMasks([None] * num_envs, self._actions.branches)
        self._has_masks: bool | None = None  # None: no environment has begun
        self._mask: Bool | None = None  # (K, L)
        if self._actions.branches:
            self._mask = np.ones((num_envs, sum(self._actions.branches)), np.bool_)
        sensors = self._observations.sensors
        # A vector of floats is the usual case: all of them are put together at once.
        self._is_vector = (
            len(sensors) == 1 and sensors[0].flat == sensors[0].shape and not sensors[0].path
        )
        self._seen: list[Any] = [np.zeros(sensors[0].shape, np.float32)] * num_envs
        self._stats: list[StatsMessage] = []

    def set_parameters(self, parameters: Mapping[str, float | Sampler], seed: int) -> None:
        """Takes environment parameters; `seed` is that of the samplers' draws."""
        self._parameters = Parameters([self._pattern] * len(self._envs), seed)
        for index, env in enumerate(self._envs):
            self._parameters.replace(index, env or self._pattern)
        self._parameters.receive(parameters)

    def begin(self, unit: int, seed: int) -> Turn:
        """Begins an environment's first episode; builds it unless that was done."""
        env = self._envs[unit]
        if env is None:
            env = self._envs[unit] = self._build()
            require_equal_spaces([self._pattern, env])
        self._parameters.replace(unit, env)
        self._masks.replace(unit, env)
        self._begin_episode(unit, env_seed(seed, unit))
        self._put_together([])
        asks = np.zeros_like(self._asks)
        asks[unit] = self._asks[unit] = True
        self._reward[unit] = 0.0
        return self._turn(asks, [], [], [])

    def begin_row(self, row: int, turn: Turn) -> bool:
        """Begins an environment's next episode in the middle of the last one."""
        self._begin_episode(row)
        self._put_together([])
        self._reward[row] = 0.0
        return True

    def discard(self, unit: int) -> None:
        """Closes an environment."""
        env, self._envs[unit] = self._envs[unit], None
        self._asks[unit] = False
        if env is not None:
            with suppress(Exception):  # it may be broken, which has been told
                env.close()

    def step(self, continuous: Float32, discrete: Int32, is_running: Sequence[bool]) -> Turn:
        """Makes one env_step in all environments that are running."""
        write, rows, seen = self._observations.write, self._columns.rows, self._seen
        is_vector = self._is_vector
        rewards = [0.0] * len(rows)
        ended: list[int] = []
        truncations: list[bool] = []
        failures: list[Failure] = []
        for index, action in enumerate(self._actions.decode_own(continuous, discrete)):
            env = self._envs[index]
            if env is None or not is_running[index]:
                continue
            try:
                obs, reward, terminated, truncated, info = env.step(action)
                if info and "stats" in info:
                    self._count(info["stats"])
                if terminated or truncated:
                    write(obs, self._final.rows[index])
                    self._final_reward[index] = reward
                    self._begin_episode(index)
                    ended.append(index)
                    truncations.append(not terminated)
                    continue
                if is_vector:
                    seen[index] = obs
                else:
                    write(obs, rows[index])
                if self._has_masks or MASK_KEY in info:
                    self._write_mask(index, info)
                rewards[index] = reward
            except Exception as error:
                failures.append(Failure(index, error))
        self._put_together(failures)
        self._reward[:] = rewards
        return self._turn(self._asks.copy(), ended, truncations, failures)

    def _turn(
        self, asks: Bool, ended: list[int], truncations: list[bool], failures: list[Failure]
    ) -> Turn:
        turn = Turn(self._columns.read, self._reward, asks, np.array(ended, np.int64))
        turn.action_mask, turn.failures = self._mask, failures
        if ended:
            turn.final_obs = self._final.taken(ended)
            turn.final_reward = self._final_reward[ended]
            turn.truncated = np.array(truncations, np.bool_)
        if self._stats:
            turn.stats = tuple(self._stats)
            self._stats.clear()
        return turn

    def _count(self, stats: Mapping[str, Any]) -> None:
        self._stats += [
            StatsMessage(key, float(value), StatsAggregation.AVERAGE)
            for key, value in stats.items()
        ]

    def _begin_episode(self, index: int, seed: int | None = None) -> None:
        """Resets an environment with the parameters that it should have by now."""
        env = self._envs[index]
        assert env is not None
        self._parameters.apply(index)
        obs, info = env.reset(seed=seed)
        if self._has_masks is None:
            self._has_masks = self._masks.are_given([info], index)
        if self._is_vector:
            self._seen[index] = obs
        else:
            self._observations.write(obs, self._columns.rows[index])
        self._write_mask(index, info)

    def _write_mask(self, index: int, info: Mapping[str, Any]) -> None:
        if not self._has_masks:
            require_no_late_mask(info)
            return
        if self._mask is None:
            raise BadDataError(
                f"info[{MASK_KEY!r}] came, but no action has branches. Leave it out."
            )
        self._mask[index] = ~self._masks.forbidden(index, info)

    def _put_together(self, failures: list[Failure]) -> None:
        """Writes all vectors at once; where one does not fit, all of them by themselves."""
        if not self._is_vector:
            return
        column = self._columns.written[0]
        try:
            together = np.asarray(self._seen)
        except ValueError:  # of different shapes
            together = np.zeros(0)
        if together.shape == column.shape:
            column[...] = together
            return
        for index, obs in enumerate(self._seen):
            try:
                self._observations.write(obs, self._columns.rows[index])
            except BadDataError as error:
                self._seen[index] = column[index].copy()
                if not any(failure.unit == index for failure in failures):
                    failures.append(Failure(index, error))
