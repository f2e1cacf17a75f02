"""NaN and infinite numbers at the door: one agent's episode is dropped, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from one_simulator import connect, fleet_and_client, pump, receive, receive_loss
from scripted_client import BEHAVIOR, ScriptedClient, agent, answer, bare, brain, step

from envs.batch import Actions
from envs.bridge.proto.communicator_pb2 import AgentInfoProto
from envs.bridge.session import UNHEARD_MESSAGES
from envs.errors import BadDataError
from envs.fleet import Fleet, SimulatorMessage

NAN, INF = float("nan"), float("inf")


def exchange(
    fleet: Fleet, client: ScriptedClient, *agents: AgentInfoProto, is_first: bool = False
) -> tuple[SimulatorMessage, dict[int, list[float]]]:
    """Sends agents; gives the message, and the actions by the agents that asked.

    An action is its agent's number * 100 + dimension, so that a mix-up shows.
    """
    future = client.send(step({BEHAVIOR: list(agents)}, [brain()] if is_first else []))
    message = receive(fleet)
    actions = {
        name: Actions(
            (found.agent_id[:, None] * 100 + np.arange(2)).astype(np.float32),
            np.empty((len(found), 0), np.int32),
        )
        for name, found in message.decisions.items()
    }
    fleet.send(0, actions)
    replies = answer(future).unity_input.rl_input.agent_actions[BEHAVIOR].value
    asked = [info.id for info in agents if not info.done]
    found = [list(reply.continuous_actions) for reply in replies]
    return message, dict(zip(asked, found, strict=True))


def heard(message: SimulatorMessage) -> list[int]:
    return message.decisions[BEHAVIOR].agent_id.tolist() if message.decisions else []


def own(number: int) -> list[float]:
    return [number * 100.0, number * 100.0 + 1]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (agent(2, (1.0, NAN)), "agent 2: sensor 'Vector' holds nan at index 1, a finite number"),
        (agent(2, (-INF, 0.0)), "sensor 'Vector' holds -inf at index 0"),
        (agent(2, reward=INF), "agent 2: the reward holds inf"),
        (agent(2, group_reward=NAN), "agent 2: the group reward holds nan"),
    ],
    ids=["nan", "infinity", "reward", "group reward"],
)
def test_episode_is_dropped_until_it_ends_and_the_others_go_on(
    bad: AgentInfoProto, words: str
) -> None:
    with fleet_and_client(max_bad_episodes=5) as (fleet, client):
        connect(fleet, client)
        first, _ = exchange(fleet, client, *map(agent, (1, 2, 3)), is_first=True)
        (lane,) = first.decisions[BEHAVIOR].lane[[1]].tolist()

        message, actions = exchange(fleet, client, agent(1), bad, agent(3))
        assert heard(message) == [1, 3]
        assert (
            message.decisions[BEHAVIOR].lane.tolist()
            == first.decisions[BEHAVIOR].lane[[0, 2]].tolist()
        )
        assert actions == {1: own(1), 2: [0.0, 0.0], 3: own(3)}
        (dropped,) = message.dropped
        assert (dropped.behavior, dropped.agent_id) == ("Walker", 2)
        assert dropped.lanes.tolist() == [lane]
        assert dropped.text.startswith("Simulator 0 (Unity Editor, port ")
        assert words in dropped.text
        assert "After 5 such episodes it counts as crashed." in dropped.text

        # It goes on with good numbers, but what it does now is of a broken episode.
        message, actions = exchange(fleet, client, agent(2), agent(3), agent(1))
        assert heard(message) == [3, 1]
        assert actions == {2: [0.0, 0.0], 3: own(3), 1: own(1)}
        assert message.dropped == ()

        message, actions = exchange(fleet, client, agent(2, done=True), agent(4), agent(1))
        assert heard(message) == [4, 1]
        assert message.terminals == {}
        assert actions == {4: own(4), 1: own(1)}
        message, actions = exchange(fleet, client, agent(2), agent(1))  # the same number again
        assert heard(message) == [2, 1]
        assert actions == {2: own(2), 1: own(1)}


def test_end_with_bad_numbers_is_no_end_and_its_agent_begins_anew() -> None:
    with fleet_and_client(max_bad_episodes=5) as (fleet, client):
        connect(fleet, client)
        first, _ = exchange(fleet, client, agent(1), agent(2), is_first=True)
        end = agent(1, reward=NAN, done=True)
        message, actions = exchange(fleet, client, end, agent(1), agent(2, done=True))
        (dropped,) = message.dropped
        assert dropped.lanes.tolist() == first.decisions[BEHAVIOR].lane[:1].tolist()
        assert message.terminals[BEHAVIOR].agent_id.tolist() == [2]
        assert heard(message) == [1]
        assert actions == {1: own(1)}
        assert not set(message.decisions[BEHAVIOR].lane) & set(dropped.lanes)


def test_agent_whose_very_first_message_is_bad_has_no_lane_to_void() -> None:
    with fleet_and_client(max_bad_episodes=5) as (fleet, client):
        connect(fleet, client)
        message, actions = exchange(fleet, client, agent(1, (NAN, NAN)), agent(2), is_first=True)
        assert [found.lanes.tolist() for found in message.dropped] == [[]]
        assert heard(message) == [2]
        assert actions == {1: [0.0, 0.0], 2: own(2)}


def test_message_in_which_nobody_counts_is_answered_all_the_same() -> None:
    with fleet_and_client(max_bad_episodes=-1) as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, agent(1), is_first=True)
        said = []
        for _ in range(3):
            message, actions = exchange(fleet, client, agent(1, (NAN, 0.0)))
            said += [dropped.text for dropped in message.dropped]
            assert message.decisions == {}
            assert actions == {1: [0.0, 0.0]}
        assert len(said) == 1  # one episode, however often it is bad
        assert "counts as crashed" not in said[0]  # there is no limit
        message, _ = exchange(fleet, client, agent(1, done=True), agent(5))
        assert heard(message) == [5]


@pytest.mark.parametrize("limit", [0, 2])
def test_one_episode_more_than_allowed_is_a_crash(limit: int) -> None:
    with fleet_and_client(max_bad_episodes=limit) as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, *map(agent, range(1, 5)), is_first=True)
        for number in range(1, limit + 1):
            going = [agent(i) for i in range(number, 5)]
            message, _ = exchange(fleet, client, agent(number, reward=NAN), *going[1:])
            assert len(message.dropped) == 1
        client.send(step({BEHAVIOR: [agent(4, reward=NAN)]}))
        loss = receive_loss(fleet)
        assert isinstance(loss.error, BadDataError)
        assert "agent 4: the reward holds nan" in str(loss.error)
        assert f"Episodes dropped before it: {limit} (env_settings.max" in str(loss.error)
        # The lanes of agents that still counted are void; those dropped before were told then.
        assert len(loss.lanes["Walker"]) == 4 - limit


def test_reset_lets_everybody_begin_anew() -> None:
    with fleet_and_client(max_bad_episodes=5) as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, agent(1), agent(2), is_first=True)
        exchange(fleet, client, agent(1, (NAN, 0.0)), agent(2))
        fleet.reset()
        pump(fleet, client.send(step({BEHAVIOR: [agent(1), agent(2)]})))
        message, actions = exchange(fleet, client, agent(1), agent(2))
        assert heard(message) == [1, 2]
        assert actions == {1: own(1), 2: own(2)}


def test_simulator_of_which_nobody_is_heard_any_more_starts_anew() -> None:
    with fleet_and_client(max_bad_episodes=5) as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, agent(1), is_first=True)
        exchange(fleet, client, agent(1, (NAN, 0.0)))
        for _ in range(UNHEARD_MESSAGES - 2):
            client.send(step({BEHAVIOR: [agent(1)]}))
            receive(fleet)
            fleet.send(0, {})
        client.send(step({BEHAVIOR: [agent(1)]}))
        loss = receive_loss(fleet)
        assert f"{UNHEARD_MESSAGES} messages in a row came only from agents" in str(loss.error)
        assert "Max Step" in str(loss.error)


def test_messages_without_agents_are_no_silence() -> None:
    with fleet_and_client(max_bad_episodes=5) as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, agent(1), is_first=True)
        for _ in range(UNHEARD_MESSAGES + 1):
            client.send(bare())
            receive(fleet)
            fleet.send(0, {})
        assert fleet.recv(timeout_s=0.01) == []
