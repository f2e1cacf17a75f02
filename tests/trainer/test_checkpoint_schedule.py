from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from trainer.behavior import Behavior
from trainer.checkpoint_schedule import CheckpointSchedule
from trainer.config.settings import CheckpointSettings


@dataclass
class Collecting:
    """What the schedule looks at of a behaviour."""

    name: str = "Walker"
    saved_step: int = 0
    is_checkpoint_due: bool = False
    is_finished: bool = False
    has_just_learned: bool = True
    update: object = None
    num_planned: int = 0

    def plan_next_checkpoint(self) -> None:
        self.num_planned += 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def schedule_of(clock: Clock, **settings: object) -> CheckpointSchedule:
    return CheckpointSchedule(CheckpointSettings.model_validate(settings), clock)


def begun(schedule: CheckpointSchedule, step: int = 0) -> tuple[Collecting, Behavior]:
    """The same object twice: to change, and to give."""
    found = Collecting(saved_step=step)
    schedule.begin(cast("Behavior", found))
    return found, cast("Behavior", found)


def test_what_was_learnt_is_due_after_five_minutes_unless_told_otherwise() -> None:
    clock = Clock()
    schedule = schedule_of(clock)
    state, behavior = begun(schedule, step=500)
    clock.now += 299.9
    state.saved_step = 600
    assert not schedule.is_due(behavior)
    clock.now += 0.1
    state.has_just_learned = False  # also while decisions are being collected
    assert schedule.is_due(behavior)
    schedule.saved(behavior)
    assert state.num_planned == 1
    assert not schedule.is_due(behavior)
    clock.now += 300
    assert not schedule.is_due(behavior)  # nothing was learnt since
    state.saved_step = 601
    assert schedule.is_due(behavior)


def test_without_an_interval_the_clock_decides_nothing() -> None:
    clock = Clock()
    schedule = schedule_of(clock, checkpoint_interval_s=None)
    state, behavior = begun(schedule)
    state.saved_step, clock.now = 10**6, 10**9
    assert not schedule.is_due(behavior)


def test_steps_count_between_updates_only() -> None:
    schedule = schedule_of(Clock())
    state, behavior = begun(schedule)
    state.is_checkpoint_due, state.has_just_learned = True, False
    assert not schedule.is_due(behavior)
    state.has_just_learned = True
    assert schedule.is_due(behavior)
    state.is_finished = True  # it is saved at the end of the run
    assert not schedule.is_due(behavior)


@pytest.mark.parametrize(
    ("start", "step", "milestone"),
    [(0, 999, False), (0, 1000, True), (999, 1005, True), (1000, 1999, False), (1500, 4000, True)],
)
def test_first_checkpoint_behind_a_multiple_is_a_milestone(
    start: int, step: int, milestone: bool
) -> None:
    schedule = schedule_of(Clock(), milestone_interval=1000)
    state, behavior = begun(schedule, step=start)
    state.saved_step = step
    assert schedule.is_milestone(behavior) == milestone
    assert schedule.is_due(behavior) == milestone
    schedule.saved(behavior)
    assert not schedule.is_milestone(behavior)


def test_there_are_no_milestones_unless_asked_for() -> None:
    schedule = schedule_of(Clock())
    state, behavior = begun(schedule)
    state.saved_step = 10**9
    assert not schedule.is_milestone(behavior)
