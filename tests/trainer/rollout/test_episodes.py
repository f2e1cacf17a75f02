from __future__ import annotations

import numpy as np
from crowd import FIRST_REWARD, Seen, decisions, lanes_of, terminals

from trainer.rollout.episodes import EpisodeTracker


def test_return_is_the_sum_of_own_rewards_and_length_counts_transitions() -> None:
    tracker = EpisodeTracker()
    for step in range(3):
        tracker.decide(decisions([Seen(0, 1, step)]))
    tracker.end(terminals([Seen(0, 1, 3)], [False]))
    returns, lengths = tracker.take_finished()
    # 100.5 + 101.5 + 102.5, each less the group's 0.125; the 9999 of the first message is not in it
    assert returns.tolist() == [304.5 - 3 * 0.125]
    assert lengths.tolist() == [3]


def test_reward_of_the_first_message_belongs_to_no_decision() -> None:
    tracker = EpisodeTracker()
    batch = decisions([Seen(0, 1, 0)])
    assert batch.reward.tolist() == [FIRST_REWARD]
    tracker.decide(batch)
    tracker.end(terminals([Seen(0, 1, 1)], [False]))
    assert tracker.take_finished()[0].tolist() == [100.5 - 0.125]


def test_agents_at_different_times_have_sums_of_their_own() -> None:
    tracker = EpisodeTracker()
    tracker.decide(decisions([Seen(0, 1, 0), Seen(70, 2, 0)]))  # lane 70: the table grows
    tracker.decide(decisions([Seen(70, 2, 1)]))
    tracker.end(terminals([Seen(70, 2, 2), Seen(0, 1, 1)], [True, False]))
    returns, lengths = tracker.take_finished()
    # agent 2: 200.5 + 201.5 - 2 * 0.125; agent 1: 100.5 - 0.125
    assert returns.tolist() == [401.75, 100.375]
    assert lengths.tolist() == [2, 1]


def test_lane_that_is_used_again_starts_at_zero() -> None:
    tracker = EpisodeTracker()
    for agent in (1, 2):
        tracker.decide(decisions([Seen(0, agent, 0)]))
        tracker.end(terminals([Seen(0, agent, 1)], [False]))
    assert tracker.take_finished()[0].tolist() == [100.375, 200.375]


def test_abandoned_episode_is_forgotten() -> None:
    tracker = EpisodeTracker()
    tracker.decide(decisions([Seen(0, 1, 0), Seen(1, 2, 0)]))
    tracker.decide(decisions([Seen(0, 1, 1), Seen(1, 2, 1)]))
    tracker.abandon(lanes_of([Seen(0, 1, 1)]))
    tracker.abandon(np.array([], dtype=np.int64))
    tracker.abandon(np.array([999]))
    tracker.decide(decisions([Seen(0, 3, 0)]))
    tracker.end(terminals([Seen(0, 3, 1), Seen(1, 2, 2)], [False, False]))
    returns, lengths = tracker.take_finished()
    assert returns.tolist() == [300.375, 401.75]
    assert lengths.tolist() == [1, 2]


def test_finished_episodes_are_given_once_and_the_recent_ones_stay() -> None:
    tracker = EpisodeTracker(window=2)
    assert tracker.take_finished()[0].tolist() == []
    for agent in (1, 2, 3):
        tracker.decide(decisions([Seen(0, agent, 0)]))
        tracker.end(terminals([Seen(0, agent, 1)], [False]))
    assert tracker.take_finished()[0].tolist() == [100.375, 200.375, 300.375]
    assert tracker.take_finished()[0].tolist() == []
    assert list(tracker.recent_returns) == [200.375, 300.375]
    assert list(tracker.recent_lengths) == [1, 1]


def test_long_sums_keep_small_rewards() -> None:
    tracker = EpisodeTracker()
    batch = decisions([Seen(0, 1, 0)])
    tracker.decide(batch)
    batch.reward[:] = 0.1
    for _ in range(100_000):
        tracker.decide(batch)
    tracker.end(terminals([Seen(0, 1, 1)], [False]))
    # In float32 this sum would be off by about 2.
    assert abs(tracker.take_finished()[0][0] - (10_000 + 100.375)) < 0.01
