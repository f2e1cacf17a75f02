"""One simulator's conversation with the fleet, over a real socket, message by message."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from scripted_client import (
    BEHAVIOR,
    PATIENCE_S,
    Future,
    ScriptedClient,
    agent,
    answer,
    bare,
    brain,
    greeting,
    step,
)

from envs.batch import Actions, Decisions
from envs.bridge import side_channels
from envs.bridge.proto.communicator_pb2 import RESET, STEP, AgentInfoProto, UnityMessageProto
from envs.bridge.side_channels import EngineConfiguration, StatsAggregation, StatsMessage, Writer
from envs.errors import (
    BadDataError,
    SimulatorClosedError,
    SimulatorCrashedError,
    SimulatorDidNotStartError,
    SimulatorTimedOutError,
    WrongProtocolError,
)
from envs.fleet import Fleet, FleetPlan, SimulatorLoss, SimulatorMessage
from envs.spec import ActionSpec


@contextmanager
def fleet_and_client(**plan: object) -> Iterator[tuple[Fleet, ScriptedClient]]:
    """A fleet that waits for a simulator that is not its own, and the client that will be it."""
    with Fleet(FleetPlan(launch=None, **plan)) as fleet:  # type: ignore[arg-type]  # tests' words
        client = ScriptedClient(fleet.ports[0])
        try:
            yield fleet, client
        finally:
            client.close()


def pump(fleet: Fleet, future: Future) -> UnityMessageProto:
    """Lets the fleet work until it has answered a call that is no news for the trainer."""
    while not future.done():
        assert fleet.recv(timeout_s=0.05) == []
    return answer(future)


def connect(fleet: Fleet, client: ScriptedClient) -> UnityMessageProto:
    """Does the handshake and gives the first real input."""
    pump(fleet, client.send(greeting()))
    return pump(fleet, client.send(bare()))


def receive(fleet: Fleet) -> SimulatorMessage:
    (message,) = fleet.recv(timeout_s=PATIENCE_S)
    assert isinstance(message, SimulatorMessage)
    return message


def receive_loss(fleet: Fleet) -> SimulatorLoss:
    (loss,) = fleet.recv(timeout_s=PATIENCE_S)
    assert isinstance(loss, SimulatorLoss)
    return loss


def numbered_actions(decisions: Decisions) -> Actions:
    """Actions that reveal mix-ups: agent id * 100 + dimension."""
    continuous = decisions.agent_id[:, None] * 100 + np.arange(2)
    return Actions(continuous.astype(np.float32), np.empty((len(decisions), 0), np.int32))


def exchange(
    fleet: Fleet,
    client: ScriptedClient,
    agents: list[AgentInfoProto],
    *,
    is_first: bool = False,
) -> SimulatorMessage:
    """Sends agents, gives the message, and answers it."""
    future = client.send(step({BEHAVIOR: agents}, [brain()] if is_first else []))
    message = receive(fleet)
    fleet.send(0, {name: numbered_actions(d) for name, d in message.decisions.items()})
    reply = answer(future)
    assert reply.header.status == 200
    actions = reply.unity_input.rl_input.agent_actions[BEHAVIOR].value
    waiting = [a.id for a in agents if not a.done]
    assert [list(a.continuous_actions) for a in actions] == [
        [i * 100, i * 100 + 1] for i in waiting
    ]
    return message


def test_handshake_sends_seed_versions_and_capabilities() -> None:
    with fleet_and_client(seed=7, num_areas=3) as (fleet, client):
        reply = pump(fleet, client.send(greeting()))
        assert reply.header.status == 200
        said = reply.unity_input.rl_initialization_input
        assert (said.seed, said.num_areas) == (7, 3)
        assert (said.communication_version, said.package_version) == ("1.5.0", "1.1.0")
        assert {field.name: value for field, value in said.capabilities.ListFields()} == {
            "baseRLCapabilities": True,
            "concatenatedPngObservations": True,
            "compressedChannelMapping": True,
            "hybridActions": True,
            "variableLengthObservation": True,
            "multiAgentGroups": True,
        }


def test_simulators_have_seeds_of_their_own() -> None:
    with fleet_and_client(seed=7, num_simulators=2) as (fleet, _first):
        client = ScriptedClient(fleet.ports[1])
        said = pump(fleet, client.send(greeting())).unity_input.rl_initialization_input
        assert said.seed == 8
        client.close()


def test_first_input_is_a_reset_with_parameters_then_engine_configuration() -> None:
    engine = EngineConfiguration(width=320, time_scale=5.0)
    with fleet_and_client(engine=engine, environment_parameters={"mass": 2.0}) as (fleet, client):
        said = connect(fleet, client).unity_input.rl_input
        assert said.command == RESET
        assert not said.agent_actions
        expected = side_channels.environment_parameters({"mass": 2.0})
        assert said.side_channel == expected + side_channels.engine_configuration(engine)


@pytest.mark.parametrize("version", ["0.15.0", "2.0.0", "", "eleven"])
def test_wrong_protocol_version_is_refused_with_both_versions(version: str) -> None:
    with fleet_and_client() as (fleet, client):
        client.send(greeting(version))
        loss = receive_loss(fleet)
        assert isinstance(loss.error, WrongProtocolError)
        assert f"speaks protocol {version!r}" in str(loss.error)
        assert "this trainer speaks 1.5.0" in str(loss.error)
        with pytest.raises(WrongProtocolError):
            fleet.recv()


@pytest.mark.parametrize("version", ["1.0.0", "1.9.3"])
def test_other_minor_versions_are_accepted(version: str) -> None:
    with fleet_and_client() as (fleet, client):
        assert pump(fleet, client.send(greeting(version))).header.status == 200


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


def test_second_client_on_a_port_is_refused_and_the_first_goes_on() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        second = ScriptedClient(fleet.ports[0])
        future = second.send(greeting())
        while not future.done():
            assert fleet.recv(timeout_s=0.05) == []
        error = future.exception()
        assert isinstance(error, grpc.RpcError)
        assert "already serves the simulator" in str(error)
        second.close()
        exchange(fleet, client, [agent(1)], is_first=True)


def test_closing_the_fleet_answers_with_status_400() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        future = client.send(step({BEHAVIOR: [agent(1)]}, [brain()]))
        receive(fleet)
        fleet.close()
        assert answer(future).header.status == 400
        fleet.close()


def test_simulator_that_says_goodbye_ends_the_run_in_the_editor() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1), agent(2)], is_first=True)
        client.send(bare(400))
        loss = receive_loss(fleet)
        assert isinstance(loss.error, SimulatorClosedError)
        assert not loss.will_restart
        assert {name: lanes.tolist() for name, lanes in loss.lanes.items()} == {"Walker": [0, 1]}
        with pytest.raises(SimulatorClosedError, match="Unity Editor, port"):
            fleet.recv()


def test_broken_connection_while_the_trainer_thinks_is_a_crash() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        client.send(step({BEHAVIOR: [agent(1)]}, [brain()]))
        receive(fleet)
        client.close()
        loss = receive_loss(fleet)
        assert isinstance(loss.error, SimulatorCrashedError)
        assert "broke the connection" in str(loss.error)
        fleet.send(0, {})  # too late, and no harm


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x0a\x03\x08\xc8\x01\x12\xff", b""],
    ids=["text", "ones", "cut off", "nothing"],
)
@pytest.mark.parametrize("num_messages_before", [0, 1, 2])
def test_garbage_is_bad_data_and_never_harms_the_server(
    garbage: bytes, num_messages_before: int
) -> None:
    with fleet_and_client() as (fleet, client):
        for message in [greeting(), bare()][:num_messages_before]:
            pump(fleet, client.send(message))
        client.send_bytes(garbage)
        loss = receive_loss(fleet)
        assert isinstance(loss.error, BadDataError)
        assert "Simulator 0 (Unity Editor" in str(loss.error)


def test_agents_without_brain_parameters_are_bad_data() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        client.send(step({BEHAVIOR: [agent(1)]}))
        assert "before its brain parameters" in str(receive_loss(fleet).error)


def test_second_introduction_on_one_connection_is_bad_data() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        client.send(greeting())
        assert "introduces itself again" in str(receive_loss(fleet).error)


def test_bad_data_voids_all_lanes_that_the_trainer_knows() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        exchange(fleet, client, [agent(1), agent(2)], is_first=True)
        # One agent ends properly, the other asks twice: nothing of this message may count.
        client.send(step({BEHAVIOR: [agent(1, done=True), agent(2), agent(2)]}))
        loss = receive_loss(fleet)
        assert isinstance(loss.error, BadDataError)
        assert {name: lanes.tolist() for name, lanes in loss.lanes.items()} == {"Walker": [0, 1]}


def test_silence_past_timeout_wait_is_told_apart_by_phase() -> None:
    with fleet_and_client(timeout_wait_s=0.2) as (fleet, _client):
        loss = receive_loss(fleet)
        assert isinstance(loss.error, SimulatorDidNotStartError)
        assert "did not dial the trainer within 0.2 s" in str(loss.error)
        assert "Press Play" in str(loss.error)
    with fleet_and_client(timeout_wait_s=1.5) as (fleet, client):
        connect(fleet, client)
        loss = receive_loss(fleet)
        assert isinstance(loss.error, SimulatorTimedOutError)
        assert "did not answer within 1.5 s" in str(loss.error)
        assert "env_settings.timeout_wait" in str(loss.error)


def test_simulator_that_waits_for_the_trainer_never_times_out() -> None:
    with fleet_and_client(timeout_wait_s=1.5) as (fleet, client):
        connect(fleet, client)
        future = client.send(step({BEHAVIOR: [agent(1)]}, [brain()]))
        receive(fleet)
        assert fleet.recv(timeout_s=1.8) == []
        fleet.send(0, {})
        assert answer(future).header.status == 200


def test_call_that_came_while_the_trainer_learned_is_not_late_however_large() -> None:
    with fleet_and_client(timeout_wait_s=0.5) as (fleet, client):
        connect(fleet, client)
        crowd = [agent(number, [1.0] * 1000) for number in range(2000)]  # 8 MB, read in pieces
        client.send(step({BEHAVIOR: crowd}, [brain()]))
        time.sleep(1.0)
        assert len(receive(fleet).decisions[BEHAVIOR]) == 2000


def test_wrong_number_of_actions_is_the_trainers_mistake() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        client.send(step({BEHAVIOR: [agent(1), agent(2)]}, [brain()]))
        receive(fleet)
        one = Actions(np.zeros((1, 2), np.float32), np.empty((1, 0), np.int32))
        with pytest.raises(ValueError, match="1 actions given to 2 agents"):
            fleet.send(0, {BEHAVIOR: one})


def test_answer_without_a_message_is_the_trainers_mistake() -> None:
    with fleet_and_client() as (fleet, client):
        connect(fleet, client)
        with pytest.raises(RuntimeError, match="no message that waits"):
            fleet.send(0, {})


def test_simulators_that_disagree_about_a_behaviour_are_told_so() -> None:
    with fleet_and_client(num_simulators=2) as (fleet, first):
        second = ScriptedClient(fleet.ports[1])
        for client in (first, second):
            connect(fleet, client)
        exchange(fleet, first, [agent(1)], is_first=True)
        second.send(step({"Walker?team=1": [agent(1, (1.0,))]}, [brain("Walker?team=1")]))
        loss = receive_loss(fleet)
        assert loss.simulator == 1
        assert isinstance(loss.error, BadDataError)
        assert "shape=(1,)" in str(loss.error)
        assert "shape=(2,)" in str(loss.error)
        second.close()
        exchange(fleet, first, [agent(1)])


def test_port_in_use_names_the_program_that_has_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SimulatorDidNotStartError, match=rf"port {port} .* in use by .*\(pid"):
            Fleet(FleetPlan(launch=None, base_port=port)).start()
