"""One simulator's conversation with the fleet, over a real socket, message by message."""

from __future__ import annotations

import numpy as np
from one_simulator import connect, exchange, fleet_and_client, pump, receive
from scripted_client import (
    BEHAVIOR,
    agent,
    answer,
    brain,
    step,
)

from envs.batch import Actions
from envs.bridge import side_channels
from envs.bridge.proto.communicator_pb2 import RESET, STEP
from envs.bridge.side_channels import StatsAggregation, StatsMessage, Writer
from envs.spec import ActionSpec


def test_decisions_carry_every_column() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        agents = [
            agent(300, (1.0, 2.0), reward=0.5, group_id=4, group_reward=9.0),
            agent(2, (3.0, 4.0)),
        ]
        message = exchange(fleet, client, agents, is_first=True)
        assert list(message.new_behaviors) == [BEHAVIOR]
        assert message.new_behaviors[BEHAVIOR].action_spec == ActionSpec(2, ())
        decisions = message.decisions[BEHAVIOR]
        assert decisions.obs[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert decisions.reward.tolist() == [0.5, 0.0]
        assert decisions.agent_id.tolist() == [300, 2]
        assert decisions.lane.tolist() == [0, 1]
        assert decisions.simulator.tolist() == [0, 0]
        assert decisions.team.tolist() == [0, 0]
        assert decisions.group_id.tolist() == [4, 0]
        assert decisions.group_reward.tolist() == [9.0, 0.0]
        assert decisions.action_mask is None
        assert message.terminals == {}
        assert exchange(fleet, client, agents).new_behaviors == {}


def test_masks_are_turned_around_and_missing_ones_allow_everything() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        masks = [[True, False, False, False, True], [], [True, True]]
        agents = [agent(i, mask=mask) for i, mask in enumerate(masks)]
        future = client.send(step({BEHAVIOR: agents}, [brain(num_continuous=0, branches=(3, 2))]))
        decisions = receive(fleet).decisions[BEHAVIOR]
        assert decisions.action_mask is not None
        assert (
            decisions.action_mask.tolist() == [[False, True, True, True, False]] + [[True] * 5] * 2
        )
        discrete = np.array([[2, 1], [0, 0], [1, 1]], np.int32)
        fleet.send(0, {BEHAVIOR: Actions(np.empty((3, 0), np.float32), discrete)})
        actions = answer(future).unity_input.rl_input.agent_actions[BEHAVIOR].value
        assert [list(a.discrete_actions) for a in actions] == discrete.tolist()


def test_end_and_next_episode_of_one_agent_in_one_message_use_two_lanes() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1), agent(2)], is_first=True)
        agents = [agent(1, (7.0, 8.0), reward=1.0, done=True), agent(3), agent(2)]
        message = exchange(fleet, client, agents)
        terminals, decisions = message.terminals[BEHAVIOR], message.decisions[BEHAVIOR]
        assert terminals.lane.tolist() == [0]
        assert terminals.obs[0].tolist() == [[7.0, 8.0]]
        assert terminals.reward.tolist() == [1.0]
        assert terminals.truncated.tolist() == [False]
        assert decisions.agent_id.tolist() == [3, 2]
        assert decisions.lane.tolist() == [2, 1]  # 0 has just ended, and is free in the next one
        assert exchange(fleet, client, [agent(4)]).decisions[BEHAVIOR].lane.tolist() == [0]


def test_max_step_reached_is_a_truncation_and_unanswered() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1), agent(2)], is_first=True)
        ends = [agent(1, done=True, max_step_reached=True), agent(2, done=True)]
        message = exchange(fleet, client, ends)
        assert message.terminals[BEHAVIOR].truncated.tolist() == [True, False]
        assert message.decisions == {}


def test_end_without_a_decision_before_is_dropped() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1)], is_first=True)
        message = exchange(fleet, client, [agent(8, done=True), agent(1)])
        assert message.terminals == {}
        message = exchange(fleet, client, [agent(9, done=True), agent(1, (5.0, 5.0), done=True)])
        assert message.terminals[BEHAVIOR].agent_id.tolist() == [1]
        assert message.terminals[BEHAVIOR].obs[0].tolist() == [[5.0, 5.0]]


def test_agents_out_of_step_keep_their_lanes() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1), agent(2), agent(3)], is_first=True)
        for present, lanes in (([3], [2]), ([2, 1], [1, 0]), ([1, 3], [0, 2])):
            message = exchange(fleet, client, [agent(i) for i in present])
            assert message.decisions[BEHAVIOR].lane.tolist() == lanes


def test_behaviour_that_appears_later_is_new_when_its_first_agent_does() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1)], is_first=True)
        late = "Boss?team=3"
        future = client.send(step({BEHAVIOR: [agent(1)], late: []}, [brain(late)]))
        assert receive(fleet).new_behaviors == {}
        fleet.send(0, {})
        answer(future)
        future = client.send(step({BEHAVIOR: [], late: [agent(2, (1.0, 2.0, 3.0))]}))
        message = receive(fleet)
        assert list(message.new_behaviors) == [late]
        assert list(message.decisions) == [late]
        assert message.decisions[late].team.tolist() == [3]
        fleet.send(0, {})
        # Whoever gets no actions from the trainer gets zeros, one for each agent.
        actions = answer(future).unity_input.rl_input.agent_actions
        assert {k: [list(a.continuous_actions) for a in v.value] for k, v in actions.items()} == {
            late: [[0.0, 0.0]]
        }


def test_message_without_agents_is_delivered_and_answered() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        future = client.send(step({BEHAVIOR: []}))
        message = receive(fleet)
        assert (message.decisions, message.terminals, message.new_behaviors) == ({}, {}, {})
        fleet.send(0, {})
        said = answer(future).unity_input.rl_input
        assert said.command == STEP
        assert not said.agent_actions


def test_statistics_arrive_with_the_message() -> None:
    payload = Writer().string("Goals").float32(3.0).int32(2).payload()
    stream = side_channels.frame(side_channels.STATS, payload)
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        client.send(step({BEHAVIOR: [agent(1)]}, [brain()], stream))
        assert receive(fleet).stats == (StatsMessage("Goals", 3.0, StatsAggregation.SUM),)


def test_message_above_4_mib_is_received() -> None:
    big = [float(i) for i in range(150_000)]  # 600 kB per agent
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        message = exchange(fleet, client, [agent(i, big) for i in range(10)], is_first=True)
        obs = message.decisions[BEHAVIOR].obs[0]
        assert obs.nbytes > 5 << 20
        assert obs[9, 149_999] == 149_999.0


def test_environment_parameters_go_with_the_next_answer_once() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        received = []
        for parameters in (None, {"mass": 3.0}, None):
            future = client.send(step({BEHAVIOR: []}))
            receive(fleet)
            if parameters:
                fleet.set_environment_parameters(parameters)
            fleet.send(0, {})
            received.append(answer(future).unity_input.rl_input.side_channel)
        assert received == [b"", side_channels.environment_parameters({"mass": 3.0}), b""]


def test_reset_answers_a_waiting_simulator_and_voids_its_lanes() -> None:
    with fleet_and_client(environment_parameters={"mass": 2.0}) as (fleet, client):
        connect(fleet, client)
        future = client.send(step({BEHAVIOR: [agent(1), agent(2)]}, [brain()]))
        receive(fleet)
        void = fleet.reset()
        assert {name: lanes.tolist() for name, lanes in void.items()} == {"Walker": [0, 1]}
        fleet.send(0, {})  # the trainer may still answer; nobody hears it
        said = answer(future).unity_input.rl_input
        assert said.command == RESET
        assert said.side_channel.startswith(side_channels.environment_parameters({"mass": 2.0}))
        message = exchange(fleet, client, [agent(3)])
        assert message.decisions[BEHAVIOR].lane.tolist() == [0]


def test_reset_of_a_running_simulator_drops_the_agents_of_its_next_message() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1)], is_first=True)
        fleet.reset()
        stats = side_channels.frame(
            side_channels.STATS, Writer().string("Goals").float32(1.0).int32(0).payload()
        )
        late = "Boss?team=0"
        future = client.send(
            step({BEHAVIOR: [agent(1)], late: [agent(9)]}, [brain(late)], side_channel=stats)
        )
        assert pump(fleet, future).unity_input.rl_input.command == RESET
        message = exchange(fleet, client, [agent(5)])
        assert message.decisions[BEHAVIOR].lane.tolist() == [0]
        # What was news in the dropped message is still told.
        assert list(message.new_behaviors) == [late]
        assert [s.key for s in message.stats] == ["Goals"]
