from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
import torch
from crowd import (
    Seen,
    Segment,
    decide,
    end,
    lanes_of,
    new_log,
    segments_of,
    taken,
    terminals,
    vector_spec,
)

from trainer.rollout.finished_rows import FinishedRows
from trainer.rollout.policy_lag import drop_stale
from trainer.rollout.segments import finished_segments, take
from trainer.rollout.steplog import StepLog


def test_time_horizon_cuts_long_runs_and_starts_counting_anew_in_each() -> None:
    log = new_log()
    for step in range(7):
        decide(log, [Seen(0, 1, step), Seen(1, 2, step)])
    end(log, Seen(0, 1, 7))
    assert taken(log, time_horizon=3) == [
        Segment((100, 101, 102), 103),
        Segment((103, 104, 105), 106),
        Segment((106,), None),
        Segment((200, 201, 202), 203),
        Segment((203, 204, 205), 206),
    ]


def test_run_of_exactly_the_time_horizon_is_one_segment() -> None:
    log = new_log()
    for step in range(3):
        decide(log, [Seen(0, 1, step)])
    end(log, Seen(0, 1, 3), truncated=True)
    assert taken(log, time_horizon=3) == [Segment((100, 101, 102), 103)]


def test_time_horizon_of_one_makes_every_decision_a_segment() -> None:
    log = new_log()
    for step in range(3):
        decide(log, [Seen(0, 1, step)])
    end(log, Seen(0, 1, 3))
    assert taken(log, time_horizon=1) == [
        Segment((100,), 101),
        Segment((101,), 102),
        Segment((102,), None),
    ]


def test_nothing_follows_a_termination_whatever_stands_in_its_place() -> None:
    log = new_log()
    for agent, truncated in ((1, False), (2, True)):
        decide(log, [Seen(0, agent, 0)])
        end(log, Seen(0, agent, 1), truncated)
    rollout, _ = take(log, 10, torch.device("cpu"))
    following = rollout.next_values(torch.zeros(2, 1), torch.tensor([[7.0], [8.0]]))
    assert following.tolist() == [[0.0], [8.0]]
    assert rollout.is_segment_end().tolist() == [True, True]


def test_rewards_wait_to_be_filled_in_and_the_simulators_are_given_apart() -> None:
    log = new_log()
    decide(log, [Seen(0, 1, 0)])
    end(log, Seen(0, 1, 1))
    rollout, reward = take(log, 10, torch.device("cpu"))
    assert rollout.rewards.shape == (1, 0)
    assert reward.tolist() == [100.5]


def test_rollout_does_not_change_when_the_log_is_written_again() -> None:
    log = new_log(capacity=4)
    decide(log, [Seen(0, 1, 0)])
    decide(log, [Seen(0, 1, 1)])
    rollout, _ = take(log, 10, torch.device("cpu"))
    for agent in range(2, 6):
        decide(log, [Seen(agent, agent, 0)])
        end(log, Seen(agent, agent, 1))
    assert rollout.obs[0].tolist() == [[100.0]]
    assert rollout.bootstrap_obs[0].tolist() == [[101.0]]


@dataclass
class Storm:
    """A random crowd, and beside the log the plainest possible account of it: a list per agent."""

    log: StepLog
    chance: random.Random
    num_lanes: int
    order: random.Random  # of the agents in a message, and of messages in a batch
    living: dict[int, Seen] = field(default_factory=dict)  # by lane
    next_agent: int = 1
    # by agent: its complete decisions of this rollout, and what came after the last
    complete: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    ended: set[int] = field(default_factory=set)  # terminated agents

    def tick(self) -> None:
        chance = self.chance
        if chance.random() < 0.1:
            self.abandon()
        heard = [one for one in self.living.values() if chance.random() < 0.6]
        leaving = [one for one in heard if chance.random() < 0.15]
        kinds = {one.agent: chance.random() < 0.5 for one in leaving}
        staying = [one for one in heard if one not in leaving]
        for one in heard:
            self.complete[one.agent].append(one.step)
        for one in leaving:
            del self.living[one.lane]
            if not kinds[one.agent]:
                self.ended.add(one.agent)
        asking = []
        for one in staying:
            self.living[one.lane] = Seen(one.lane, one.agent, one.step + 1)
            asking.append(self.living[one.lane])
        for lane in range(self.num_lanes):
            if lane not in self.living and chance.random() < 0.5:
                self.living[lane] = Seen(lane, self.next_agent, 0)
                asking.append(self.living[lane])
                self.next_agent += 1

        self.order.shuffle(leaving)
        self.order.shuffle(asking)
        if leaving:
            last = [Seen(one.lane, one.agent, one.step + 1) for one in leaving]
            self.log.close(terminals(last, [kinds[one.agent] for one in leaving]))
        split = self.order.randint(0, len(asking))
        batches = [batch for batch in (asking[:split], asking[split:]) if batch]
        if batches:
            decide(self.log, *batches)

    def abandon(self) -> None:
        """A simulator is lost, with some of the agents; all have an open row."""
        lost = [one for one in self.living.values() if self.chance.random() < 0.3]
        self.log.abandon(lanes_of(lost))
        for one in lost:
            del self.living[one.lane]

    def expected(self, time_horizon: int, whole_episodes: bool = False) -> set[Segment]:
        """Cuts each agent's own list, and starts a new account; may keep who goes on."""
        found = set()
        goes_on = {one.agent for one in self.living.values()} if whole_episodes else set()
        kept = {}
        for agent, steps in self.complete.items():
            if agent in goes_on:
                tail = len(steps) - len(steps) % time_horizon
                kept[agent], steps = steps[tail:], steps[:tail]
            for at in range(0, len(steps), time_horizon):
                part = steps[at : at + time_horizon]
                is_last = at + time_horizon >= len(steps)
                follows = None if is_last and agent in self.ended else 100.0 * agent + part[-1] + 1
                found.add(Segment(tuple(100.0 * agent + step for step in part), follows))
        self.complete.clear()
        self.complete.update(kept)
        return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("time_horizon", [1, 4, 1000])
def test_random_crowd_gives_the_segments_of_each_agents_own_diary(
    seed: int, time_horizon: int
) -> None:
    storm = Storm(StepLog(vector_spec(), 8), random.Random(seed), 9, random.Random(seed))
    rollouts = 0
    for _ in range(150):
        storm.tick()
        if storm.chance.random() < 0.1 and storm.log.num_complete:
            expected = storm.expected(time_horizon)
            num_complete = storm.log.num_complete
            found = taken(storm.log, time_horizon)
            assert set(found) == expected
            assert len(found) == len(expected)
            assert sum(len(segment.obs) for segment in found) == num_complete
            rollouts += 1
    assert rollouts > 3


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("time_horizon", [1, 4, 1000])
def test_decisions_of_an_episode_that_goes_on_wait_for_its_end(
    seed: int, time_horizon: int
) -> None:
    counted = FinishedRows(time_horizon)
    log = StepLog(vector_spec(), 8, finished=counted)
    storm = Storm(log, random.Random(seed), 9, random.Random(seed))
    kept = []
    for _ in range(200):
        storm.tick()
        if storm.chance.random() < 0.15:
            assert counted.num_rows == len(finished_segments(log, time_horizon).rows)
            expected = storm.expected(time_horizon, whole_episodes=True)
            assert len(finished_segments(storm.log, time_horizon).starts) - 1 == len(expected)
            if not expected:
                continue
            rollout = take(storm.log, time_horizon, torch.device("cpu"), whole_episodes=True)
            found = segments_of(*rollout)
            assert set(found) == expected
            assert len(found) == len(expected)
            assert counted.num_rows == 0
            left = sum(len(steps) for steps in storm.complete.values())
            assert storm.log.num_complete == storm.log.num_kept == left
            kept.append(left)
    assert len(kept) > 3
    assert max(kept) > 3 or time_horizon == 1


def test_rows_that_are_dropped_unfinished_are_not_counted_later() -> None:
    counted = FinishedRows(4)
    storm = Storm(
        StepLog(vector_spec(), 8, finished=counted), random.Random(1), 9, random.Random(1)
    )
    for _ in range(3):
        for _ in range(20):
            storm.tick()
        storm.log.keep_open_rows()
        assert counted.num_rows == 0
        assert len(finished_segments(storm.log, 4).rows) == 0
        for _ in range(20):
            storm.tick()
            assert counted.num_rows == len(finished_segments(storm.log, 4).rows)


@pytest.mark.parametrize("time_horizon", [4, 1000])
def test_finished_rows_are_counted_anew_when_old_ones_are_dropped(time_horizon: int) -> None:
    counted = FinishedRows(time_horizon)
    log = StepLog(vector_spec(), 64, finished=counted, keeps_versions=True)
    storm = Storm(log, random.Random(3), 9, random.Random(3))
    num_dropped = 0
    for version in range(12):
        log.policy_version = version
        for _ in range(15):
            storm.tick()
        num_dropped += drop_stale(log, version - 2)
        assert counted.num_rows == len(finished_segments(log, time_horizon).rows)
        storm.tick()
        assert counted.num_rows == len(finished_segments(log, time_horizon).rows)
    assert num_dropped > 50


@pytest.mark.parametrize("order_seed", [1, 2, 3])
def test_order_of_agents_and_batches_does_not_change_the_rollout(order_seed: int) -> None:
    storms = [
        Storm(StepLog(vector_spec(), 8), random.Random(0), 9, random.Random(order))
        for order in (0, order_seed)
    ]
    for storm in storms:
        for _ in range(60):
            storm.tick()
    first, second = (take(storm.log, 5, torch.device("cpu")) for storm in storms)
    for name in ("continuous", "log_probs", "segment_starts", "terminated"):
        assert torch.equal(getattr(first[0], name), getattr(second[0], name)), name
    assert torch.equal(first[0].obs[0], second[0].obs[0])
    assert torch.equal(first[1], second[1])
