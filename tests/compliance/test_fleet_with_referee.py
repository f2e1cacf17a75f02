"""mlagents-envs' own messages and stubs, unmodified, dial our fleet and play Unity.

The referee tells, at env_step t of agent i, sensor k: i * 100 + t + k * 10000 (referee_unity.py).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from test_gym_agent_with_referee import HERE, referee_python

from envs.batch import Actions, Decisions, Terminals
from envs.fleet import (
    Fleet,
    FleetPlan,
    LaunchPlan,
    SimulatorMessage,
    StatsAggregation,
    StatsMessage,
)

pytestmark = pytest.mark.referee

HYBRID, LATE = "Hybrid?team=0", "Late?team=1"
STEPS = 60


def expect_agents(rows: Decisions | Terminals, ids: list[int], step: int) -> None:
    assert rows.agent_id.tolist() == ids
    assert rows.reward.tolist() == [agent * 100 + step for agent in ids]
    for sensor, column in enumerate(rows.obs):
        value = [agent * 100 + step + sensor * 10000 for agent in ids]
        np.testing.assert_array_equal(column, np.repeat([value], column.shape[1], 0).T)


def actions_for(rows: Decisions, step: int, num_continuous: int, num_branches: int) -> Actions:
    """Actions from which agent and env_step can be told."""
    agents = rows.agent_id.astype(np.float32)[:, None]
    continuous = agents / 100 + step / 1000 + np.arange(num_continuous, dtype=np.float32) / 8
    discrete = (rows.agent_id[:, None] + step + np.arange(num_branches)) % 2
    return Actions(continuous.astype(np.float32), discrete.astype(np.int32))


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SimulatorMessage], dict[str, Any]]:
    """Plays STEPS env_steps; gives what we heard, and what the referee heard of us."""
    folder = tmp_path_factory.mktemp("referee")
    output = folder / "heard.json"
    command = (referee_python(), str(HERE / "referee_unity.py"), "--output", str(output))
    plan = FleetPlan(
        launch=LaunchPlan(command=command, kind="gym"),
        seed=77,
        num_areas=5,
        environment_parameters={"gravity": 9.5},
        logs_dir=folder,
    )
    heard = []
    with Fleet(plan) as fleet:
        for step in range(STEPS):
            (message,) = fleet.recv(timeout_s=60)
            assert isinstance(message, SimulatorMessage), message
            heard.append(message)
            actions = {}
            if HYBRID in message.decisions:
                actions[HYBRID] = actions_for(message.decisions[HYBRID], step, 2, 2)
            if LATE in message.decisions:
                actions[LATE] = actions_for(message.decisions[LATE], step, 1, 0)
            if step == 30:
                fleet.set_environment_parameters({"gravity": 3.0})
            if step < STEPS - 1:
                fleet.send(message.simulator, actions)
    return heard, json.loads(output.read_text())


Play = tuple[list[SimulatorMessage], dict[str, Any]]


def test_handshake_tells_seed_areas_and_versions(play: Play) -> None:
    _, theirs = play
    assert (theirs["seed"], theirs["num_areas"]) == (77, 5)
    assert theirs["communication_version"] == "1.5.0"
    assert theirs["base"] is True
    assert [answer["command"] for answer in theirs["answers"]] == [1, *[0] * (STEPS - 1)]


def test_behaviors_are_described_when_they_first_appear(play: Play) -> None:
    heard, _ = play
    assert {step: list(m.new_behaviors) for step, m in enumerate(heard) if m.new_behaviors} == {
        0: [HYBRID],
        4: [LATE],
    }
    spec = heard[0].new_behaviors[HYBRID]
    assert [(o.name, o.shape) for o in spec.observation_specs] == [
        ("sensor0", (3,)),
        ("sensor1", (2,)),
    ]
    assert spec.action_spec.continuous_size == 2
    assert spec.action_spec.discrete_branches == (3, 2)


def test_every_agent_arrives_with_its_own_numbers(play: Play) -> None:
    heard, _ = play
    for step, message in enumerate(heard):
        episode, age = divmod(step, 3)
        asking = [2, 1, 10 + episode] if step % 2 == 0 else [1, 10 + episode]
        expect_agents(message.decisions[HYBRID], asking, step)
        if age == 0 and episode > 0:
            ended = message.terminals[HYBRID]
            expect_agents(ended, [9 + episode], step)
            assert ended.truncated.tolist() == [(9 + episode) % 2 == 1]
            before = heard[step - 1].decisions[HYBRID]
            assert ended.lane[0] == before.lane[before.agent_id == 9 + episode][0]
        else:
            assert not message.terminals
        if step >= 4 and step % 5:
            late = message.decisions[LATE]
            expect_agents(late, [3], step)
            assert late.team.tolist() == [1]
        else:
            assert LATE not in message.decisions


def test_masks_groups_and_stats_arrive(play: Play) -> None:
    heard, _ = play
    first = heard[0].decisions[HYBRID]  # agents 2, 1, 10
    assert first.action_mask is not None
    assert first.action_mask.tolist() == [[True] * 5, [True, False, True, True, False], [True] * 5]
    assert first.group_id.tolist() == [7, 0, 0]
    assert first.group_reward.tolist() == [0.5, 0.0, 0.0]
    stats = [(step, stat) for step, message in enumerate(heard) for stat in message.stats]
    assert stats == [(2, StatsMessage("Referee/Height", 1.25, StatsAggregation.MOST_RECENT))]


def test_actions_reach_their_agents_in_both_encodings(play: Play) -> None:
    heard, theirs = play
    for step, answer in enumerate(theirs["answers"][1:]):
        decisions = heard[step].decisions
        assert set(answer["actions"]) == set(decisions)
        for name, rows in decisions.items():
            sent = actions_for(rows, step, *((2, 2) if name == HYBRID else (1, 0)))
            told = answer["actions"][name]
            np.testing.assert_array_equal([a["continuous"] for a in told], sent.continuous)
            np.testing.assert_array_equal([a["discrete"] for a in told], sent.discrete)
            both = np.concatenate([sent.continuous, sent.discrete], axis=1)
            np.testing.assert_array_equal([a["deprecated"] for a in told], both)


def test_side_channels_carry_parameters_and_engine(play: Play) -> None:
    _, theirs = play
    engine, parameters = (
        "e951342c-4f7e-11ea-b238-784f4387d1f7",
        "534c891e-810f-11ea-a9d0-822485860400",
    )
    first, *rest = theirs["answers"]
    assert first["channels"][:6] == [parameters, *[engine] * 5]
    assert first["parameters"] == {"gravity": 9.5}
    told = {step: answer["parameters"] for step, answer in enumerate(rest) if answer["parameters"]}
    assert told == {30: {"gravity": 3.0}}
