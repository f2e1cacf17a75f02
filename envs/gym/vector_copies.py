"""Gymnasium's vector environments in the trainer's process: three autoreset modes, one meaning.

What an episode's end is called differs (`gymnasium.vector.AutoresetMode`):

- NEXT_STEP: the step that ends it shows its last observation, the next step ignores its action and
  shows the next episode's first one. The agent does not ask in between.
- SAME_STEP: the step that ends it shows the next episode's first observation already; the last one
  is in `infos["final_obs"]`.
- DISABLED: nothing happens by itself; ended environments are reset with `reset_mask`.

Here they all become: an end with the true last observation, then the next episode's first.

Letters: K environments, C continuous action size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from envs.batch import Bool, Float32, Int32
from envs.bridge.side_channels import Sampler, StatsAggregation, StatsMessage
from envs.errors import BadDataError, SimulatorDidNotStartError
from envs.gym.agent import env_seed
from envs.gym.masks import MASK_KEY, ActionMasks
from envs.gym.own_copies import Columns, spec_of
from envs.gym.spaces import ActionLayout, ObservationLayout
from envs.in_process.copies import Failure, Turn

Vector: TypeAlias = VectorEnv[Any, Any, Any]
FINAL_OBS = "final_obs"


class VectorCopies:
    """Implements `Copies` with one vector environment, which is one unit.

    Args:
        env: the environment.
        build: gives a new one.
        behavior_id: of all.
        where: begins messages.
    """

    def __init__(
        self, env: Vector, build: Callable[[], Vector], behavior_id: str, where: str
    ) -> None:
        self.behavior_id = behavior_id
        self.units: Sequence[slice] = [slice(0, env.num_envs)]
        self._build = build
        self._env: Vector | None = env
        self._mode = _mode_of(env, where)
        self._num_envs = env.num_envs
        self._observations = ObservationLayout(env.single_observation_space)
        self._actions = ActionLayout(env.single_action_space)
        self._action_space = env.single_action_space
        self.spec = spec_of(self._observations, self._actions)
        self._columns = Columns(self._observations, env.num_envs)
        self._final = Columns(self._observations, env.num_envs)
        self._everybody = np.ones(env.num_envs, np.bool_)
        self._over = np.zeros(env.num_envs, np.bool_)  # NEXT_STEP: their next step is their reset
        self._masks = ActionMasks([None] * env.num_envs, self._actions.branches)
        self._has_masks = False
        self._mask: Bool | None = None
        if self._actions.branches:
            self._mask = np.ones((env.num_envs, sum(self._actions.branches)), np.bool_)

    def set_parameters(self, parameters: Mapping[str, float | Sampler], seed: int) -> None:
        """Raises SimulatorDidNotStartError where there are any: nothing would take them."""
        if parameters:
            raise SimulatorDidNotStartError(
                f"environment_parameters has {', '.join(sorted(parameters))}, and vector "
                f"environments take none. Leave them out, or run single environments in simulator "
                f"processes: --num-envs 1."
            )

    def begin(self, unit: int, seed: int) -> Turn:
        """Begins the first episodes of all environments; builds them unless that was done."""
        if self._env is None:
            self._env = self._build()
        obs, infos = self._env.reset(seed=env_seed(seed, 0))
        self._over[:] = False
        self._has_masks = MASK_KEY in infos
        self._observations.write_all(obs, self._columns.written, range(self._num_envs))
        self._write_masks(infos, self._everybody)
        return self._turn(np.zeros(self._num_envs, np.float32), self._everybody.copy())

    def begin_row(self, row: int, turn: Turn) -> bool:
        """Gives False: all environments step together."""
        return False

    def discard(self, unit: int) -> None:
        """Closes the environments."""
        env, self._env = self._env, None
        if env is not None:
            with suppress(Exception):  # it may be broken, which has been told
                env.close()

    def step(self, continuous: Float32, discrete: Int32, is_running: Sequence[bool]) -> Turn:
        """Makes one env_step everywhere."""
        actions = self._batched(self._actions.decode_own(continuous, discrete))
        try:
            return self._step(actions)
        except Exception as error:
            nobody = np.zeros(self._num_envs, np.bool_)
            turn = self._turn(np.zeros(self._num_envs, np.float32), nobody)
            turn.failures = [Failure(0, error)]
            return turn

    def _step(self, actions: Any) -> Turn:
        assert self._env is not None
        obs, rewards, terminated, truncated, infos = self._env.step(actions)
        reward = np.array(rewards, np.float32)  # a copy: (K,)
        over = np.asarray(terminated) | np.asarray(truncated)
        if over.shape != (self._num_envs,) or reward.shape != over.shape:
            raise BadDataError(
                f"the vector environment gave rewards of shape {reward.shape} and ends of shape "
                f"{over.shape}; expected ({self._num_envs},), one per environment."
            )
        began = self._over
        if began.any():  # NEXT_STEP: what they say of this step is about no decision
            over &= ~began
            reward[began] = 0.0
        everybody = range(self._num_envs)
        self._observations.write_all(obs, self._columns.written, everybody)
        asks = ~over
        if self._mode is AutoresetMode.NEXT_STEP:
            self._over = over
        turn = self._turn(reward, asks)
        turn.stats = _stats_of(infos) if infos else ()
        if over.any():
            ended = np.flatnonzero(over)
            turn.ended = ended
            turn.final_reward = reward[ended]
            turn.truncated = ~np.asarray(terminated)[ended]
            infos = self._end(turn, infos, over)
        if self._mask is not None:
            self._write_masks(infos, turn.asks)
        return turn

    def _end(self, turn: Turn, infos: Mapping[str, Any], over: Bool) -> Mapping[str, Any]:
        """Fills in the last observations, and lets the next episodes begin as the mode has it.

        Returns:
            The infos that tell of the decisions that are asked now.
        """
        rows = turn.ended.tolist()
        if self._mode is AutoresetMode.SAME_STEP:
            if FINAL_OBS not in infos:
                raise BadDataError(
                    f"episodes ended, and infos has no {FINAL_OBS!r}, as autoreset mode SAME_STEP "
                    f"demands; it has {', '.join(sorted(infos)) or 'nothing'}."
                )
            for row in rows:
                self._observations.write(infos[FINAL_OBS][row], self._final.rows[row])
            turn.final_obs = self._final.taken(rows)
        else:
            turn.final_obs = self._columns.taken(rows)
        if self._mode is AutoresetMode.NEXT_STEP:
            return infos
        if self._mode is AutoresetMode.DISABLED:
            assert self._env is not None
            obs, infos = self._env.reset(options={"reset_mask": over.copy()})
            self._observations.write_all(obs, self._columns.written, rows)
        turn.reward[over] = 0.0
        turn.asks[over] = True
        return infos

    def _turn(self, reward: Float32, asks: Bool) -> Turn:
        nobody = np.zeros(0, np.int64)
        return Turn(self._columns.read, reward, asks, nobody, action_mask=self._mask)

    def _batched(self, actions: Sequence[Any]) -> Any:
        space = self._action_space
        if isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
            return np.array(actions, space.dtype)
        return concatenate(space, actions, create_empty_array(space, len(actions)))

    def _write_masks(self, infos: Mapping[str, Any], rows: Bool) -> None:
        if not self._has_masks or self._mask is None:
            return
        if MASK_KEY not in infos:
            raise BadDataError(
                f"infos has no {MASK_KEY!r}, which it has had before. Expected it from every reset "
                f"and step."
            )
        for row in np.flatnonzero(rows).tolist():
            of_row = {MASK_KEY: infos[MASK_KEY][row]}
            self._mask[row] = ~self._masks.forbidden(row, of_row)


def _mode_of(env: Vector, where: str) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise SimulatorDidNotStartError(
            f"{where}: metadata['autoreset_mode'] of {type(env).__name__} is {mode!r}, expected a "
            f"gymnasium.vector.AutoresetMode, which says what follows an episode's end. Set it in "
            f"the class."
        ) from None


def _stats_of(infos: Mapping[str, Any]) -> tuple[StatsMessage, ...]:
    """Reads infos["stats"]: numbers to report by name, each (K,) with who said it under _name."""
    stats = infos.get("stats")
    if not stats:
        return ()
    found = []
    for key, values in stats.items():
        if key.startswith("_"):
            continue
        said = stats.get(f"_{key}", np.ones(len(values), np.bool_))
        found += [
            StatsMessage(key, float(value), StatsAggregation.AVERAGE)
            for value in np.asarray(values)[said].tolist()
        ]
    return tuple(found)
