"""How fast a run is between two summaries, and what holds it up then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envs.batch import Decisions
from trainer import machine
from trainer.bottleneck import Circumstances, Interval, Origin, line, verdict
from trainer.reporter import Speed
from trainer.timers import BRIDGE, INFERENCE, LEARNING, SAVING, SIMULATORS, WAITING

if TYPE_CHECKING:
    from trainer.behavior import Behavior
    from trainer.run import Run

LEAST_S = 0.2  # between two readings of the machine, which counts hundredths of a second
SAME_MOMENT_S = 0.05  # behaviours whose summaries come so close together get one line
TO_LEARN = (LEARNING, WAITING)
OUTSIDE = (*TO_LEARN, SAVING)  # the parts in which nothing is collected
SPARE_MEMORY = 0.2  # of what is available, which is never advised to be used


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the machine has been up to a moment, and with what the run was busy."""

    reading: machine.Reading
    outside_s: Mapping[str, float]  # in learning and saving
    own_outside_s: Mapping[str, float]  # processor seconds of this process in them
    elapsed_s: float  # since the run began


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that is counted, as it was once."""

    moment_s: float
    seconds: Mapping[str, float]  # by part of the loop
    step: int
    num_updates: int  # of all behaviours
    update_s: float  # that they took
    num_passes: int
    num_decided: int
    load: Load


@dataclass(frozen=True, slots=True)
class Measured:
    """What happened since a behaviour's last summary."""

    scalars: Mapping[str, float]  # by TensorBoard's tag
    bottleneck: str | None  # None: another behaviour's summary has just told


class SpeedWatch:
    """Remembers how things were at each behaviour's last summary."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._moments: dict[str, Moment] = {}
        self._passes: dict[str, tuple[int, int]] = {}  # forward passes, and decisions in them
        self._load: Load | None = None
        self._last_told: tuple[str, float] | None = None
        self.bottleneck: str | None = None  # of the last summary
        self.newest: Speed | None = None

    def count_pass(self, name: str, batches: Sequence[Decisions]) -> None:
        """Takes note of one forward pass of a behaviour."""
        passes, decided = self._passes.get(name, (0, 0))
        self._passes[name] = passes + 1, decided + sum(map(len, batches))

    def meet(self) -> None:
        """Measures behaviours that are new from now on; building them is no part of it."""
        for behavior in self._run.behaviors.values():
            if behavior.name not in self._moments:
                self._moments[behavior.name] = self._now(behavior)

    def begin_anew(self) -> None:
        """Measures all behaviours from now on: a pause says nothing about speed."""
        self._moments.clear()
        self.meet()

    def measure(self, behavior: Behavior) -> Measured:
        """Gives how fast a behaviour was since its last summary, and begins the next interval."""
        before, now = self._moments[behavior.name], self._now(behavior)
        self._moments[behavior.name] = now
        if now.seconds == before.seconds:  # no turn of the loop since it was met
            return Measured({}, None)
        interval = interval_of(before, now, machine.num_cores())
        self.newest = speed = _speed(before, now, interval)
        seconds = max(now.moment_s - before.moment_s, 1e-9)
        scalars = {
            "Speed/Steps per Second": (now.step - before.step) / seconds,
            "Speed/Simulators Alive": float(self._run.fleet.num_alive),
            "Speed/Collecting Steps per Second": speed.collecting_steps_per_s,
            "Speed/Seconds per Update": speed.seconds_per_update,
            "Speed/Decisions per Forward Pass": speed.decisions_per_pass,
            "Speed/Idle Cores": speed.idle_cores,
            **{f"Speed/{part.capitalize()} Share": s for part, s in interval.shares.items()},
        }
        known = {tag: value for tag, value in scalars.items() if value is not None}
        return Measured(known, self._line(behavior.name, interval))

    def _line(self, name: str, interval: Interval) -> str | None:
        now = time.perf_counter()
        if self._last_told is not None:
            who, when = self._last_told
            if who != name and now - when < SAME_MOMENT_S:
                return None
        self._last_told = name, now
        self.bottleneck = line(interval, self._circumstances(interval))
        return self.bottleneck

    def _now(self, behavior: Behavior) -> Moment:
        run, timers = self._run, self._run.timers
        passes, decided = self._passes.get(behavior.name, (0, 0))
        return Moment(
            time.perf_counter(),
            timers.seconds(),
            behavior.step,
            sum(one.num_updates for one in run.behaviors.values()),
            timers.update_s,
            passes,
            decided,
            self.load_now(),
        )

    def load_now(self) -> Load:
        """Gives how busy the machine has been so far; the same for `LEAST_S`."""
        known = self._load
        if known is None or time.perf_counter() - known.reading.moment_s >= LEAST_S:
            timers = self._run.timers
            pids = [pid for pid in self._run.fleet.pids if pid is not None]
            seconds = timers.seconds()
            self._load = known = Load(
                machine.read(pids),
                {part: seconds[part] for part in OUTSIDE if part in seconds},
                timers.processor_seconds(),
                timers.elapsed_s,
            )
        return known

    def _circumstances(self, interval: Interval) -> Circumstances:
        run, env = self._run, self._run.settings.env_settings
        judged = verdict(interval.shares)
        origin = Origin.STARTED
        if env.is_in_process:
            origin = Origin.WITHIN
        elif env.env_path is None:
            is_guarded = run.settings.listen_settings.is_guarded
            origin = Origin.ELSEWHERE if is_guarded else Origin.EDITOR
        unthreaded: list[str] = []
        if run.is_training and run.updates.why_in_turn() is None:
            unthreaded = [b.name for b in run.behaviors.values() if not b.settings.threaded]
        return Circumstances(
            origin=origin,
            num_simulators=run.fleet.num_alive,
            num_given_up=max(0, env.least_envs - run.fleet.num_alive),
            num_cores=machine.num_cores(),
            is_counted=env.is_counted,
            memory_for=self._memory_for_more() if judged == "simulator-bound" else None,
            could_act=judged in ("bridge-bound", "inference-bound") and self._could_act(),
            unthreaded=tuple(unthreaded),
            num_behaviors=len(run.behaviors),
        )

    def _could_act(self) -> bool:
        """Whether simulators could act for themselves, but the settings forbid it."""
        run, env = self._run, self._run.settings.env_settings
        if env.act_at != "trainer" or env.is_in_process or run.lockstep or not run.is_training:
            return False
        is_gym = env.env_path is not None and env.env_path.startswith("gym:")
        return is_gym and all(b.actor.graph is not None for b in run.behaviors.values())

    def _memory_for_more(self) -> int | None:
        """Gives how many more simulators there is memory for; None: the system does not tell."""
        pids = [pid for pid in self._run.fleet.pids if pid is not None]
        return machine.room_for_more(pids, SPARE_MEMORY)


def interval_of(before: Moment, now: Moment, num_cores: float) -> Interval:
    """Gives what happened between two moments.

    Args:
        before: the earlier one.
        now: the later one.
        num_cores: that the run may use.
    """
    parts = {part: max(0.0, s) for part, s in _since(before.seconds, now.seconds).items()}
    total = sum(parts.values()) or 1.0
    shares = {part: seconds / total for part, seconds in parts.items()}
    interval = Interval(seconds=now.moment_s - before.moment_s, shares=shares)
    return with_idle_cores(interval, before.load, now.load, num_cores)


def with_idle_cores(interval: Interval, before: Load, now: Load, num_cores: float) -> Interval:
    """Adds how many cores were idle, where the system tells.

    Simulators work while the run collects, so their processor seconds, and those of this process
    that were not spent in learning and saving, belong to that part of the time. What other programs
    take is taken from all of it alike.
    """
    ended, began = now.reading, before.reading
    seconds = ended.moment_s - began.moment_s
    if seconds < LEAST_S:
        return interval
    if ended.idle_s is None or began.idle_s is None:
        if ended.load is None or now.elapsed_s < machine.LOAD_S:
            return interval
        idle = max(0.0, num_cores - ended.load)
        return replace(
            interval, idle_cores=idle, idle_while_collecting=idle, idle_while_learning=idle
        )
    own = ended.own_s - began.own_s
    simulators = sum(s - began.process_s.get(pid, 0.0) for pid, s in ended.process_s.items())
    busy = (own + simulators) / seconds
    free = (ended.idle_s - began.idle_s) / seconds
    others = max(0.0, ended.cores - free - busy)
    ours = min(num_cores, ended.cores - others)  # what is left to the run
    outside = _since(before.outside_s, now.outside_s)
    own_outside = _since(before.own_outside_s, {part: now.own_outside_s[part] for part in outside})
    collecting_s = seconds - sum(outside.values())
    learning_s = sum(outside[part] for part in TO_LEARN if part in outside)
    found = replace(interval, idle_cores=max(0.0, min(free, ours - busy)))
    if learning_s >= LEAST_S:
        own_learning = sum(own_outside[part] for part in TO_LEARN if part in outside)
        idle = max(0.0, ours - own_learning / learning_s)
        found = replace(found, idle_while_learning=idle)
    if collecting_s >= LEAST_S:
        busy = (own - sum(own_outside.values()) + simulators) / collecting_s
        found = replace(found, idle_while_collecting=max(0.0, ours - busy))
        if ended.process_s:
            each = simulators / (collecting_s * len(ended.process_s))
            found = replace(found, simulator_cores=each)
    return found


def idle_while_collecting(before: Load, now: Load) -> float | None:
    """Gives how many cores were idle while the run collected; None: the system does not tell."""
    nothing = Interval(seconds=now.reading.moment_s - before.reading.moment_s, shares={})
    return with_idle_cores(nothing, before, now, machine.num_cores()).idle_while_collecting


def _since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Gives by how much each part has grown; one that is new began at 0."""
    return {part: seconds - before.get(part, 0.0) for part, seconds in now.items()}


def _speed(before: Moment, now: Moment, interval: Interval) -> Speed:
    parts = _since(before.seconds, now.seconds)
    collecting_s = sum(parts[part] for part in (SIMULATORS, BRIDGE, INFERENCE))
    updates = now.num_updates - before.num_updates
    passes = now.num_passes - before.num_passes
    return Speed(
        (now.step - before.step) / collecting_s if collecting_s > 0 else None,
        (now.update_s - before.update_s) / updates if updates else None,
        (now.num_decided - before.num_decided) / passes if passes else None,
        interval.idle_cores,
    )
