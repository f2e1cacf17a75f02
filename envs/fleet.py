"""Many simulators as one: `recv` gives whatever is ready, `send` answers it.

The fleet never waits for the slowest simulator (but with `lockstep`), and a simulator that dies
takes only its own unfinished episodes with it: it is started again within limits, or given up, and
the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from queue import Empty
from typing import Self

import numpy as np

from envs.batch import Actions, Int64
from envs.bridge import causes, restarts
from envs.bridge.assignments import Assignment
from envs.bridge.bad_numbers import DroppedEpisode
from envs.bridge.causes import Cause
from envs.bridge.event_loop import EventLoop, TimedEventLoop
from envs.bridge.launcher import LaunchPlan
from envs.bridge.server import Call, ConnectionLost
from envs.bridge.session import Phase
from envs.bridge.side_channels import (
    EngineConfiguration,
    Sampler,
    SamplerKind,
    StatsAggregation,
    StatsMessage,
)
from envs.bridge.simulator import EDITOR_PORT, Event, FleetPlan, ProcessEnded, Simulator, State
from envs.bridge.simulator_message import SimulatorMessage
from envs.errors import (
    BadDataError,
    SimulatorClosedError,
    SimulatorDidNotStartError,
    SimulatorError,
)
from envs.lanes import LaneTable
from envs.simulators import SimulatorLoss
from envs.spec import BehaviorSpec, parse_behavior_id

__all__ = [
    "EDITOR_PORT",
    "Assignment",
    "DroppedEpisode",
    "EngineConfiguration",
    "Fleet",
    "FleetPlan",
    "LaunchPlan",
    "Sampler",
    "SamplerKind",
    "SimulatorLoss",
    "SimulatorMessage",
    "StatsAggregation",
    "StatsMessage",
]

# A broken connection comes moments before the end of the process, whose exit code tells more.
EXIT_CODE_WAIT_S = 1.0
# Unity needs some seconds to quit; what still runs after this is killed.
CLOSE_WAIT_S = 10.0
GOODBYE_GRACE_S = 1.0
GOODBYE_POLL_S = 0.05
AWAITED = (State.RUNNING, State.RESTING)  # the fleet's next turn is at the deadline at the latest
SEEDS_PER_LIFE = 100_003  # apart from every simulator of the fleet: there are fewer ports


def _sentence(words: str) -> str:
    """Ends words with a full stop, unless they end like a sentence already."""
    return words if words.endswith((".", "?", "!")) else f"{words}."


class Fleet:
    """All simulators of a run. Use it as a context manager: leaving it ends the simulators.

    All methods belong to one thread; only `recv` and `close` wait.
    """

    def __init__(self, plan: FleetPlan) -> None:
        self._plan = plan
        self._loop: EventLoop[Event] = EventLoop() if plan.door is None else TimedEventLoop()
        self._lanes = LaneTable()
        self._simulators: list[Simulator] = []
        self._parameters = dict(plan.environment_parameters)
        self._losses: dict[int, SimulatorLoss] = {}  # not yet delivered
        self._ready: dict[int, None] = {}  # simulators with a message, in order of arrival
        self._specs: dict[str, BehaviorSpec] = {}  # by behaviour name
        self._last_error: SimulatorError | None = None
        self._has_ever_connected = False
        self._next_look_s = 0.0  # when the first deadline of a simulator may be over
        self.codec_seconds = 0.0  # spent so far on decoding in `recv` and on encoding in `send`

    def __enter__(self) -> Self:
        """Starts the fleet."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the fleet."""
        self.close()

    @property
    def ports(self) -> list[int]:
        """The port of each simulator."""
        return [simulator.port for simulator in self._simulators]

    @property
    def pids(self) -> list[int | None]:
        """The process of each simulator; None for the Editor."""
        return [simulator.pid for simulator in self._simulators]

    @property
    def num_alive(self) -> int:
        """How many simulators have not been given up."""
        return len(self.alive)

    @property
    def alive(self) -> list[int]:
        """The numbers of simulators that have not been given up or dismissed, lowest first."""
        return [s.number for s in self._simulators if s.state is not State.LOST]

    @property
    def num_restarts(self) -> int:
        """How often simulators were started again after a loss."""
        return sum(simulator.num_restarts for simulator in self._simulators)

    def start(self) -> None:
        """Listens, launches, and returns without waiting for the simulators; once only.

        Raises:
            SimulatorDidNotStartError: a port is in use, or the program cannot be executed.
        """
        if self._simulators:
            return
        try:
            for number in range(self._plan.num_simulators):
                simulator = Simulator(number, self._plan, self._lanes, self._loop)
                self._simulators.append(simulator)
                simulator.announce(self._parameters)
            for simulator in self._simulators:
                simulator.launch()
        except SimulatorError:
            self.close()
            raise

    def recv(self, timeout_s: float | None = None) -> list[SimulatorMessage | SimulatorLoss]:
        """Waits until a simulator has news, then gives all that is ready, one per simulator.

        With `lockstep` it waits for all simulators and gives their messages in order of number.
        A lane that ends in one result is not used again before the next call.

        Args:
            timeout_s: None = wait as long as it takes.

        Returns:
            Messages, each to be answered with `send`, and losses; [] when the time is over.

        Raises:
            SimulatorError: no simulator is left, and all losses have been delivered.
        """
        if not self._simulators:
            raise self._nobody_left()
        self._lanes.recycle()
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._drain()
            items = self._deliverable()
            if items:
                return items
            if not self.num_alive:
                raise self._nobody_left()
            until = self._next_look_s if limit is None else min(limit, self._next_look_s)
            now = time.monotonic()
            if limit is not None and now >= limit:
                return []
            try:
                self._handle(self._loop.wait(None if until == inf else max(0.0, until - now)))
            except Empty:
                continue

    def send(self, simulator: int, actions: Mapping[str, Actions]) -> None:
        """Answers a simulator's delivered message; never blocks.

        Args:
            simulator: its number.
            actions: by behaviour id, row for row as the message's decisions. Agents of a behaviour
                that is missing get zero actions.

        Does nothing when the simulator has been lost or reset since its message.
        """
        self._answer(self._simulators[simulator], lambda target: target.encode(actions))

    def assign(self, simulator: int, assignment: Assignment) -> None:
        """Answers a delivered message of a simulator that `can_act`, as `send` does."""
        target = self._simulators[simulator]
        self._answer(target, lambda target: target.encode_assignment(assignment))

    def most_steps(self, simulator: int) -> int:
        """How many env_steps a simulator that waits for an assignment may get."""
        return max(1, self._simulators[simulator].session.most_steps)

    def can_act(self, simulator: int) -> bool:
        """Whether a simulator can be given a policy, to act for itself."""
        return self._simulators[simulator].session.can_act

    def _answer(self, target: Simulator, encode: Callable[[Simulator], bytes]) -> None:
        if target.state is State.WAITING:
            started = time.perf_counter()
            encoded = encode(target)
            self.codec_seconds += time.perf_counter() - started
            target.answer(encoded)
            return
        is_gone = target.state in (State.LOST, State.RESTING) or target.has_hung_up
        is_new = target.session.phase is not Phase.STEPPING
        if not (is_gone or is_new or target.was_answered_by_reset):
            raise RuntimeError(f"{target.name} has no message that waits for an answer")
        target.was_answered_by_reset = False

    def reset(self) -> dict[str, Int64]:
        """Makes every simulator begin all episodes anew.

        Those that wait for an answer get the reset instead, the others with their next message,
        whose agents are dropped. Give no more actions for messages received before.

        Returns:
            The lanes that are void from now on, by behaviour name, those of losses that come with
            the next `recv` included.
        """
        for simulator in self._simulators:
            self._ready.pop(simulator.number, None)
            if simulator.state is not State.LOST:
                simulator.announce(self._parameters)
                try:
                    simulator.reset()
                except SimulatorError as error:
                    self._lose(simulator, causes.of_words(error))
        return self._end_all_lanes()

    def relaunch(self, seed: int) -> dict[str, Int64]:
        """Ends all simulators and starts them again, simulator i with the seed `seed` + i.

        Those that have been given up stay so. Losses not delivered yet come with the next `recv`.

        Returns:
            The lanes that are void from now on, by behaviour name, those of these losses included.

        Raises:
            RuntimeError: the simulator is the Unity Editor, which is not ours to start.
            SimulatorDidNotStartError: the program cannot be executed any more.
        """
        if self._plan.launch is None:
            raise RuntimeError("the Unity Editor cannot be started again by the trainer")
        self._ready.clear()
        void = self._end_all_lanes()
        for simulator in self._simulators:
            if simulator.state is State.LOST:
                continue
            simulator.discard()
            simulator.seed = (seed + simulator.number) % 2**31
            simulator.announce(self._parameters)
            simulator.launch()
        return void

    def add(self) -> int:
        """Starts one simulator more, and gives its number, which no other has had.

        Raises:
            SimulatorDidNotStartError: a port is in use, or the program cannot be executed.
        """
        simulator = Simulator(len(self._simulators), self._plan, self._lanes, self._loop)
        self._simulators.append(simulator)
        simulator.announce(self._parameters)
        try:
            simulator.launch()
        except SimulatorDidNotStartError:
            simulator.discard()
            raise
        return simulator.number

    def dismiss(self, simulator: int) -> dict[str, Int64]:
        """Ends a simulator for good; never blocks.

        One that waits for an answer is told goodbye instead: nothing that it has sent is lost. Any
        other is ended at once, with what it was about to send.

        Returns:
            Its lanes, void from now on, by behaviour name.
        """
        target = self._simulators[simulator]
        self._ready.pop(simulator, None)
        if target.state is State.WAITING:
            target.dismiss(CLOSE_WAIT_S)
            self._next_look_s = min(self._next_look_s, target.deadline)
        else:
            target.discard()
        return self._lanes.clear([simulator])

    def set_environment_parameters(self, parameters: Mapping[str, float | Sampler]) -> None:
        """Sends all environment parameters with the next answer to each simulator."""
        self._parameters = dict(parameters)
        for simulator in self._simulators:
            simulator.announce(self._parameters)

    def close(self) -> None:
        """Says goodbye (status 400), waits some seconds for the simulators to quit, then kills."""
        for simulator in self._simulators:
            simulator.server.say_goodbye()
        limit = time.monotonic() + CLOSE_WAIT_S
        # Those that are in the middle of a step hear the goodbye with their next call.
        while any(s.has_process for s in self._simulators) and time.monotonic() < limit:
            self._loop.serve(GOODBYE_POLL_S)
        for simulator in self._simulators:
            simulator.wait_for_end(0.0)
        limit = time.monotonic() + GOODBYE_GRACE_S  # the Editor lives on
        while any(s.server.is_connected for s in self._simulators) and time.monotonic() < limit:
            self._loop.serve(GOODBYE_POLL_S)
        for simulator in self._simulators:
            simulator.server.close()
        self._loop.close()
        self._simulators = []

    # ---- events -----------------------------------------------------------------------------

    def _drain(self) -> None:
        """Handles all events that are there, then looks for simulators that are silent."""
        self._loop.serve(0.0)
        with suppress(Empty):
            while True:
                self._handle(self._loop.take())
        if time.monotonic() >= self._next_look_s:
            self._look()

    def _look(self) -> None:
        """Looks at every simulator's deadline, and plans when to do so again.

        Not at every message: with many simulators, that would be most of the work.
        """
        now = time.monotonic()
        for simulator in self._simulators:
            if simulator.state is State.RUNNING and now >= simulator.silence_limit:
                self._lose(simulator, causes.of_silence(simulator, self._plan))
            elif simulator.state is State.RESTING and now >= simulator.deadline:
                self._wake(simulator)
            elif simulator.state is State.LOST and now >= simulator.deadline:
                simulator.wait_for_end(0.0)  # it was dismissed; usually it has gone
        limits = [s.silence_limit for s in self._simulators if s.state in AWAITED]
        limits += [s.deadline for s in self._simulators if s.state is State.LOST and s.has_process]
        # An answer from now on gives a simulator that long at least.
        self._next_look_s = min([*limits, now + self._plan.timeout_wait_s])

    def _handle(self, event: Event) -> None:
        simulator = self._simulators[event.simulator]
        what = event.what
        if simulator.is_stale(what):
            return
        if isinstance(what, Call):
            self._has_ever_connected = True
            started = time.perf_counter()
            try:
                simulator.take(what, event.ahead)
            except SimulatorError as error:
                self._lose(simulator, causes.of_words(error))
            else:
                self.codec_seconds += time.perf_counter() - started
                if simulator.state is State.READY:
                    self._ready[simulator.number] = None
        elif isinstance(what, ProcessEnded):
            self._lose(simulator, causes.of_end(simulator, what.exit_code))
        else:
            self._lose_connection(simulator, what)

    def _deliverable(self) -> list[SimulatorMessage | SimulatorLoss]:
        """Decodes and gives what `recv` may return now."""
        items: list[SimulatorMessage | SimulatorLoss] = []
        order: Sequence[int] = list(self._ready)
        if self._plan.lockstep:
            if any(simulator.state in AWAITED for simulator in self._simulators):
                order = []
            else:
                order = sorted(self._ready)
        for number in order:
            if number in self._losses:
                continue
            simulator = self._simulators[number]
            del self._ready[number]
            started = time.perf_counter()
            try:
                message = simulator.deliver()
                self.codec_seconds += time.perf_counter() - started
                self._require_same_specs(message)
            except SimulatorError as error:
                self._lose(simulator, causes.of_words(error))
            else:
                items.append(message)
        items += self._losses.values()
        self._losses = {}
        return items

    def _require_same_specs(self, message: SimulatorMessage) -> None:
        """Raises BadDataError when simulators disagree about a behaviour, or one is not known."""
        if not message.new_behaviors:
            return
        others_go_on = bool(self._specs) and self.num_alive > 1  # else the run tells the user
        for behavior_id, spec in message.new_behaviors.items():
            name = parse_behavior_id(behavior_id).name
            if others_go_on:
                self._plan.require_expected(name)
            if (known := self._specs.setdefault(name, spec)) != spec:
                raise BadDataError(
                    f"behaviour {name!r} is {spec} here, and {known} in the simulator or team "
                    "that was first to show it. All need the same sensors and actions."
                )

    def _end_all_lanes(self) -> dict[str, Int64]:
        """Ends all lanes and gives them, with those of losses that are not delivered yet."""
        void = self._lanes.clear(range(len(self._simulators)))
        for number, loss in self._losses.items():
            for name, lanes in loss.lanes.items():
                void[name] = np.union1d(void.get(name, lanes), lanes)
            # By the time the loss is delivered they may be others' already.
            self._losses[number] = replace(loss, lanes={})
        return void

    # ---- losses -----------------------------------------------------------------------------

    def _lose_connection(self, simulator: Simulator, lost: ConnectionLost) -> None:
        """Waits a moment for the exit code, where there is a process to give one."""
        if not simulator.has_process and self._plan.launch is None:
            self._lose(simulator, causes.BROKEN_CONNECTION)
            return
        self._ready.pop(simulator.number, None)
        simulator.message = None
        simulator.has_hung_up, simulator.lost_call = True, lost.call
        simulator.state = State.RUNNING
        simulator.deadline = time.monotonic() + EXIT_CODE_WAIT_S
        self._next_look_s = min(self._next_look_s, simulator.deadline)

    def _lose(self, simulator: Simulator, cause: Cause) -> None:
        """Ends a simulator's life, and starts the next one within the limits."""
        name, delay_s = simulator.name, restarts.delay_s(simulator, self._plan)
        simulator.discard()
        refusal = cause.refusal or restarts.refusal(
            simulator, self._plan, has_ever_connected=self._has_ever_connected
        )
        if refusal is None:
            simulator.keep_log()
        log_words = simulator.log_words()
        if refusal is None:
            simulator.num_restarts += 1
            simulator.restart_times.append(time.monotonic())
            simulator.rest(delay_s)
            self._next_look_s = min(self._next_look_s, simulator.deadline)
            refusal = None if delay_s else self._relaunch_one(simulator)
        if refusal is None:
            outcome = restarts.announcement(simulator, self._plan, delay_s)
        else:
            outcome = _sentence(f"Given up: {refusal}")
            outcome += f" Simulators that go on: {self.num_alive}." if self.num_alive else ""
        text = f"{name} {_sentence(cause.what)}{log_words}\n  {outcome} {cause.advice}".rstrip()
        self._last_error = loss = cause.kind(text)
        self._ready.pop(simulator.number, None)
        lanes = self._lanes.clear([simulator.number])
        self._losses[simulator.number] = SimulatorLoss(
            simulator.number, lanes, loss, will_restart=refusal is None
        )

    def _relaunch_one(self, simulator: Simulator) -> str | None:
        """Starts a simulator that is lost; gives why that cannot be, None when it could.

        Its new life has a seed of its own: the episodes of the old one would be met again.
        """
        simulator.seed = (simulator.seed + SEEDS_PER_LIFE) % 2**31
        simulator.announce(self._parameters)
        try:
            simulator.launch()
        except SimulatorDidNotStartError as error:
            simulator.discard()
            return f"it cannot be started again: {error}"
        return None

    def _wake(self, simulator: Simulator) -> None:
        """Starts a simulator whose delay is over."""
        refusal = self._relaunch_one(simulator)
        if refusal is not None:
            cause = Cause(SimulatorDidNotStartError, "was lost", refusal=refusal)
            self._lose(simulator, cause)

    def _nobody_left(self) -> SimulatorError:
        error = self._last_error
        if error is None or not self._simulators:
            return SimulatorClosedError("The fleet is closed: it has no simulators.")
        if len(self._simulators) == 1:
            return error
        return type(error)(f"None of {len(self._simulators)} simulators is left. The last: {error}")
