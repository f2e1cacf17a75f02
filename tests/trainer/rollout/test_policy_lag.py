"""Which policy chose a decision, and what becomes of decisions that are too old."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from crowd import Seen, Segment, decide, decisions, end, segments_of, taken, vector_spec

from envs.batch import Choices
from trainer.rollout.policy_lag import complete_rows, drop_stale, lag_of
from trainer.rollout.segments import take
from trainer.rollout.steplog import StepLog


def new_log(capacity: int = 64) -> StepLog:
    return StepLog(vector_spec(), capacity, keeps_versions=True)


def versions(log: StepLog) -> list[int]:
    found: list[int] = log.columns["policy_version"][: log.num_rows].tolist()
    return found


def test_rows_bear_the_version_that_was_published_when_they_were_chosen() -> None:
    log = new_log(capacity=2)  # it has to grow
    for version in (3, 3, 4, 6):
        log.policy_version = version
        decide(log, [Seen(0, 1, len(versions(log)))])
    assert versions(log) == [3, 3, 4, 6]
    lag = lag_of(log, complete_rows(log), 7)
    assert lag.mean == pytest.approx((4 + 4 + 3) / 3)
    assert lag.largest == 4


def test_open_row_keeps_its_version_while_rollouts_are_taken() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0), Seen(1, 2, 0)])
    for version in (1, 2):
        log.policy_version = version
        decide(log, [Seen(0, 1, version)])
        taken(log)
    assert sorted(versions(log)) == [0, 2]  # agent 2 has been silent since


def test_choice_of_a_simulator_bears_the_version_that_it_was_given() -> None:
    log = new_log()
    log.policy_version = 5
    log.append([decisions([Seen(0, 1, 0), Seen(1, 2, 0)])])
    chosen = np.zeros((1, 1), np.float32)
    choices = Choices(chosen, np.zeros((1, 0), np.int64), chosen)
    log.record_choices(np.array([1]), choices, policy_version=4)
    assert versions(log) == [5, 4]


def test_without_versions_there_is_no_column() -> None:
    assert "policy_version" not in StepLog(vector_spec(), 4).columns


def test_beginning_of_a_segment_that_is_too_old_is_dropped_and_the_rest_stays() -> None:
    log = new_log()
    for step, version in enumerate((0, 0, 1, 2, 2)):
        log.policy_version = version
        decide(log, [Seen(0, 1, step), *([Seen(1, 2, step - 2)] if step >= 2 else [])])
    end(log, Seen(0, 1, 5))
    assert log.num_complete == 7
    assert drop_stale(log, oldest=1) == 2
    assert log.num_complete == 5
    assert taken(log) == [Segment((102, 103, 104), None), Segment((200, 201), 202)]
    assert log.num_complete == 0


def test_last_sight_of_a_dropped_episode_follows_nothing_else() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0), Seen(1, 2, 0)])
    log.policy_version = 1
    decide(log, [Seen(1, 2, 1)])
    end(log, Seen(0, 1, 1), truncated=True)  # all of it was chosen by version 0
    end(log, Seen(1, 2, 2), truncated=True)  # its end by version 1
    decide(log, [Seen(2, 3, 0)])
    decide(log, [Seen(2, 3, 1)])  # the last segment: its bootstrap is where the bug would show
    assert drop_stale(log, oldest=1) == 2
    assert taken(log) == [Segment((201,), 202), Segment((300,), 301)]


def test_nothing_old_nothing_dropped() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0)])
    end(log, Seen(0, 1, 1), truncated=True)
    assert drop_stale(log, oldest=0) == 0
    assert taken(log) == [Segment((100,), 101)]


def test_whole_episodes_lose_their_old_beginnings_while_they_wait() -> None:
    log = new_log()
    device = torch.device("cpu")
    for step in range(3):
        log.policy_version = step
        decide(log, [Seen(0, 1, step), Seen(1, 2, step)])
    end(log, Seen(0, 1, 3))
    rollout, reward = take(log, 1000, device, whole_episodes=True)
    assert segments_of(rollout, reward) == [Segment((100, 101, 102), None)]
    assert (log.num_complete, log.num_kept) == (2, 2)  # agent 2 goes on
    assert drop_stale(log, oldest=1) == 1
    assert (log.num_complete, log.num_kept) == (1, 1)
    end(log, Seen(1, 2, 3))
    rollout, reward = take(log, 1000, device, whole_episodes=True)
    assert segments_of(rollout, reward) == [Segment((201, 202), None)]
