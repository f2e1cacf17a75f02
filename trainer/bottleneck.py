"""What holds a run up, and what would help: a verdict on the time between two summaries.

A piece of advice is given only where it is sound: it says nothing of what is not known, of what
has been measured already, or of what the user has excluded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from trainer.timers import BRIDGE, INFERENCE, LEARNING, SAVING, SIMULATORS, WAITING

MOST = 0.5  # of the time: what takes so much of it holds the run up
LEAST_SHOWN = 0.005  # of the time
ADVISABLE_S = 1.0  # of an interval: processors' times are told in hundredths of a second
ROUNDING = 0.25  # of a core: a machine is never quite idle
LEAST_TO_OVERLAP = 0.1  # of the time: what learning could go on beside


class Origin(Enum):
    """Where simulators come from."""

    STARTED = "started"  # by the trainer, as many as are asked for
    EDITOR = "editor"  # the Unity Editor, of which there is one
    ELSEWHERE = "elsewhere"  # other machines start them
    WITHIN = "within"  # environments in the trainer's process


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What happened between two moments of a run; None: the system does not tell."""

    seconds: float
    shares: Mapping[str, float]  # of the measured time, by part of the loop
    idle_cores: float | None = None  # on the average
    idle_while_collecting: float | None = None
    idle_while_learning: float | None = None
    simulator_cores: float | None = None  # that one simulator keeps busy while collecting


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What decides which advice is sound."""

    origin: Origin
    num_simulators: int  # alive
    num_given_up: int = 0
    num_cores: float
    memory_for: int | None = None  # so many more simulators; None: not told
    is_counted: bool = False  # `num_envs: auto` measures, or has measured, how many are best
    could_act: bool = False  # simulators could act for themselves, but the settings forbid it
    unthreaded: tuple[str, ...] = ()  # behaviours that could learn beside collecting, and do not
    num_behaviors: int = 1


def line(interval: Interval, circumstances: Circumstances) -> str:
    """Says where the time went, what holds the run up, how many cores are idle, and what to try.

    Such as `simulators 71 %, inference 9 %, learning 20 %: simulator-bound, 6 cores idle, try
    --num-envs 14`.
    """
    parts = ", ".join(
        f"{part} {100 * share:.0f} %"
        for part, share in interval.shares.items()
        if share >= LEAST_SHOWN
    )
    judged = [verdict(interval.shares)]
    idle = _idle(interval, judged[0])
    if idle is not None:
        judged.append(_idle_words(idle))
    if (tried := advice(interval, circumstances)) is not None:
        judged.append(tried)
    return f"{parts or 'nothing measured'}: {', '.join(judged)}"


def verdict(shares: Mapping[str, float]) -> str:
    """Names what takes half of the time or more, such as `simulator-bound`."""
    trainer = shares.get(BRIDGE, 0.0) + shares.get(INFERENCE, 0.0)
    if shares.get(SIMULATORS, 0.0) >= MOST:
        return "simulator-bound"
    if shares.get(LEARNING, 0.0) + shares.get(WAITING, 0.0) >= MOST:
        return "learning-bound"
    if shares.get(SAVING, 0.0) >= MOST:
        return "saving-bound"
    if trainer >= MOST:
        is_bridge = shares.get(BRIDGE, 0.0) > shares.get(INFERENCE, 0.0)
        return "bridge-bound" if is_bridge else "inference-bound"
    return "balanced"


def _idle(interval: Interval, judged: str) -> float | None:
    """Gives the cores that are idle while the run is held up."""
    if judged == "learning-bound":
        return interval.idle_while_learning
    if judged in ("simulator-bound", "bridge-bound", "inference-bound"):
        return interval.idle_while_collecting
    return interval.idle_cores


def _idle_words(idle: float) -> str:
    count = round(idle)
    return f"{count or 'no'} core{'' if count <= 1 else 's'} idle"


def advice(interval: Interval, given: Circumstances) -> str | None:
    """Gives what to try, in words of the command line or the settings; None: nothing is sound."""
    judged = verdict(interval.shares)
    if interval.seconds < ADVISABLE_S:
        return None
    if judged == "simulator-bound":
        return _more_simulators(interval, given)
    if judged in ("bridge-bound", "inference-bound") and given.could_act:
        return "try --act-at auto"
    if judged == "learning-bound":
        return _learn_beside(interval, given)
    if judged == "saving-bound":
        return "try a larger checkpoint_interval"
    return None


def _more_simulators(interval: Interval, given: Circumstances) -> str | None:
    """Advises as many simulators as there are cores and memory for, if that is more."""
    if given.origin is Origin.EDITOR:
        return "one Unity Editor is all there can be; a build (--env) can be started several times"
    if given.origin in (Origin.ELSEWHERE, Origin.WITHIN) or given.is_counted:
        return None
    if given.num_given_up:
        words = "simulator was" if given.num_given_up == 1 else "simulators were"
        return f"{given.num_given_up} {words} given up"
    if interval.idle_while_collecting is None or interval.simulator_cores is None:
        return None
    each = max(1.0, interval.simulator_cores)
    more = math.floor(interval.idle_while_collecting / each + ROUNDING)
    more = min(more, math.floor(given.num_cores) - given.num_simulators)
    if given.memory_for is not None:
        more = min(more, given.memory_for)
    return f"try --num-envs {given.num_simulators + more}" if more >= 1 else None


def _learn_beside(interval: Interval, given: Circumstances) -> str | None:
    """Advises to learn and collect at once where a core is idle and there is much to collect."""
    collecting = sum(interval.shares.get(part, 0.0) for part in (SIMULATORS, BRIDGE, INFERENCE))
    idle = interval.idle_while_learning
    if idle is None or idle < 1.0 or collecting < LEAST_TO_OVERLAP or not given.unthreaded:
        return None
    if len(given.unthreaded) == given.num_behaviors:
        return "try threaded: true"
    return f"try threaded: true for {' and '.join(given.unthreaded)}"
