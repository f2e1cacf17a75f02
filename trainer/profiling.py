"""A real run whose every part is watched for a few updates; `ppo-train profile` shows the trace.

Nothing of this is there in a run that is not profiled: what is watched is replaced here, by
subclasses and by wrappers around methods.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from envs.batch import Actions
from envs.bridge.simulator import Event, FleetPlan, State
from envs.fleet import Assignment, Fleet, SimulatorLoss, SimulatorMessage
from envs.simulators import Simulators
from envs.spec import BehaviorSpec
from trainer.config.settings import (
    CheckpointSettings,
    ControlSettings,
    RunSettings,
    StopSettings,
    TrackerSettings,
)
from trainer.reporter import Reporter
from trainer.rollout.minibatch import Minibatch
from trainer.run import Run
from trainer.simulator_count import first_count
from trainer.span_trace import SpanTrace
from trainer.stopping import StopRequest
from trainer.timers import INFERENCE, LEARNING, SAVING, SIMULATORS, Timers

LOOP = 0  # the track of the loop; simulator i has i + 1
LEARNER = -1  # that of the learner's thread, where updates are threaded
RUN = "run"
PARTS = {SIMULATORS: "recv", INFERENCE: "answer", LEARNING: "learn", SAVING: "save"}
INSIDE = {  # which span a span lies in, for the table
    "decode": "recv",
    "inference": "answer",
    "encode and send": "answer",
    "take": "learn",
    "update": "learn",
    "normalizer": "learn",
    "epoch": "update",
}
COUNTER_S = 0.005


def settings_to_profile(settings: RunSettings, folder: Path) -> RunSettings:
    """Gives the same job, with fresh weights and results in a folder of its own.

    Whatever reaches outside of that folder, or ends or measures the run in a way of its own, is
    left out: other runs' weights, trackers, control, evaluation, stop conditions, `num_envs: auto`.
    """
    chosen = settings.checkpoint_settings
    store = CheckpointSettings(
        run_id="profile",
        results_dir=str(folder),
        force=True,
        inference=False,
        checkpoint_interval_s=chosen.checkpoint_interval_s,
    )
    count = first_count(settings, folder)
    fresh = {
        name: own.model_copy(update={"init_path": None}) for name, own in settings.behaviors.items()
    }
    return settings.model_copy(
        update={
            "behaviors": fresh,
            "checkpoint_settings": store,
            "control_settings": ControlSettings(),
            "env_settings": settings.env_settings.model_copy(update={"num_envs": count}),
            "stop": StopSettings(),
            "trackers": TrackerSettings(),
        }
    )


class TracedTimers(Timers):
    """Timers that remember when each part was, too."""

    def __init__(self, trace: SpanTrace) -> None:
        super().__init__()
        self._trace = trace

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time inside the block to a part, and records it."""
        with super().measure(part), self._trace.span(PARTS.get(part, part), LOOP):
            yield


class TracedFleet(Fleet):
    """A fleet that records when messages are decoded and answered, and whose turn it is."""

    def __init__(self, plan: FleetPlan, trace: SpanTrace) -> None:
        super().__init__(plan)
        self._trace = trace
        self._turns: dict[int, tuple[str, float]] = {}  # by simulator: what it does, since when

    def send(self, simulator: int, actions: Mapping[str, Actions]) -> None:
        """Answers, and records it."""
        with self._trace.span("encode and send", LOOP):
            super().send(simulator, actions)
        self._turn(simulator, "stepping")

    def assign(self, simulator: int, assignment: Assignment) -> None:
        """Assigns, and records it."""
        with self._trace.span("encode and send", LOOP):
            super().assign(simulator, assignment)
        self._turn(simulator, "stepping")

    def close(self) -> None:
        """Closes the fleet; what simulators do last has an end now."""
        for simulator in self._turns:
            self._turn(simulator, "over")
        super().close()

    def _turn(self, simulator: int, what: str) -> None:
        now = time.perf_counter()
        if simulator in self._turns:
            before, since = self._turns[simulator]
            if before == what:
                return
            self._trace.add(before, simulator + 1, since, now)
        self._trace.tracks.setdefault(simulator + 1, f"simulator {simulator}")
        self._turns[simulator] = what, now

    def _handle(self, event: Event) -> None:
        super()._handle(event)
        if self._simulators[event.simulator].state is State.READY:
            self._turn(event.simulator, "waiting")

    def _deliverable(self) -> list[SimulatorMessage | SimulatorLoss]:
        began_s = time.perf_counter()
        items = super()._deliverable()
        if items:
            self._trace.add("decode", LOOP, began_s, time.perf_counter())
        for item in items:
            if isinstance(item, SimulatorLoss):
                self._turn(item.simulator, "starting")
        return items


class ProfiledRun(Run):
    """A run that ends after some updates, and whose parts are recorded."""

    def __init__(
        self,
        settings: RunSettings,
        reporter: Reporter,
        stop: StopRequest,
        num_updates: int,
        torch_trace: Path | None = None,
    ) -> None:
        """Plans the run.

        Args:
            settings: of `settings_to_profile`.
            reporter: hears of everything.
            stop: true once the user wants it to end.
            num_updates: after which it ends.
            torch_trace: where PyTorch's own trace of the last update goes; None: nowhere.
        """
        super().__init__(settings, reporter, stop)
        self.trace = SpanTrace()
        self.trace.tracks[LOOP] = "loop"
        self.timers = TracedTimers(self.trace)
        self._wanted = num_updates
        self._torch_trace = torch_trace
        self._next_count_s = 0.0

    def open_fleet(self, plan: FleetPlan) -> Simulators:
        """Gives a fleet that records; environments in this process have no turns of their own."""
        return super().open_fleet(plan) if plan.in_process else TracedFleet(plan, self.trace)

    def _build(self, name: str, spec: BehaviorSpec) -> None:
        with self.trace.span("build", LOOP):
            super()._build(name, spec)
        behavior = self.behaviors[name]
        self._watch(behavior, "decide", "inference")
        self._watch(behavior, "take_rollout", "take")
        self._watch(behavior.policy, "update_normalizer", "normalizer")
        self._watch(behavior.algorithm, "update", "update", self._with_torch_trace)

    def _watch(
        self,
        owner: object,
        method: str,
        name: str,
        around: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda call: call,
    ) -> None:
        """Records every call of a method of an object."""
        inner = around(getattr(owner, method))

        def watched(*words: Any, **more: Any) -> Any:
            with self.trace.span(name, self._track()):
                return inner(*words, **more)

        setattr(owner, method, watched)

    def _with_torch_trace(self, update: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*words: Any, **more: Any) -> Any:
            if self._torch_trace is None or self.num_updates != self._wanted - 1:
                return update(*words, **more)
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            with profile(activities=activities) as profiled:
                done = update(*words, **more)
            self._torch_trace.parent.mkdir(parents=True, exist_ok=True)
            profiled.export_chrome_trace(str(self._torch_trace))
            return done

        return traced

    @property
    def num_updates(self) -> int:
        """Updates so far, of all behaviours."""
        return sum(behavior.num_updates for behavior in self.behaviors.values())

    def _track(self) -> int:
        """Gives the track of the thread that asks."""
        if threading.current_thread() is threading.main_thread():
            return LOOP
        self.trace.tracks[LEARNER] = "learner"
        return LEARNER

    def _reason_to_end(self) -> str | None:
        if self.num_updates >= self._wanted:
            return f"{self.num_updates} updates are profiled"
        return super()._reason_to_end()

    def _answer(self, arrivals: Sequence[SimulatorMessage | SimulatorLoss]) -> None:
        super()._answer(arrivals)
        now = time.perf_counter()
        if now >= self._next_count_s:
            self._next_count_s = now + COUNTER_S
            self.trace.count("steps", self.total_steps)
            collected = sum(b.log.num_complete for b in self.behaviors.values())
            self.trace.count("decisions to learn from", collected)
            self.trace.count("messages at once", len(arrivals))

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Inside the block what all behaviours share is recorded, too: epochs."""
        trace, shuffled = self.trace, Minibatch.shuffled

        def watched_epoch(batch: Minibatch, *words: Any, **more: Any) -> Iterator[Minibatch]:
            with trace.span("epoch", self._track()):
                yield from shuffled(batch, *words, **more)

        setattr(Minibatch, "shuffled", watched_epoch)  # noqa: B010  # mypy: it is a method
        try:
            with trace.span(RUN, LOOP):
                yield
        finally:
            setattr(Minibatch, "shuffled", shuffled)  # noqa: B010

    def table(self) -> Iterator[str]:
        """Yields lines that say where the time of the loop went, parts below what they are in."""
        totals = self.trace.totals(LOOP)
        _, whole_s = totals.pop(RUN, (1, time.perf_counter() - self.trace.began_s))
        yield f"{'':28}{'calls':>10}{'seconds':>10}{'share':>8}{'each':>12}"
        top = [name for name in totals if name not in INSIDE]
        for name in sorted(top, key=lambda one: -totals[one][1]):
            yield from _rows(name, totals, whole_s, indent=0)
        known_s = sum(totals[name][1] for name in top if name != "build")  # it is in `answer`
        yield f"{'everything else':28}{'':10}{max(0.0, whole_s - known_s):10.3f}"
        learner = self.trace.totals(LEARNER)
        for name in (name for name in learner if INSIDE.get(name) not in learner):
            yield from _rows(name, learner, whole_s, indent=0, beside=", beside the loop")
        yield f"{'run':28}{'':10}{whole_s:10.3f}"
        if self.trace.num_left_out:
            yield f"The trace is full: its last {self.trace.num_left_out:,} spans were left out."


def _rows(
    name: str,
    totals: Mapping[str, tuple[int, float]],
    whole_s: float,
    indent: int,
    beside: str = "",
) -> Iterator[str]:
    calls, seconds = totals[name]
    label = f"{'  ' * indent}{name}"
    each_us = 1e6 * seconds / calls
    share = f"{100 * seconds / whole_s:6.1f} %"
    yield f"{label:28}{calls:10,}{seconds:10.3f}{share}{each_us:9,.0f} us{beside}"
    for inner, outer in INSIDE.items():
        if outer == name and inner in totals:
            yield from _rows(inner, totals, whole_s, indent + 1)
