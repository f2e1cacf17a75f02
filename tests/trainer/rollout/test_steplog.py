from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from crowd import Seen, Segment, decide, decisions, end, lanes_of, new_log, taken, terminals
from numpy.typing import NDArray

from envs.batch import Choices, Decisions
from envs.spec import VISUAL, ActionSpec, BehaviorSpec, ObservationSpec, ObservationType
from trainer.rollout.segments import take
from trainer.rollout.steplog import StepLog


def test_reward_of_a_decision_is_the_one_that_comes_with_the_next_message() -> None:
    log = new_log()
    for step in range(3):
        decide(log, [Seen(0, agent=7, step=step)])
    assert log.num_complete == 2
    end(log, Seen(0, agent=7, step=3))
    assert log.num_complete == 3
    assert taken(log) == [Segment((700, 701, 702), None)]


def test_columns_are_one_memory_with_the_tensors() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0)])
    for name, column in log.columns.items():
        if column.size:
            assert log.tensors[name].data_ptr() == column.ctypes.data, name


def test_images_stay_bytes_from_the_decision_to_the_rollout() -> None:
    camera = ObservationSpec((3, 2, 2), VISUAL, ObservationType.DEFAULT, "eye", "uint8")
    log = StepLog(BehaviorSpec([camera], ActionSpec(1, ())), 2)

    def seen(step: int) -> tuple[NDArray[np.uint8]]:
        return (np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2) + np.uint8(20 * step),)

    for step in range(6):  # more than fit at first
        rows = log.append([replace(decisions([Seen(0, 1, step)]), obs=seen(step))])
        column = log.columns["obs_0"]
        assert log.obs_tensors[0].dtype == torch.uint8
        assert log.obs_tensors[0].data_ptr() == column.ctypes.data
        nothing = np.zeros((1, 1), np.float32)
        log.record(rows, Choices(nothing, np.zeros((1, 0), np.int64), nothing))
    log.close(replace(terminals([Seen(0, 1, 6)], [True]), obs=seen(6)))

    rollout, _ = take(log, 1000, torch.device("cpu"))

    assert rollout.obs[0].dtype == rollout.bootstrap_obs[0].dtype == torch.uint8
    assert rollout.obs[0][:, 2, 1, 1].tolist() == [11, 31, 51, 71, 91, 111]
    assert rollout.bootstrap_obs[0][:, 0, 0, 1].tolist() == [121]


def test_group_reward_counts_like_the_own_one() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0)])
    decide(log, [Seen(0, 1, 1)])
    # crowd.py takes 0.125 off the own reward and puts it into the group's
    assert log.columns["reward"][0] == 100.5


def test_first_message_of_an_agent_rewards_nobody() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0), Seen(1, 2, 0)])
    end(log, Seen(0, 1, 1))
    decide(log, [Seen(0, 3, 0)])  # the lane of agent 1, with a reward of 9999
    end(log, Seen(0, 3, 1))
    assert taken(log) == [Segment((100,), None), Segment((300,), None)]


def test_agents_that_decide_at_different_times_keep_their_own_rows() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0), Seen(1, 2, 0), Seen(2, 3, 0)])
    decide(log, [Seen(2, 3, 1)])
    decide(log, [Seen(0, 1, 1), Seen(2, 3, 2)])
    end(log, Seen(2, 3, 3))
    decide(log, [Seen(1, 2, 1)])
    end(log, Seen(1, 2, 2), truncated=True)
    end(log, Seen(0, 1, 2))
    assert taken(log) == [
        Segment((100, 101), None),
        Segment((200, 201), 202),
        Segment((300, 301, 302), None),
    ]


def test_agent_that_restarts_within_one_message_starts_a_segment() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0), Seen(1, 2, 0)])
    # The message holds the end of agent 1 and the first decision of its successor in a new lane.
    end(log, Seen(0, 1, 1))
    decide(log, [Seen(1, 2, 1), Seen(2, 3, 0)])
    end(log, Seen(1, 2, 2))
    end(log, Seen(2, 3, 1), truncated=True)
    assert taken(log) == [
        Segment((100,), None),
        Segment((200, 201), None),
        Segment((300,), 301),
    ]


def test_lane_that_is_used_again_never_joins_two_episodes() -> None:
    log = new_log()
    for agent, truncated in ((1, False), (2, True), (3, False)):
        decide(log, [Seen(5, agent, 0)])
        decide(log, [Seen(5, agent, 1)])
        end(log, Seen(5, agent, 2), truncated)
    assert taken(log) == [
        Segment((100, 101), None),
        Segment((200, 201), 202),
        Segment((300, 301), None),
    ]


def test_several_ends_in_one_message_keep_their_kinds_and_last_observations() -> None:
    log = new_log()
    decide(log, [Seen(lane, lane + 1, 0) for lane in range(5)])
    ended = [Seen(lane, lane + 1, 1) for lane in (3, 0, 4, 1)]
    log.close(terminals(ended, [True, False, True, False]))
    end(log, Seen(2, 3, 1), truncated=True)
    assert taken(log) == [
        Segment((100,), None),
        Segment((200,), None),
        Segment((300,), 301),
        Segment((400,), 401),
        Segment((500,), 501),
    ]


def test_end_of_an_agent_without_a_decision_is_nothing() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0)])
    log.close(terminals([Seen(9, 2, 1), Seen(0, 1, 1)], [True, False]))
    assert log.num_complete == 1
    assert taken(log) == [Segment((100,), None)]


def test_open_rows_reappear_in_the_next_rollout_with_their_reward() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0), Seen(1, 2, 0), Seen(2, 3, 0)])
    decide(log, [Seen(2, 3, 1), Seen(0, 1, 1)])  # agent 2 has not been heard of
    assert taken(log) == [Segment((100,), 101), Segment((300,), 301)]
    assert (log.num_rows, log.num_complete) == (3, 0)
    decide(log, [Seen(1, 2, 1), Seen(2, 3, 2)])
    end(log, Seen(0, 1, 2))
    assert taken(log) == [Segment((101,), None), Segment((200,), 201), Segment((301,), 302)]
    assert log.num_rows == 2
    end(log, Seen(1, 2, 2))
    end(log, Seen(2, 3, 3), truncated=True)
    assert taken(log) == [Segment((201,), None), Segment((302,), 303)]
    assert log.num_rows == 0


def test_abandoned_lanes_lose_their_unfinished_row_only() -> None:
    log = new_log()
    for step in range(3):
        decide(log, [Seen(0, 1, step), Seen(1, 2, step)])
    log.abandon(lanes_of([Seen(0, 1, 2)]))
    assert log.num_complete == 4
    decide(log, [Seen(1, 2, 3), Seen(0, 3, 0)])  # the lane has a new owner
    end(log, Seen(0, 3, 1))
    # Agent 1 was cut: its second decision is followed by the observation of the lost third.
    assert taken(log) == [
        Segment((100, 101), 102),
        Segment((300,), None),
        Segment((200, 201, 202), 203),
    ]
    end(log, Seen(1, 2, 4))
    assert taken(log) == [Segment((203,), None)]


def test_abandoning_lanes_that_nobody_knows_changes_nothing() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0)])
    log.abandon(np.array([], dtype=np.int64))
    log.abandon(np.array([3, 5000]))
    end(log, Seen(0, 1, 1))
    assert taken(log) == [Segment((100,), None)]


def test_log_and_lane_table_grow_without_losing_anything() -> None:
    log = new_log(capacity=1)
    crowd = 300
    for step in range(4):
        decide(log, [Seen(3 * lane, lane + 1, step) for lane in range(crowd)])
    for lane in range(crowd):
        end(log, Seen(3 * lane, lane + 1, 4), truncated=lane % 2 == 1)
    assert taken(log) == [
        Segment(
            tuple(100.0 * agent + step for step in range(4)),
            None if agent % 2 else 100.0 * agent + 4,
        )
        for agent in range(1, crowd + 1)
    ]
    assert log.capacity >= 4 * crowd


def test_rows_are_given_in_the_order_of_the_batches() -> None:
    log = new_log()
    decide(log, [Seen(9, 4, 0)])
    rows = log.append([decisions([Seen(1, 2, 0), Seen(0, 1, 0)]), decisions([Seen(2, 3, 0)])])
    assert (rows.start, rows.stop) == (1, 4)
    assert log.columns["obs_0"][rows, 0].tolist() == [200, 100, 300]
    assert log.columns["lane"][rows].tolist() == [1, 0, 2]


def test_discrete_actions_and_masks_stay_with_their_decision() -> None:
    log = StepLog(BehaviorSpec([], ActionSpec(0, (2, 3))), 2)
    zeros = np.zeros(2, np.int32)
    mask = np.array([[True, False, True, True, False], [False, True, False, True, True]])
    batch = Decisions(
        obs=(),
        reward=np.zeros(2, np.float32),
        lane=np.array([1, 0]),
        agent_id=zeros,
        simulator=zeros,
        team=zeros,
        group_id=zeros,
        group_reward=np.zeros(2, np.float32),
        action_mask=mask,
    )
    discrete = np.array([[0, 1], [1, 2]])
    log_probs = -discrete.astype(np.float32)
    for _ in range(2):
        rows = log.append([batch])
        log.record(rows, Choices(np.zeros((2, 0), np.float32), discrete, log_probs))
    assert (log.columns["discrete"][:4] == np.tile(discrete, (2, 1))).all()
    assert (log.columns["log_probs"][:4] == np.tile(log_probs, (2, 1))).all()
    assert (log.columns["action_mask"][:4] == np.tile(mask, (2, 1))).all()
