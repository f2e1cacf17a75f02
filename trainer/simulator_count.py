"""`num_envs: auto`: how many simulators are best, found out while a run begins.

What counts is how fast the run collects. It begins with a simulator per core and adds some as long
as that makes it faster, there is memory, and a core is idle; then it ends some as long as that
makes it no slower. Nothing is lost meanwhile: every step counts as in any run, and a simulator that
is ended has told all that it has done.

With `act_at: auto` the place where agents act is found out first, with the number that the run
began with, and then the number: a trial of one does not see the other change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from envs.errors import SimulatorDidNotStartError
from envs.fleet import Fleet
from trainer import machine
from trainer.atomic_file import atomic_write
from trainer.config.listen_settings import LARGEST_PORT
from trainer.config.settings import EnvironmentSettings, RunSettings
from trainer.speed_watch import Load, idle_while_collecting

if TYPE_CHECKING:
    from envs.batch import Actions
    from trainer.run import Run

FILE = "num_envs.json"
MARGIN = 1.05  # fewer simulators that are slower by less are better
SETTLED = 3  # messages: the first steps of a simulator that acts take as long as loading a policy
WARM_UP_S = 0.5  # of collecting, after the last simulator has sent so many
TRIAL_S = 2.0  # of collecting
TRIAL_STEPS = 200
MOST_TRIALS = 12
LEAST_IDLE = 0.5  # cores; with fewer another simulator would only take them from the others
SPARE_MEMORY = 0.2  # of what is available

CORES = "the cores are full"
MEMORY = "another one might not fit into memory"
UNKNOWN_MEMORY = "how much memory is free is not told here"
PORTS = "there are no more ports"
LOST = "with more, one was lost"


@dataclass(slots=True)
class Search:
    """What was measured, and what to try next. It knows nothing of simulators or clocks."""

    start: int
    rates: dict[int, float] = field(default_factory=dict)  # collecting steps per second
    reason: str | None = None  # why no more were tried; None: more made it no faster
    _is_falling: bool = False

    def next(self, count: int, rate: float, obstacle: str | None) -> int | None:
        """Takes what `count` simulators have made; gives how many to try next, None at the end.

        Args:
            count: of simulators.
            rate: steps per second of collecting.
            obstacle: why there cannot be more of them; None: there can.
        """
        before = self.fastest if self.rates else None
        self.rates[count] = rate
        if len(self.rates) >= MOST_TRIALS:
            return None
        if not self._is_falling:
            is_faster = before is None or rate > MARGIN * self.rates[before]
            if is_faster and obstacle is None:
                return count + _stride(count)
            self.reason = obstacle if is_faster else None
            self._is_falling = True
        return self._fewer()

    def give_up_growing(self, reason: str) -> int | None:
        """Takes note that what was to be tried cannot be; gives what to try next."""
        self.reason = reason
        self._is_falling = True
        return self._fewer()

    def _fewer(self) -> int | None:
        best = self.best
        fewer = best - _stride(best - 1)
        return fewer if fewer >= 1 and fewer not in self.rates else None

    @property
    def fastest(self) -> int:
        """The number that was fastest."""
        return max(self.rates, key=lambda count: self.rates[count])

    @property
    def best(self) -> int:
        """The fewest that are about as fast as the fastest; without a measurement the start."""
        if not self.rates:
            return self.start
        needed = self.rates[self.fastest] / MARGIN
        return min(count for count, rate in self.rates.items() if rate >= needed)

    def words(self) -> str:
        """Says what was chosen, and why."""
        best = self.best
        others = ", ".join(
            f"{rate:,.0f} with {count}"
            for count, rate in sorted(self.rates.items())
            if count != best
        )
        text = f"num_envs auto: {_simulators(best)}"
        if best in self.rates:
            text += f": collecting made {self.rates[best]:,.0f} steps/s with {best}"
        text += f", {others}" if others else ""
        return f"{text}; {self.reason}." if self.reason is not None else f"{text}."


def _stride(count: int) -> int:
    """Gives by how many to go on from `count`: a machine of many cores has many numbers."""
    return max(1, count // 4)


def _simulators(count: int) -> str:
    return "1 simulator" if count == 1 else f"{count} simulators"


def first_count(settings: RunSettings, logs: Path) -> int:
    """Gives how many simulators a run begins with.

    Args:
        settings: of the run.
        logs: where it notes what it has found out.
    """
    env = settings.env_settings
    if isinstance(env.num_envs, int):
        return env.num_envs
    known = _known_count(settings, logs)
    return max(1, int(machine.num_cores())) if known is None else known


def _known_count(settings: RunSettings, logs: Path) -> int | None:
    """Gives what a run that goes on has found out on this machine; None: nothing."""
    if not settings.checkpoint_settings.resume:
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):  # then it is measured anew
        noted = json.loads((logs / FILE).read_bytes())
        count = noted["num_envs"]
        if noted["of"] == _of(settings.env_settings) and isinstance(count, int) and count >= 1:
            return count
    return None


def _of(env: EnvironmentSettings) -> dict[str, object]:
    """Gives what a number of simulators is good for."""
    found = {"env_path": env.env_path, "num_areas": env.num_areas, "act_at": env.act_at}
    return {**found, "machine": machine.identity()}


class SimulatorCount:
    """Adds and ends a run's simulators until their number is right; all in the run's thread."""

    def __init__(self, run: Run) -> None:
        """Changes nothing yet; without `num_envs: auto`, or if the number is known, it never will.

        Args:
            run: with its simulators started.
        """
        self._run = run
        self._logs = run.storage.folder.own_logs(run.is_training)
        known = _known_count(run.settings, self._logs)
        self.is_open = run.settings.env_settings.is_counted and known is None
        self._search = Search(run.fleet.num_alive)
        self._goal = run.fleet.num_alive
        self._leaving: set[int] = set()
        self._newcomers: set[int] = set()
        self._warm_s: float | None = None  # seconds of collecting when all had been heard
        self._trial: tuple[int, float, Load] | None = None  # its start: step, seconds, load
        self._untold: str | None = None  # what was chosen
        if run.settings.env_settings.is_counted and known is not None:
            run.reporter.info(
                f"num_envs auto: {_simulators(known)}, as this run has measured on this machine."
            )

    @property
    def _fleet(self) -> Fleet:
        fleet = self._run.fleet
        assert isinstance(fleet, Fleet), "only processes are counted"
        return fleet

    # ---- what happens to simulators ---------------------------------------------------------

    def begin_anew(self) -> None:
        """Measures anew: something has held up the simulators."""
        self._warm_s = self._trial = None

    def lose(self, simulator: int) -> None:
        """Takes note that a simulator is lost; one that had just come is the last that came."""
        if simulator in self._leaving:
            self._end(simulator)
        self.begin_anew()
        if self.is_open and simulator in self._newcomers:
            self._go_to(self._search.give_up_growing(LOST))

    def dismiss_due(self, unsent: dict[int, Mapping[str, Actions]]) -> None:
        """Says goodbye to those that are to leave and wait for an answer, or for work."""
        for simulator in list(self._leaving):
            if unsent.pop(simulator, None) is not None or self._run.placement.rests(simulator):
                self._end(simulator)

    def _end(self, simulator: int) -> None:
        self._leaving.discard(simulator)
        self._newcomers.discard(simulator)
        self._run.placement.lose(simulator)
        for name, lanes in self._fleet.dismiss(simulator).items():
            if name in self._run.behaviors:
                self._run.behaviors[name].abandon(lanes)

    # ---- how many there should be -----------------------------------------------------------

    def observe(self) -> str | None:
        """Looks at the run, between two turns of its loop; says once what was chosen."""
        if self.is_open and (measured := self._measured()) is not None:
            rate, idle = measured
            self._go_to(self._search.next(self._goal, rate, self._obstacle(idle)))
        told, self._untold = self._untold, None
        return told

    def _measured(self) -> tuple[float, float | None] | None:
        """Gives steps per second and idle cores of a trial that has just ended; None: none has."""
        run = self._run
        if self._leaving or run.is_paused or run.placement.is_open or not run.behaviors:
            return None
        if any(run.placement.heard[number] < SETTLED for number in self._fleet.alive):
            return None
        collecting_s = run.timers.collecting_s
        if self._warm_s is None:
            self._warm_s = collecting_s
        if collecting_s - self._warm_s < WARM_UP_S:
            return None
        if self._trial is None:
            self._trial = run.total_steps, collecting_s, run.report.speed.load_now()
            return None
        step, began_s, load = self._trial
        steps, seconds = run.total_steps - step, collecting_s - began_s
        if seconds < TRIAL_S or steps < TRIAL_STEPS:
            return None
        return steps / seconds, idle_while_collecting(load, run.report.speed.load_now())

    def _obstacle(self, idle: float | None) -> str | None:
        """Says why there cannot be more simulators; None: there can."""
        fleet, env = self._fleet, self._run.settings.env_settings
        more = _stride(self._goal)
        if idle is not None and idle < LEAST_IDLE:
            return CORES
        if env.base_port is not None and env.base_port + len(fleet.ports) + more > LARGEST_PORT + 1:
            return PORTS
        pids = [pid for number in fleet.alive if (pid := fleet.pids[number]) is not None]
        room = machine.room_for_more(pids, SPARE_MEMORY)
        if room is None:
            return UNKNOWN_MEMORY
        return MEMORY if room < more else None

    def _go_to(self, goal: int | None) -> None:
        """Makes the simulators so many; None: the search is over."""
        self._goal = self._search.best if goal is None else goal
        self.begin_anew()
        try:
            self._resize()
        except SimulatorDidNotStartError as error:
            self._run.reporter.warning(f"num_envs auto: no more simulators can be started: {error}")
            if goal is not None:
                self._go_to(self._search.give_up_growing(LOST))
                return
        if goal is None:
            self.is_open = False
            self._untold = self._search.words()
            self._note()

    def _resize(self) -> None:
        fleet = self._fleet
        self._newcomers.clear()
        staying = [number for number in fleet.alive if number not in self._leaving]
        while len(staying) < self._goal:
            staying.append(fleet.add())
            self._newcomers.add(staying[-1])
        for number in staying[self._goal :]:  # the highest: Unity's stats come from the first
            if number in self._run.placement.heard:
                self._leaving.add(number)
            else:
                self._end(number)  # it has told nothing yet

    def _note(self) -> None:
        env, search = self._run.settings.env_settings, self._search
        noted = {"num_envs": search.best, "of": _of(env), "steps_per_s": search.rates}
        self._logs.mkdir(parents=True, exist_ok=True)
        atomic_write(self._logs / FILE, json.dumps(noted, indent=2).encode())
        self._run.storage.tell(
            "num_envs",
            self._run.total_steps,
            chosen=search.best,
            steps_per_s={str(count): rate for count, rate in search.rates.items()},
            reason=search.reason,
        )
