"""Environments in the trainer's own process, behind the interface of the fleet.

No socket, no bytes: what an environment says goes to the step log as columns. K environments step
together, as one simulator (number 0) with K agents. One that raises loses only its own episode: it
is built anew within the limits that simulators have, while the others go on. What hangs cannot be
interrupted here, and a crash below Python ends the run: simulators of their own survive both.

Letters: K environments and agents, N of them that ask for a decision, E whose episode is over,
C continuous action size, L sum of branch sizes.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from envs.batch import Actions, Bool, Decisions, Float32, Int64, Observations, Terminals
from envs.bridge import restarts
from envs.bridge.assignments import Assignment
from envs.bridge.bad_numbers import DroppedEpisode, words_for_bad
from envs.bridge.side_channels import Sampler
from envs.bridge.simulator import FleetPlan
from envs.bridge.simulator_message import SimulatorMessage
from envs.errors import BadDataError, SimulatorClosedError, SimulatorCrashedError, SimulatorError
from envs.in_process.copies import Copies, Failure, Turn
from envs.simulators import SimulatorLoss
from envs.spec import parse_behavior_id

SIMULATOR = 0  # the number of the only one
FIRST_AGENT_ID = 1
UNHEARD_STEPS = 1000  # in a row; as for simulators of their own
SHOWN_FRAMES = 8  # of a traceback, the innermost


@dataclass(slots=True)
class _Life:
    """What has become of a unit; for `restarts`."""

    num_restarts: int = 0
    restart_times: list[float] = field(default_factory=list)
    num_bad_episodes: int = 0
    is_lost: bool = False
    deadline: float = 0.0  # of one that rests


class InProcessFleet:
    """Implements `Simulators` with environments in this process.

    Args:
        plan: what the fleet has to know; ports, logs and timeouts mean nothing here.
        copies: the K environments.
    """

    def __init__(self, plan: FleetPlan, copies: Copies) -> None:
        self.codec_seconds = 0.0
        self._plan = plan
        self._copies = copies
        self._name = parse_behavior_id(copies.behavior_id).name
        self._num_rows = copies.units[-1].stop
        self._lives = [_Life() for _ in copies.units]
        self._running = [False] * len(copies.units)
        self._unit_of = np.repeat(
            np.arange(len(copies.units)), [rows.stop - rows.start for rows in copies.units]
        )
        self._seed = plan.seed
        self._is_known = False  # the trainer has got the behaviour's spec
        self._is_closed = False
        self._has_begun = False
        self._last_error: SimulatorError | None = None
        self._losses: list[SimulatorLoss] = []
        # Row k has lane k and lane K + k by turns, so that none is used again before its next end.
        self._lane = np.arange(self._num_rows, dtype=np.int64)
        self._has_lane = np.zeros(self._num_rows, np.bool_)  # the trainer knows the agent
        self._have_all_lanes = False
        self._agent_id = np.zeros(self._num_rows, np.int32)
        self._next_agent_id = FIRST_AGENT_ID
        self._is_ignored = np.zeros(self._num_rows, np.bool_)  # until the episode is over
        self._num_unheard = 0  # env_steps in a row in which nobody counted
        self._asks: Bool | None = None  # (K,) who waits for the answer; None = nobody
        actions = copies.spec.action_spec
        self._continuous = np.zeros((self._num_rows, actions.continuous_size), np.float32)
        self._discrete = np.zeros((self._num_rows, actions.discrete_size), np.int32)
        self._zeros = np.zeros(self._num_rows, np.int32)  # simulator, team and group
        self._no_reward = np.zeros(self._num_rows, np.float32)
        for column in (self._zeros, self._no_reward):
            column.setflags(write=False)
        self.set_environment_parameters(plan.environment_parameters)

    def __enter__(self) -> Self:
        """Does nothing: environments are built with the first `recv`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the environments."""
        self._is_closed = True
        for unit in range(len(self._lives)):
            self._copies.discard(unit)

    @property
    def pids(self) -> list[int | None]:
        """None: there is no process but the trainer's."""
        return []

    @property
    def num_alive(self) -> int:
        """1, or 0 when all environments have been given up."""
        return int(any(not life.is_lost for life in self._lives))

    @property
    def num_restarts(self) -> int:
        """How often environments were built anew after a failure."""
        return sum(life.num_restarts for life in self._lives)

    def can_act(self, simulator: int) -> bool:
        """Nobody can: there is no round trip to save."""
        return False

    def assign(self, simulator: int, assignment: Assignment) -> None:
        """Raises RuntimeError, see `can_act`."""
        raise RuntimeError("environments in the trainer's process take no assignments")

    def most_steps(self, simulator: int) -> int:
        """Gives 1, see `can_act`."""
        return 1

    def set_environment_parameters(self, parameters: Mapping[str, float | Sampler]) -> None:
        """Gives all environment parameters, for the episodes that begin from now on."""
        self._parameters = dict(parameters)
        self._copies.set_parameters(self._parameters, self._seed)

    # ---- the walk of data -------------------------------------------------------------------

    def recv(self, timeout_s: float | None = None) -> list[SimulatorMessage | SimulatorLoss]:
        """Makes one env_step with the actions of `send`; see `Simulators.recv`.

        Waits only for environments that rest before they are built anew, and while the trainer has
        not answered.
        """
        if self._is_closed:
            raise SimulatorClosedError("The environments are closed.")
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._asks is not None:
                self._sleep(limit)
                return []
            message = self._advance()
            items: list[SimulatorMessage | SimulatorLoss] = [*self._losses]
            self._losses.clear()
            if message is not None:
                items.append(message)
            if items:
                return items
            if not self.num_alive:
                assert self._last_error is not None
                raise self._last_error
            if True in self._running:
                continue
            resting = [life.deadline for life in self._lives if not life.is_lost]
            first = min(resting)
            self._sleep(first if limit is None else min(first, limit))
            if limit is not None and time.monotonic() >= limit:
                return []

    def send(self, simulator: int, actions: Mapping[str, Actions]) -> None:
        """Takes the actions of the next env_step; see `Simulators.send`."""
        if self._asks is None:
            if self._has_begun:
                raise RuntimeError("no message of these environments waits for an answer")
            return  # they were begun anew since the message
        asks, self._asks = self._asks, None
        given = actions.get(self._copies.behavior_id)
        num_asked = int(np.count_nonzero(asks))
        if given is not None and len(given) != num_asked:
            raise ValueError(f"{len(given)} actions given to {num_asked} agents that wait")
        if given is not None and num_asked == self._num_rows:
            self._continuous, self._discrete = given.continuous, given.discrete
            return
        self._continuous = np.zeros_like(self._continuous)
        self._discrete = np.zeros_like(self._discrete)
        if given is not None:
            self._continuous[asks], self._discrete[asks] = given.continuous, given.discrete

    def relaunch(self, seed: int) -> dict[str, Int64]:
        """Builds all environments anew; see `Simulators.relaunch`."""
        self._seed, self._has_begun, self._asks = seed, False, None
        void = self._end_lanes(np.flatnonzero(self._has_lane))
        # As in a run that begins here: rollouts are in the order of lanes.
        self._lane = np.arange(self._num_rows, dtype=np.int64)
        self._next_agent_id = FIRST_AGENT_ID
        for unit, life in enumerate(self._lives):
            self._copies.discard(unit)
            self._running[unit] = False
            life.deadline = 0.0
        self._is_ignored[:] = False
        self.set_environment_parameters(self._parameters)
        return void

    def _advance(self) -> SimulatorMessage | None:
        """Makes one env_step; None: there is nothing to tell, but for losses."""
        turn = None
        if True in self._running:
            turn = self._copies.step(self._continuous, self._discrete, self._running)
            for failure in turn.failures:
                turn.asks[self._copies.units[failure.unit]] = False
                self._lose(failure)
        if False in self._running:
            now = time.monotonic()
            for unit, life in enumerate(self._lives):
                # Once more where the first reset fails at once, and so on within the limits.
                while not (self._running[unit] or life.is_lost) and now >= life.deadline:
                    turn = self._begin(unit, turn)
        self._has_begun = True
        if turn is None:
            return None
        terminals, dropped = self._sift(turn)
        asks = turn.asks & ~self._is_ignored if self._is_ignored.any() else turn.asks
        decisions = self._decisions(turn, asks)
        self._require_somebody(decisions is not None)
        if decisions is None and terminals is None and not dropped and not turn.stats:
            return None
        new = {} if self._is_known else {self._copies.behavior_id: self._copies.spec}
        self._is_known = True
        self._asks = asks
        name = self._copies.behavior_id
        return SimulatorMessage(
            SIMULATOR,
            new,
            {} if decisions is None else {name: decisions},
            {} if terminals is None else {name: terminals},
            turn.stats,
            tuple(dropped),
        )

    def _begin(self, unit: int, turn: Turn | None) -> Turn | None:
        """Begins a unit's first episodes; what the others have just said stays."""
        life, rows = self._lives[unit], self._copies.units[unit]
        seed = self._seed + life.num_restarts * len(self._lives)  # not the same failure once more
        try:
            begun = self._copies.begin(unit, seed)
        except Exception as error:
            self._lose(Failure(unit, error))
            return turn
        self._running[unit] = True
        self._is_ignored[rows] = False
        if turn is None:
            return begun
        # The columns are the same; who ended before this stays told.
        turn.obs, turn.reward, turn.action_mask = begun.obs, begun.reward, begun.action_mask
        turn.asks = turn.asks | begun.asks
        return turn

    def _decisions(self, turn: Turn, asks: Bool) -> Decisions | None:
        """Gives those that ask, with lanes and, where an episode begins, new ids."""
        which = None
        if not asks.all():
            (which,) = asks.nonzero()
            if not len(which):
                return None
        if not self._have_all_lanes:
            (begun,) = (asks & ~self._has_lane).nonzero()
            self._agent_id = self._agent_id.copy()  # messages hold the old one
            self._agent_id[begun] = range(self._next_agent_id, self._next_agent_id + len(begun))
            self._next_agent_id = (self._next_agent_id + len(begun)) % (2**31 - self._num_rows)
            self._has_lane[begun] = True
            self._have_all_lanes = bool(self._has_lane.all())
        if which is None:
            obs, reward, lane, agent_id = turn.obs, turn.reward, self._lane, self._agent_id
            mask = turn.action_mask
        else:
            obs = tuple(column[which] for column in turn.obs)
            reward, lane, agent_id = turn.reward[which], self._lane[which], self._agent_id[which]
            mask = None if turn.action_mask is None else turn.action_mask[which]
        zeros, no_reward = self._zeros[: len(reward)], self._no_reward[: len(reward)]
        return Decisions(
            obs=obs,
            reward=reward,
            lane=lane,
            agent_id=agent_id,
            simulator=zeros,
            team=zeros,
            group_id=zeros,
            group_reward=no_reward,
            action_mask=mask,
        )

    def _end_lanes(self, rows: Int64) -> dict[str, Int64]:
        """Ends the lanes of these rows and gives them."""
        lanes = self._lane[rows]
        self._lane = self._lane.copy()  # messages hold the old one
        self._lane[rows] = (lanes + self._num_rows) % (2 * self._num_rows)
        self._has_lane[rows] = False
        self._have_all_lanes = False
        return {self._name: lanes} if len(lanes) else {}

    # ---- what goes wrong --------------------------------------------------------------------

    def _sift(self, turn: Turn) -> tuple[Terminals | None, list[DroppedEpisode]]:
        """Ends the episodes that are over, and those in which numbers are not finite."""
        if not (len(turn.ended) or _is_bad(turn.obs, turn.reward)):
            return None, []
        dropped: list[DroppedEpisode] = []
        ended = turn.ended
        good = np.ones(len(ended), np.bool_)
        bad = _bad_rows(turn.final_obs, turn.final_reward) & ~self._is_ignored[ended]
        for place in np.flatnonzero(bad).tolist():
            good[place] = False
            obs = [column[place] for column in turn.final_obs]
            self._drop(int(ended[place]), obs, turn.final_reward[place], turn, dropped)
        heard = good & self._has_lane[ended] & ~self._is_ignored[ended]
        self._is_ignored[ended] = False
        terminals = self._terminals(turn, heard) if heard.any() else None
        bad = _bad_rows(turn.obs, turn.reward) & turn.asks & ~self._is_ignored
        for row in np.flatnonzero(bad).tolist():
            obs = [column[row] for column in turn.obs]
            if self._drop(row, obs, turn.reward[row], turn, dropped):
                is_new = self._copies.begin_row(row, turn)
                self._is_ignored[row] = not is_new
        return terminals, dropped

    def _terminals(self, turn: Turn, heard: Bool) -> Terminals:
        rows = turn.ended[heard]
        lanes, agent_id = self._lane[rows], self._agent_id[rows]
        self._end_lanes(rows)
        zeros = self._zeros[: len(rows)]
        return Terminals(
            obs=tuple(column[heard] for column in turn.final_obs),
            reward=turn.final_reward[heard],
            lane=lanes,
            agent_id=agent_id,
            simulator=zeros,
            team=zeros,
            group_id=zeros,
            group_reward=self._no_reward[: len(rows)],
            truncated=turn.truncated[heard],
        )

    def _drop(
        self,
        row: int,
        obs: Sequence[Observations],
        reward: np.float32,
        turn: Turn,
        dropped: list[DroppedEpisode],
    ) -> bool:
        """Drops an episode with bad numbers; False: there were too many, and its unit is lost."""
        unit = int(self._unit_of[row])
        life = self._lives[unit]
        if not self._running[unit]:  # another row of it was one too many
            turn.asks[row] = False
            return False
        agent_id = int(self._agent_id[row])
        names = [f"sensor {sensor.name!r}" for sensor in self._copies.spec.observation_specs]
        named = [*zip(names, obs, strict=True), ("the reward", np.asarray(reward))]
        words = words_for_bad(self._copies.behavior_id, agent_id, named)
        life.num_bad_episodes += 1
        if 0 <= self._plan.max_bad_episodes < life.num_bad_episodes:
            limit = f"{self._plan.max_bad_episodes} (env_settings.max_bad_episodes)"
            error = BadDataError(f"{words} Episodes dropped before it: {limit}.")
            turn.asks[self._copies.units[unit]] = False
            self._lose(Failure(unit, error))
            return False
        known = np.array([row] if self._has_lane[row] else [], np.int64)
        lanes = self._end_lanes(known).get(self._name, np.zeros(0, np.int64))
        dropped.append(DroppedEpisode(self._name, agent_id, words, lanes))
        return True

    def _require_somebody(self, has_decisions: bool) -> None:
        """Loses what has had nobody to hear for too long: ignored episodes that never end."""
        self._num_unheard = 0 if has_decisions else self._num_unheard + 1
        if self._num_unheard < UNHEARD_STEPS:
            return
        self._num_unheard = 0
        for unit in {int(self._unit_of[row]) for row in np.flatnonzero(self._is_ignored)}:
            words = (
                f"{UNHEARD_STEPS} env_steps in a row held only episodes that were dropped because "
                "of NaN or infinite numbers, and have not ended. Episodes that end (a time limit) "
                "would let them begin anew."
            )
            self._lose(Failure(unit, BadDataError(words)))

    def _lose(self, failure: Failure) -> None:
        """Ends a unit's life, and lets the next one begin within the limits."""
        unit, life = failure.unit, self._lives[failure.unit]
        rows = self._copies.units[unit]
        self._copies.discard(unit)
        self._running[unit] = False
        plan = self._plan
        refusal = restarts.refusal(life, plan, has_ever_connected=self._is_known)
        delay_s = restarts.delay_s(life, plan)
        if refusal is None:
            life.num_restarts += 1
            life.restart_times.append(time.monotonic())
            life.num_bad_episodes = 0
            life.deadline = time.monotonic() + delay_s if delay_s else 0.0
            limit = plan.max_lifetime_restarts
            wait = f" in {delay_s:g} s" if delay_s else ""
            of_limit = f" of {limit}" if limit >= 0 else ""
            outcome = f"It is built anew{wait} ({life.num_restarts}{of_limit})."
        else:
            life.is_lost = True
            left = sum(not other.is_lost for other in self._lives)
            outcome = f"Given up: {refusal}."
            outcome += f" Environments that go on: {left}." if left else ""
        assert plan.in_process is not None
        whole = len(self._lives) == 1
        which = f"{self._num_rows} environments" if whole else f"Environment {unit}"
        where = f"{which} ({plan.in_process.words}, in the trainer's process)"
        error = _loss_error(where, failure.error, outcome)
        self._last_error = error
        known = np.flatnonzero(self._has_lane[rows]) + rows.start
        self._losses.append(
            SimulatorLoss(SIMULATOR, self._end_lanes(known), error, will_restart=refusal is None)
        )

    def _sleep(self, until: float | None) -> None:
        """Sleeps; without a limit it would be for ever."""
        if until is None:
            raise RuntimeError("the environments wait for an answer: `send` comes first")
        time.sleep(max(0.0, until - time.monotonic()))


def _is_bad(obs: Sequence[Observations], reward: Float32) -> bool:
    """Whether any number is NaN or infinite."""
    if not np.isfinite(reward).all():
        return True
    return any(column.dtype == np.float32 and not np.isfinite(column).all() for column in obs)


def _bad_rows(obs: Sequence[Observations], reward: Float32) -> Bool:
    """(N,) True where a number is NaN or infinite."""
    bad: Bool = ~np.isfinite(reward)
    for column in obs:
        if column.dtype == np.float32:
            bad |= ~np.isfinite(column).reshape(len(bad), -1).all(axis=1)
    return bad


def _loss_error(where: str, error: Exception, outcome: str) -> SimulatorError:
    """Says what an environment did; what it raised comes with its traceback."""
    if isinstance(error, SimulatorError):
        what = f"gave bad data: {error}" if isinstance(error, BadDataError) else str(error)
        return type(error)(f"{where} {what}\n  {outcome}")
    # The innermost frames: the outer ones are ours.
    trace = "".join(traceback.format_exception(error, limit=-SHOWN_FRAMES)).rstrip()
    indented = trace.replace("\n", "\n  ")
    return SimulatorCrashedError(
        f"{where} raised {type(error).__name__}: {error}\n  {indented}\n  {outcome} "
        "Correct the environment."
    )
