"""Lane numbers against an oracle made of dicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.batch import Int32
from envs.errors import BadDataError
from envs.lanes import NOBODY, LaneTable


def ids(*values: int) -> Int32:
    return np.array(values, np.int32)


def test_lanes_are_dense_and_follow_the_order_of_the_message() -> None:
    agents = LaneTable().agents(0, "B?team=0", "B")
    assert agents.of_decisions(ids(50, 7, 30)).tolist() == [0, 1, 2]
    assert agents.of_decisions(ids(30, 50)).tolist() == [2, 0]


def test_same_ids_give_the_same_array() -> None:
    agents = LaneTable().agents(0, "B", "B")
    first = agents.of_decisions(ids(1, 2))
    assert agents.of_decisions(ids(1, 2)) is first


def test_lane_of_an_ended_episode_is_used_again_only_after_recycling() -> None:
    table = LaneTable()
    agents = table.agents(0, "B", "B")
    agents.of_decisions(ids(1, 2))
    assert agents.of_terminals(ids(1)).tolist() == [0]
    assert agents.of_decisions(ids(2, 3)).tolist() == [1, 2]
    table.recycle()
    assert agents.of_decisions(ids(2, 3, 4)).tolist() == [1, 2, 0]


def test_teams_and_simulators_share_the_lanes_of_a_name() -> None:
    table = LaneTable()
    assert table.agents(0, "B?team=0", "B").of_decisions(ids(1)).tolist() == [0]
    assert table.agents(0, "B?team=1", "B").of_decisions(ids(1)).tolist() == [1]
    assert table.agents(1, "B?team=0", "B").of_decisions(ids(1)).tolist() == [2]
    assert table.agents(0, "C?team=0", "C").of_decisions(ids(1)).tolist() == [0]


def test_agent_that_ends_without_a_decision_has_no_lane() -> None:
    agents = LaneTable().agents(0, "B", "B")
    agents.of_decisions(ids(5))
    assert agents.of_terminals(ids(9, 5, 5)).tolist() == [NOBODY, 0, NOBODY]


def test_clearing_a_simulator_gives_its_lanes_by_name() -> None:
    table = LaneTable()
    table.agents(0, "B?team=0", "B").of_decisions(ids(1, 2))
    table.agents(1, "B?team=0", "B").of_decisions(ids(1))
    table.agents(0, "B?team=1", "B").of_decisions(ids(3))
    void = table.clear([0])
    assert {name: lanes.tolist() for name, lanes in void.items()} == {"B": [0, 1, 3]}
    table.recycle()
    assert table.agents(1, "B?team=0", "B").of_decisions(ids(1, 2)).tolist() == [2, 0]


def test_two_decisions_of_one_agent_are_bad_data() -> None:
    agents = LaneTable().agents(0, "B?team=0", "B")
    with pytest.raises(BadDataError, match=r"'B\?team=0': agent 4 asks for 2 decisions"):
        agents.require_unique(ids(4, 5, 4))


@st.composite
def messages(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """A simulator, agents that end, agents that go on; ids are few, so that they meet again."""
    some_ids = st.lists(st.integers(-3, 8), unique=True, max_size=6)
    return draw(st.integers(0, 1)), draw(some_ids), draw(some_ids)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(messages(), max_size=15), st.booleans())
def test_lanes_equal_a_dict_of_living_agents(
    sequence: list[tuple[int, list[int], list[int]]], recycles: bool
) -> None:
    table = LaneTable()
    living: dict[tuple[int, int], int] = {}
    retired: set[int] = set()
    for simulator, ending, going in sequence:
        if recycles:
            table.recycle()
            retired.clear()
        agents = table.agents(simulator, "B", "B")
        ended = agents.of_terminals(ids(*ending))
        expected = [living.pop((simulator, agent), NOBODY) for agent in ending]
        assert ended.tolist() == expected
        retired.update(lane for lane in expected if lane != NOBODY)
        lanes = agents.of_decisions(ids(*going)).tolist()
        assert len(set(lanes)) == len(lanes)
        for agent, lane in zip(going, lanes, strict=True):
            if (simulator, agent) in living:
                assert living[simulator, agent] == lane
            else:
                assert lane not in living.values()
                assert lane not in retired
                living[simulator, agent] = lane
        assert sorted(agents.lanes.tolist()) == sorted(
            lane for (owner, _), lane in living.items() if owner == simulator
        )
        if recycles:  # dense: no lane number beyond the largest crowd so far, plus one message's
            assert max(living.values(), default=-1) < 2 * 12 + 6
