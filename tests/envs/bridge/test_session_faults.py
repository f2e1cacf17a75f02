"""Simulators that break off, send garbage, fall silent, or come second; and mistakes of ours."""

from __future__ import annotations

import socket
import time

import grpc
import numpy as np
import pytest
from one_simulator import connect, exchange, fleet_and_client, pump, receive, receive_loss
from scripted_client import (
    BEHAVIOR,
    ScriptedClient,
    agent,
    answer,
    bare,
    brain,
    greeting,
    step,
)

from envs.batch import Actions
from envs.errors import (
    BadDataError,
    SimulatorClosedError,
    SimulatorCrashedError,
    SimulatorDidNotStartError,
    SimulatorTimedOutError,
)
from envs.fleet import Fleet, FleetPlan


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
