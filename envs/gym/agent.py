"""Serves K copies of a Gymnasium environment to a trainer, as K agents of one behaviour.

To the trainer this is a Unity build: every env_step is one Exchange that holds all K agents. An
agent whose episode is over is in it twice: with its old id and last observation, and with a new id
and the first observation of its next episode.

Letters: K environments and agents, C continuous action size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.batch import Float32, Int32, Observations
from envs.bridge.assignments import Assignment
from envs.bridge.client import (
    PlayedStep,
    Request,
    TrainerConnection,
    Welcome,
    brain,
    played_message,
    step_message,
)
from envs.bridge.client_channels import draw, read_environment_parameters, write_stats
from envs.bridge.records import FIRST_AGENT_ID, LAST_AGENT_ID, AgentRecords
from envs.bridge.side_channels import Sampler, StatsAggregation, StatsMessage
from envs.errors import SimulatorError, UnsupportedSpaceError
from envs.gym.make import Env
from envs.gym.masks import MASK_KEY, ActionMasks, require_no_late_mask
from envs.gym.own_policy import OwnPolicy
from envs.gym.spaces import ActionLayout, ObservationLayout

log = logging.getLogger(__name__)

# Environments of one simulator are seeded apart by 1, simulators by this much.
SEEDS_PER_SIMULATOR = 1000
LARGEST_SEED = 2**31 - 1  # some environments take no larger one


def env_seed(simulator_seed: int, index: int) -> int:
    """Gives the seed of a simulator's `index`-th environment."""
    return (simulator_seed * SEEDS_PER_SIMULATOR + index) & LARGEST_SEED


def layouts_of(env: Env) -> tuple[ObservationLayout, ActionLayout]:
    """Gives how an environment's spaces become sensors and actions.

    Raises:
        UnsupportedSpaceError: one of the spaces cannot, or is empty.
    """
    observations, actions = ObservationLayout(env.observation_space), ActionLayout(env.action_space)
    if not observations.sensors or not (actions.num_continuous or actions.branches):
        raise UnsupportedSpaceError(
            f"The environment observes {env.observation_space} and acts with {env.action_space}; "
            f"one of them is empty. An agent needs both."
        )
    return observations, actions


class Parameters:
    """Environment parameters the trainer has sent, applied to an environment before it resets.

    An environment takes them by a method `set_parameters(parameters: dict[str, float])`.
    """

    def __init__(self, envs: Sequence[Env], seed: int) -> None:
        self._setters: list[Callable[[dict[str, float]], object] | None] = [
            env.get_wrapper_attr("set_parameters")
            if env.has_wrapper_attr("set_parameters")
            else None
            for env in envs
        ]
        self._seed = seed
        self._values: dict[str, float | Sampler] = {}
        self._generators: dict[str, np.random.Generator] = {}
        self._is_outdated = [False] * len(envs)
        self._has_warned = False

    def replace(self, index: int, env: Env) -> None:
        """Hands an environment that was built anew everything before its first reset."""
        has_setter = env.has_wrapper_attr("set_parameters")
        self._setters[index] = env.get_wrapper_attr("set_parameters") if has_setter else None
        self._is_outdated[index] = bool(self._values)

    def receive(self, values: Mapping[str, float | Sampler]) -> None:
        """Takes what the trainer sent; every environment gets it at its next reset."""
        if not values:
            return
        if self._setters[0] is None:
            if not self._has_warned:
                log.info(
                    "environment parameters %s are ignored: the environment has no method "
                    "set_parameters(dict)",
                    ", ".join(sorted(values)),
                )
                self._has_warned = True
            return
        for key, value in values.items():
            # A sampler that is sent again goes on; only another one starts from its seed.
            if isinstance(value, Sampler) and value != self._values.get(key):
                self._generators[key] = np.random.default_rng(
                    [value.seed & LARGEST_SEED, self._seed & LARGEST_SEED]
                )
            self._values[key] = value
        self._is_outdated = [True] * len(self._is_outdated)

    def apply(self, index: int) -> None:
        """Hands the parameters to one environment that is about to reset, if there is news."""
        has_samplers = any(isinstance(value, Sampler) for value in self._values.values())
        setter = self._setters[index]
        if setter is None or not (self._is_outdated[index] or has_samplers):
            return
        self._is_outdated[index] = False
        setter(
            {
                key: draw(value, self._generators[key]) if isinstance(value, Sampler) else value
                for key, value in self._values.items()
            }
        )


class GymSimulator:
    """K environments, stepped in lockstep; rows of all agents are ready to send after each call.

    Args:
        envs: the environments.
        behavior_name: without the team.
        seed: the trainer's, for this simulator.
        has_channels_last: whether the trainer wants images as (H, W, C).
    """

    def __init__(
        self,
        envs: Sequence[Env],
        behavior_name: str,
        seed: int,
        *,
        has_channels_last: bool = False,
    ) -> None:
        self._envs = list(envs)
        self._behavior_id = f"{behavior_name}?team=0"
        self._seed = seed
        self._observations, self._actions = layouts_of(envs[0])
        self._parameters = Parameters(envs, seed)
        self._masks = ActionMasks(envs, self._actions.branches)
        self._has_masks = False
        self._sensors = [
            sensor.spec(has_channels_last=has_channels_last)
            for sensor in self._observations.sensors
        ]
        self._agent_ids = [0] * len(envs)
        self._next_agent_id = FIRST_AGENT_ID
        self._num_rows = 0
        self._stats: list[StatsMessage] = []
        self._is_known = False  # the trainer has got our brain parameters
        self._policy: OwnPolicy | None = None  # once the trainer has assigned something

    @property
    def has_begun(self) -> bool:
        """Whether agents wait for actions, which is so after the first reset."""
        return self._num_rows > 0

    def receive_parameters(self, side_channel: bytes) -> None:
        """Takes the environment parameters out of a request's side channel data."""
        if side_channel:
            self._parameters.receive(read_environment_parameters(side_channel))

    def reset(self) -> None:
        """Begins a new episode everywhere; the old ones are dropped without a word."""
        beginnings = []
        for index in range(len(self._envs)):
            # Seeds are given once; afterwards each environment's own generator goes on.
            seed = None if self.has_begun else env_seed(self._seed, index)
            beginnings.append(self._restart(index, seed))
        if not self.has_begun:
            self._has_masks = self._masks.are_given([info for _, info in beginnings])
            self._build_rows()
        for index, (obs, info) in enumerate(beginnings):
            self._begin_episode(index, obs, info)
        self._records.reward[: len(self._envs)] = 0.0
        self._num_rows = len(self._envs)
        self._stats.clear()

    def _build_rows(self) -> None:
        """Builds the rows of all agents, now that it is known whether they have masks."""
        num_envs = len(self._envs)
        num_masked = sum(self._actions.branches) if self._has_masks else 0
        # The first K rows are decisions, row k of environment k; behind them, ends of episodes.
        self._records = AgentRecords(self._sensors, 2 * num_envs, num_masked)
        self._obs_rows = [
            tuple(column[row] for column in self._records.obs) for row in range(2 * num_envs)
        ]
        self._records.done[num_envs:] = 1

    def step(self, request: Request) -> None:
        """Makes one env_step everywhere with the actions of `request`."""
        layout = self._actions
        self._advance(
            *request.actions(
                self._behavior_id, len(self._envs), layout.num_continuous, len(layout.branches)
            )
        )

    def play(self, assignment: Assignment) -> bytes:
        """Makes the env_steps of an assignment; gives all that there is to tell of them."""
        if self._policy is None:
            self._policy = OwnPolicy(self._behavior_id, self._sensors, self._seed)
        self._policy.take(assignment)
        steps = []
        for _ in range(assignment.num_steps):
            obs, forbidden = self._decisions()
            choices = self._policy.act(obs, forbidden, assignment.deterministic)
            actions = choices.actions()
            self._advance(actions.continuous, actions.discrete)
            agents = self._records.rows(self._num_rows)
            steps.append(PlayedStep(choices, agents, self._take_stats()))
        return played_message(self._behavior_id, steps)

    def _decisions(self) -> tuple[list[Observations], NDArray[np.uint8] | None]:
        """Gives what the K agents that wait see, and, with branches, what they must not do."""
        num_envs = len(self._envs)
        obs = [column[:num_envs] for column in self._records.obs]
        if not self._actions.branches:
            return obs, None
        if self._has_masks:
            return obs, self._records.forbidden[:num_envs]
        return obs, np.zeros((num_envs, sum(self._actions.branches)), np.uint8)

    def _advance(self, continuous: Float32, discrete: Int32) -> None:
        """Makes one env_step everywhere; (K, C) in -1..1, (K, branches)."""
        num_envs = len(self._envs)
        write, rows = self._observations.write, self._obs_rows
        rewards: list[Any] = [0.0] * num_envs
        self._num_rows = num_envs
        for index, action in enumerate(self._actions.decode(continuous, discrete)):
            obs, reward, terminated, truncated, info = self._envs[index].step(action)
            if "stats" in info:
                self._stats += [
                    StatsMessage(key, float(value), StatsAggregation.AVERAGE)
                    for key, value in info["stats"].items()
                ]
            if terminated or truncated:
                self._end_episode(index, obs, float(reward), is_truncated=not terminated)
            else:
                write(obs, rows[index])
                if self._has_masks or MASK_KEY in info:
                    self._write_mask(index, info)
                rewards[index] = reward
        self._records.reward[:num_envs] = rewards

    def message(self) -> bytes:
        """Gives what there is to tell after a reset or step, as bytes of the protocol."""
        brains = []
        if not self._is_known:
            layout = self._actions
            brains = [brain(self._behavior_id, layout.num_continuous, layout.branches)]
            self._is_known = True
        agents = {self._behavior_id: self._records.rows(self._num_rows)}
        return step_message(agents, self._take_stats(), brains)

    def _take_stats(self) -> bytes:
        if not self._stats:
            return b""
        stats = write_stats(self._stats)
        self._stats.clear()
        return stats

    def close(self) -> None:
        """Closes all environments."""
        for env in self._envs:
            env.close()

    def _write_mask(self, index: int, info: Mapping[str, Any]) -> None:
        if self._has_masks:
            self._records.forbidden[index] = self._masks.forbidden(index, info)
        else:
            require_no_late_mask(info)

    def _restart(self, index: int, seed: int | None = None) -> tuple[Any, Mapping[str, Any]]:
        """Resets an environment with the parameters that it should have by now."""
        self._parameters.apply(index)
        obs, info = self._envs[index].reset(seed=seed)
        return obs, info

    def _begin_episode(self, index: int, obs: Any, info: Mapping[str, Any]) -> None:
        """Writes an episode's first decision, with a new agent id."""
        self._observations.write(obs, self._obs_rows[index])
        self._write_mask(index, info)
        self._agent_ids[index] = self._next_agent_id
        self._records.set_agent_id(index, self._next_agent_id)
        is_last = self._next_agent_id == LAST_AGENT_ID
        self._next_agent_id = FIRST_AGENT_ID if is_last else self._next_agent_id + 1

    def _end_episode(self, index: int, obs: Any, reward: float, *, is_truncated: bool) -> None:
        """Adds the row that ends an agent's episode, then begins its next one."""
        row = self._num_rows
        self._num_rows += 1
        self._observations.write(obs, self._obs_rows[row])
        self._records.reward[row] = reward
        self._records.truncated[row] = is_truncated
        self._records.set_agent_id(row, self._agent_ids[index])
        self._begin_episode(index, *self._restart(index))


def serve(connection: TrainerConnection, build: Callable[[Welcome], GymSimulator]) -> None:
    """Answers the trainer until it closes.

    Args:
        connection: to a trainer that has not been greeted yet.
        build: makes the simulator once the trainer's seed and number of areas are known.

    Raises:
        TrainerClosedError: always in the end; the trainer said goodbye or is gone.
        SimulatorError: the environment or the trainer broke the rules.
    """
    simulator = build(connection.hello(can_act=True))
    try:
        request = connection.first_request()
        while True:
            simulator.receive_parameters(request.side_channel)
            if request.assignment is not None:
                request = connection.request(simulator.play(request.assignment))
                continue
            if request.is_reset or not simulator.has_begun:
                simulator.reset()
            else:
                simulator.step(request)
            request = connection.request(simulator.message())
    finally:
        simulator.close()


def require_equal_spaces(envs: Sequence[Env]) -> None:
    """Raises SimulatorError unless all environments have the spaces of the first."""
    for index, env in enumerate(envs):
        for kind in ("observation_space", "action_space"):
            found, expected = getattr(env, kind), getattr(envs[0], kind)
            if found != expected:
                raise SimulatorError(
                    f"Environment {index} has the {kind} {found}, but environment 0 has "
                    f"{expected}. Copies of one environment need equal spaces: build it without "
                    f"chance, or train them as different behaviours."
                )
