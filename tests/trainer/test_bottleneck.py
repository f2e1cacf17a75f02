"""The verdict on what holds a run up, and when a piece of advice is sound."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.bottleneck import Circumstances, Interval, Origin, line, verdict
from trainer.machine import Reading
from trainer.speed_watch import Load, with_idle_cores

WAITING = {"simulators": 0.71, "bridge": 0.0, "inference": 0.09, "learning": 0.20, "saving": 0.0}
LEARNING = {"simulators": 0.2, "bridge": 0.05, "inference": 0.05, "learning": 0.7, "saving": 0.0}
ACTING = {"simulators": 0.2, "bridge": 0.1, "inference": 0.6, "learning": 0.1, "saving": 0.0}


def told(shares: dict[str, float], *, idle: float | None = 6.0, **given: Any) -> str:
    interval = Interval(
        seconds=given.pop("seconds", 10.0),
        shares=shares,
        idle_cores=idle,
        idle_while_collecting=given.pop("idle_while_collecting", idle),
        idle_while_learning=given.pop("idle_while_learning", idle),
        simulator_cores=given.pop("simulator_cores", 0.9),
    )
    words = {"origin": Origin.STARTED, "num_simulators": 8, "num_cores": 16.0, **given}
    return line(interval, Circumstances(**words))


def test_line_is_the_one_of_the_issue() -> None:
    assert told(WAITING) == (
        "simulators 71 %, inference 9 %, learning 20 %: simulator-bound, 6 cores idle, "
        "try --num-envs 14"
    )


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (WAITING, "simulator-bound"),
        (LEARNING, "learning-bound"),
        (ACTING, "inference-bound"),
        ({"simulators": 0.3, "bridge": 0.4, "inference": 0.2, "learning": 0.1}, "bridge-bound"),
        ({"simulators": 0.3, "learning": 0.1, "saving": 0.6}, "saving-bound"),
        ({"simulators": 0.45, "inference": 0.1, "learning": 0.45}, "balanced"),
        ({}, "balanced"),
    ],
)
def test_what_takes_half_of_the_time_holds_the_run_up(
    shares: dict[str, float], expected: str
) -> None:
    assert verdict(shares) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # 3 idle cores, each simulator keeps 1.5 busy: two more.
        ({"idle": 3.0, "simulator_cores": 1.5}, "3 cores idle, try --num-envs 10"),
        # Simulators that sleep are never advised beyond the cores.
        ({"simulator_cores": 0.01, "idle": 12.0}, "12 cores idle, try --num-envs 16"),
        ({"num_simulators": 16}, "6 cores idle"),
        ({"num_simulators": 40}, "6 cores idle"),
        ({"memory_for": 3}, "6 cores idle, try --num-envs 11"),
        ({"memory_for": 0}, "6 cores idle"),
        ({"idle": 0.6}, "1 core idle"),
        ({"idle": 0.8}, "1 core idle, try --num-envs 9"),  # a machine is never quite idle
        ({"idle": 0.2}, "no core idle"),
        ({"idle": None}, ""),
        ({"is_counted": True}, "6 cores idle"),
        ({"num_given_up": 2}, "6 cores idle, 2 simulators were given up"),
        ({"origin": Origin.ELSEWHERE}, "6 cores idle"),
        ({"seconds": 0.5}, "6 cores idle"),  # too short for processors' clocks
        ({"simulator_cores": None}, "6 cores idle"),
    ],
)
def test_more_simulators_are_advised_only_where_they_have_cores_and_memory(
    given: dict[str, Any], expected: str
) -> None:
    found = told(WAITING, **given).partition("simulator-bound")[2].removeprefix(", ")
    assert found == expected


def test_the_editor_cannot_be_multiplied() -> None:
    found = told(WAITING, origin=Origin.EDITOR, num_simulators=1)
    assert "--num-envs" not in found
    assert found.endswith(
        "one Unity Editor is all there can be; a build (--env) can be started several times"
    )


def test_threaded_is_advised_to_behaviors_that_lack_it_while_a_core_is_idle() -> None:
    both: dict[str, Any] = {"unthreaded": ("A", "B"), "num_behaviors": 2, "idle": 1.0}
    assert told(LEARNING, **both).endswith("learning-bound, 1 core idle, try threaded: true")
    one = {**both, "unthreaded": ("B",)}
    assert told(LEARNING, **one).endswith(", try threaded: true for B")
    assert told(LEARNING, **{**both, "unthreaded": ()}).endswith("learning-bound, 1 core idle")
    assert told(LEARNING, **{**both, "idle": 0.9}).endswith("learning-bound, 1 core idle")


def test_threaded_is_not_advised_where_there_is_nothing_to_overlap() -> None:
    alone = {"simulators": 0.05, "inference": 0.03, "learning": 0.92}
    assert told(alone, unthreaded=("A",)).endswith("learning-bound, 6 cores idle")


def test_acting_at_simulators_is_advised_where_it_is_possible_and_forbidden() -> None:
    assert told(ACTING, could_act=True).endswith("inference-bound, 6 cores idle, try --act-at auto")
    assert told(ACTING).endswith("inference-bound, 6 cores idle")


# Idle cores: what the phases of ten seconds on a machine of 8 cores leave.


def load(
    moment_s: float,
    *,
    own_s: float = 0.0,
    idle_s: float | None = 0.0,
    simulators: dict[int, float] | None = None,
    learning: tuple[float, float] = (0.0, 0.0),
    load: float | None = None,
    elapsed_s: float = 0.0,
) -> Load:
    reading = Reading(
        moment_s, own_s, simulators or {}, idle_s, 8 if idle_s is not None else 0, load
    )
    outside = {"learning": learning[0], "saving": 0.0}
    own_outside = {"learning": learning[1], "saving": 0.0}
    return Load(reading, outside, own_outside, elapsed_s)


def idle(before: Load, now: Load, num_cores: float = 8.0) -> Interval:
    return with_idle_cores(Interval(seconds=10.0, shares=WAITING), before, now, num_cores)


def test_idle_cores_are_told_for_collecting_and_for_learning() -> None:
    # 4 s of learning on 2 cores; 6 s of collecting in which the trainer takes half a core and two
    # simulators take one each. Other programs take 1 core all the time. Busy core seconds:
    # 4*2 + 6*0.5 + 6*2 + 10*1 = 33 of 80.
    found = idle(
        load(100.0, simulators={7: 50.0, 8: 20.0}, own_s=3.0, idle_s=1000.0),
        load(
            110.0,
            simulators={7: 56.0, 8: 26.0},
            own_s=3.0 + 8.0 + 3.0,
            idle_s=1047.0,
            learning=(4.0, 8.0),
        ),
    )
    assert found.idle_cores == pytest.approx(4.7)
    assert found.idle_while_collecting == pytest.approx(4.5)  # 8 - 1 - 0.5 - 2
    assert found.idle_while_learning == pytest.approx(5.0)  # 8 - 1 - 2
    assert found.simulator_cores == pytest.approx(1.0)


def test_a_container_has_no_more_idle_cores_than_its_quota() -> None:
    found = idle(load(0.0), load(10.0, own_s=5.0, idle_s=75.0, simulators={7: 10.0}), 2.0)
    assert found.idle_cores == pytest.approx(0.5)  # 2 - 0.5 - 1
    assert found.idle_while_collecting == pytest.approx(0.5)


def test_without_proc_the_load_of_the_last_minute_stands_for_it() -> None:
    start = load(0.0, idle_s=None, load=0.0)
    late = load(10.0, idle_s=None, load=2.5, elapsed_s=61.0)
    assert idle(start, late).idle_while_collecting == pytest.approx(5.5)
    assert idle(start, late).simulator_cores is None  # so that no number is advised
    early = load(10.0, idle_s=None, load=2.5, elapsed_s=59.0)
    assert idle(start, early).idle_cores is None
    nothing = load(10.0, idle_s=None, elapsed_s=61.0)  # Windows
    assert idle(start, nothing).idle_cores is None
