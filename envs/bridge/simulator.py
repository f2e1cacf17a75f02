"""One simulator of a fleet: its port, its process, its conversation, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from envs.bridge import launcher
from envs.bridge.codec import Tables
from envs.bridge.event_loop import EventLoop, TimedEventLoop
from envs.bridge.guarded_server import Door, GuardedServer
from envs.bridge.launcher import LaunchPlan, SimulatorProcess
from envs.bridge.proto import columns_pb2
from envs.bridge.server import Call, ConnectionLost, SimulatorServer
from envs.bridge.session import Phase, Session
from envs.bridge.side_channels import (
    EngineConfiguration,
    Sampler,
    engine_configuration,
    environment_parameters,
)
from envs.bridge.simulator_message import SimulatorMessage
from envs.errors import BadDataError

if TYPE_CHECKING:
    from envs.batch import Actions
    from envs.bridge.assignments import Assignment
    from envs.in_process.copies import InProcessPlan
    from envs.lanes import LaneTable

# The editor's own port in ML-Agents; executables begin one above it.
EDITOR_PORT = 5004


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """Everything a fleet has to know; words as in the YAML."""

    launch: LaunchPlan | None  # None = wait for the Unity Editor on `base_port`
    in_process: InProcessPlan | None = None  # instead: environments in the trainer's process
    num_simulators: int = 1
    seed: int = 0  # simulator i gets seed + i
    num_areas: int = 1
    timeout_wait_s: float = 60.0
    max_lifetime_restarts: int = 10  # per simulator; -1 = any number
    restarts_rate_limit_n: int = 1  # per simulator and period; -1 = any number
    restarts_rate_limit_period_s: float = 60.0
    restart_delay_s: float = 1.0  # of the second restart; the next ones wait twice as long each
    max_bad_episodes: int = 0  # dropped per simulator's life for bad numbers; -1 = any number
    base_port: int | None = None  # simulator i gets base_port + i; None = the system picks
    engine: EngineConfiguration = field(default_factory=EngineConfiguration)
    environment_parameters: dict[str, float | Sampler] = field(default_factory=dict)
    logs_dir: Path = Path("run_logs")
    lockstep: bool = False
    door: Door | None = None  # for simulators of other machines; None = loopback, without TLS
    behaviors: frozenset[str] | None = None  # names that there are settings for; None = any

    @property
    def is_ours(self) -> bool:
        """Whether simulators are the trainer's to start."""
        return self.launch is not None or self.in_process is not None

    def require_expected(self, name: str) -> None:
        """Raises BadDataError for a behaviour that there are no settings for."""
        if self.behaviors is not None and name not in self.behaviors:
            expected = ", ".join(map(repr, sorted(self.behaviors)))
            raise BadDataError(
                f"behaviour {name!r} appears in the middle of the run, and the settings have only "
                f"{expected}. Add it under `behaviors:`, or add default_settings for behaviours "
                "that are not listed."
            )


class ProcessEnded(NamedTuple):
    """A simulator's process is over."""

    generation: int
    exit_code: int


class Event(NamedTuple):
    """Something happened to a simulator."""

    simulator: int
    what: Call | ConnectionLost | ProcessEnded
    ahead: Future[list[Tables]] | None = None  # images of a Call, decoded already


class State(Enum):
    """Whose turn it is."""

    RUNNING = auto()  # the simulator's: its next call is awaited until the deadline
    READY = auto()  # the fleet's: its call waits to be given to the trainer
    WAITING = auto()  # the trainer's: its message has been delivered
    RESTING = auto()  # nobody's: it is started again at the deadline
    LOST = auto()  # nobody's: given up for good


class Simulator:
    """One simulator; made of parts that know nothing of each other.

    Args:
        number: its place in the fleet.
        plan: the fleet's.
        lanes: shared by the fleet.
        loop: the fleet's.
    """

    def __init__(
        self, number: int, plan: FleetPlan, lanes: LaneTable, loop: EventLoop[Event]
    ) -> None:
        self.number = number
        self.state = State.RUNNING
        self.deadline = time.monotonic() + plan.timeout_wait_s
        self.has_hung_up = False  # the connection is broken; the process's end is awaited
        self.lost_call: Call | None = None  # the one whose connection broke
        self.was_answered_by_reset = False  # the trainer may still send its own, void answer
        self.reset_is_due = False
        self.num_restarts = 0
        self.restart_times: list[float] = []
        self.message: columns_pb2.Message | None = None
        self.seed = (plan.seed + number) % 2**31  # what int32 holds
        self.log: Path | None = None
        self._plan = plan
        self._lanes = lanes
        self._loop = loop
        self._call: Call | None = None
        self._ahead: Future[list[Tables]] | None = None
        self._news = b""  # side channel bytes that go with the next answer
        self._process: SimulatorProcess | None = None
        self.session = Session(number, lanes, plan.max_bad_episodes)
        port = 0 if plan.base_port is None else plan.base_port + number
        self.server = _listening(plan.door, port, loop, self._arrived)

    # ---- its process ------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process, None in the Editor."""
        return None if self._process is None else self._process.pid

    @property
    def silence_limit(self) -> float:
        """When it counts as silent, by time.monotonic.

        Bytes of a call that has not been read yet count: while the trainer learned, nobody read.
        """
        if self.has_hung_up or self.state is not State.RUNNING:
            return self.deadline
        return max(self.deadline, self.server.last_heard_s + self._plan.timeout_wait_s)

    @property
    def port(self) -> int:
        """Where the simulator dials the trainer."""
        return self.server.port

    @property
    def has_process(self) -> bool:
        """Whether its process is ours and still lives."""
        return self._process is not None and self._process.is_running

    def launch(self) -> None:
        """Starts the process, if it is ours to start, and a new conversation.

        Raises:
            SimulatorDidNotStartError: the program cannot be executed.
        """
        generation = self.server.generation
        self.session = Session(self.number, self._lanes, self._plan.max_bad_episodes)
        self.message, self._call, self._ahead = None, None, None
        self.has_hung_up = self.reset_is_due = self.was_answered_by_reset = False
        self._run()
        plan = self._plan.launch
        if plan is None:
            return
        logs_dir = self._plan.logs_dir
        logs_dir.mkdir(parents=True, exist_ok=True)
        self.log = launcher.log_path(plan, logs_dir, self.number)
        # Unity writes its log itself; what it prints is little, but tells why it did not start.
        output = logs_dir / f"Player-{self.number}.{'log' if plan.kind == 'gym' else 'out'}"

        def ended(exit_code: int) -> None:
            event = Event(self.number, ProcessEnded(generation, exit_code))
            self._loop.put_from_another_thread(event)

        command = launcher.arguments(plan, simulator=self.number, port=self.port, log=self.log)
        self._process = SimulatorProcess(command, output, ended)

    def discard(self) -> None:
        """Ends process and conversation at once; later news of them are stale."""
        if self._process is not None:
            self._process.kill()
        self.server.forget_peer()
        self.state = State.LOST
        self.message, self._call, self._ahead = None, None, None

    def dismiss(self, patience_s: float) -> None:
        """Answers the call that waits with a goodbye; later news are stale.

        Args:
            patience_s: after which its process, which should end by itself, is to be killed.
        """
        self.server.say_goodbye()
        self.state = State.LOST
        self.deadline = time.monotonic() + patience_s
        self.message, self._call, self._ahead = None, None, None

    def rest(self, delay_s: float) -> None:
        """Waits to be started again; to be called once it has been discarded."""
        self.state = State.RESTING
        self.deadline = time.monotonic() + delay_s

    def keep_log(self) -> None:
        """Renames the log, so that the simulator that starts next does not overwrite it."""
        if self.log is None:
            return
        kept = self.log.with_name(f"{self.log.stem}.life-{self.num_restarts + 1}{self.log.suffix}")
        with suppress(OSError):  # no log, or one that Windows still holds open: nothing to keep
            self.log.rename(kept)
            self.log = kept

    def wait_for_end(self, timeout_s: float) -> None:
        """Waits up to `timeout_s` until its process has ended by itself, then kills it."""
        if self._process is not None and not self._process.wait(max(timeout_s, 0.0)):
            self._process.kill()

    def is_stale(self, what: Call | ConnectionLost | ProcessEnded) -> bool:
        """Tells whether an event is about a life that is over."""
        generation = what.call.generation if isinstance(what, ConnectionLost) else what.generation
        return generation != self.server.generation or self.state in (State.LOST, State.RESTING)

    # ---- its conversation -------------------------------------------------------------------

    def _arrived(self, what: Call | ConnectionLost) -> None:
        """Passes on what the server has heard; never blocks.

        A call with images comes to the fleet once they are decoded, which other threads do.
        """
        ahead = self.session.decode_ahead(what.data) if isinstance(what, Call) else None
        if ahead is None:
            self._loop.put(Event(self.number, what))
            return
        put = self._loop.put_from_another_thread
        ahead.add_done_callback(lambda decoded: put(Event(self.number, what, decoded)))

    def take(self, call: Call, ahead: Future[list[Tables]] | None = None) -> None:
        """Takes its next call; answers it at once unless it has news for the trainer.

        Args:
            call: as it came.
            ahead: what has been decoded of it.

        Raises:
            SimulatorError: the simulator says goodbye, or what cannot be understood.
        """
        if call is self.lost_call:
            return  # its images took longer to decode than the connection lived
        self._call, self._ahead = call, ahead
        message = self.session.parse(call.data)
        if self.session.phase is Phase.GREETING:
            self.answer(self.session.greet(message, self.seed, self._plan.num_areas))
        elif self.session.phase is Phase.OPENING:
            self._answer_with_reset()
        elif self.reset_is_due:
            self.session.skip(message, ahead)
            self._answer_with_reset()
        else:
            self.message = message
            self.state = State.READY

    def deliver(self) -> SimulatorMessage:
        """Decodes the message that waits; the next word is the trainer's.

        Raises:
            BadDataError: the message makes no sense.
        """
        assert self.state is State.READY
        assert self.message is not None
        self.state = State.WAITING
        message, self.message = self.message, None
        ahead, self._ahead = self._ahead, None
        self.was_answered_by_reset = False
        heard = self.session.step(message, ahead)
        if heard.earlier:
            heard = heard._replace(earlier=tuple(map(self._with_dropped_words, heard.earlier)))
        return self._with_dropped_words(heard)

    def _with_dropped_words(self, heard: SimulatorMessage) -> SimulatorMessage:
        if not heard.dropped:
            return heard
        dropped = [replace(one, text=self._dropped_words(one.text)) for one in heard.dropped]
        return heard._replace(dropped=tuple(dropped))

    def _dropped_words(self, text: str) -> str:
        limit = self._plan.max_bad_episodes
        after = f"After {limit} such episodes it counts as crashed. " if limit >= 0 else ""
        log = "" if self.log is None else f"\n  Log: {self.log}."
        return f"{self.name}: {text} The episode is dropped. {after}".rstrip() + log

    def encode(self, actions: Mapping[str, Actions]) -> bytes:
        """Gives the answer to the message that was delivered."""
        news, self._news = self._news, b""
        return self.session.answer(actions, news)

    def encode_assignment(self, assignment: Assignment) -> bytes:
        """Gives the answer that lets it act for itself."""
        news, self._news = self._news, b""
        return self.session.assign(assignment, news)

    def answer(self, data: bytes) -> None:
        """Answers the call that waits; never blocks."""
        assert self._call is not None, "nobody waits for this answer"
        call, self._call = self._call, None
        self._run()
        call.answer(data)

    def reset(self) -> None:
        """Begins all episodes anew: now if it waits for an answer, else with its next call."""
        if self.state is State.READY:
            assert self.message is not None
            self.session.skip(self.message, self._ahead)
            self._answer_with_reset()
        elif self.state is State.WAITING:
            self.was_answered_by_reset = True
            self._answer_with_reset()
        elif self.state is State.RUNNING and self.session.phase is Phase.STEPPING:
            self.reset_is_due = True

    def announce(self, parameters: Mapping[str, float | Sampler]) -> None:
        """Sends environment parameters along with the next answer."""
        self._news = environment_parameters(parameters)

    def _answer_with_reset(self) -> None:
        self.reset_is_due = False
        self.message, self._ahead = None, None
        news, self._news = self._news, b""
        self.answer(self.session.reset(news + engine_configuration(self._plan.engine)))

    def _run(self) -> None:
        self.state = State.RUNNING
        self.deadline = time.monotonic() + self._plan.timeout_wait_s

    # ---- words about it ---------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Who it is, for messages: `Simulator 3 (unity, pid 4411, port 5008)`."""
        if self._plan.door is not None:
            return f"Simulator {self.number} (another machine's, port {self.port})"
        if self._plan.launch is None:
            return f"Simulator {self.number} (Unity Editor, port {self.port})"
        return (
            f"Simulator {self.number} ({self._plan.launch.kind}, pid {self.pid}, port {self.port})"
        )

    def dial_advice(self) -> str:
        """Says what to do about a simulator that does not dial."""
        if self._plan.door is not None:
            return f"Start one: python -m envs.gym --trainer HOST:{self.port} ... "
        if self._plan.launch is None:
            return f"Press Play in a scene whose ML-Agents port is {self.port}. "
        return "Does its scene hold an Agent that asks for decisions? "

    def log_words(self) -> str:
        """Gives what its log ends with, and where it is; "" without a log of ours."""
        if self.log is None:
            return ""
        logs = [self.log, self._plan.logs_dir / f"Player-{self.number}.out"]
        tails = [(log, tail) for log in logs if (tail := launcher.log_tail(log))]
        if not tails:
            return f"\n  Log: {self.log} (empty)."
        log, tail = tails[0]
        indented = "\n".join(f"    {line}" for line in tail.splitlines())
        return f"\n  Its log ends with:\n{indented}\n  Log: {log}."


def _listening(
    door: Door | None,
    port: int,
    loop: EventLoop[Event],
    deliver: Callable[[Call | ConnectionLost], None],
) -> SimulatorServer:
    """Opens a simulator's port: on loopback, or through a door."""
    if door is None:
        return SimulatorServer(port, loop, deliver)
    assert isinstance(loop, TimedEventLoop), "a door's handshakes have a time limit"
    return GuardedServer(port, loop, deliver, door)
