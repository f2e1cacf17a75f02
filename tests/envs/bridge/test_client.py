from __future__ import annotations

import socket

import numpy as np
import pytest

from envs.bridge.client import Request, TrainerConnection, brain, step_message
from envs.bridge.proto.communicator_pb2 import UnityMessageProto, UnityRLInputProto
from envs.errors import BadDataError, SimulatorDidNotStartError


def request_with(continuous: list[list[float]], discrete: list[list[int]]) -> Request:
    actions = UnityRLInputProto.ListAgentActionProto()
    for numbers, branches in zip(continuous, discrete, strict=True):
        actions.value.add(continuous_actions=numbers, discrete_actions=branches)
    return Request(
        is_reset=False, side_channel=b"", _actions={"Walker": actions.SerializeToString()}
    )


def test_actions_are_read_row_by_row() -> None:
    request = request_with([[0.5, -1.0], [0.0, 0.25]], [[0, 300, 2], [1, 0, 0]])
    continuous, discrete = request.actions("Walker", 2, 2, 3)
    np.testing.assert_array_equal(continuous, [[0.5, -1.0], [0.0, 0.25]])
    np.testing.assert_array_equal(discrete, [[0, 300, 2], [1, 0, 0]])
    assert continuous.dtype == np.float32
    assert discrete.dtype == np.int32


@pytest.mark.parametrize(("num_continuous", "num_branches"), [(0, 2), (3, 0)])
def test_actions_of_one_kind_leave_the_other_empty(num_continuous: int, num_branches: int) -> None:
    request = request_with([[0.5] * num_continuous] * 4, [[1] * num_branches] * 4)
    continuous, discrete = request.actions("Walker", 4, num_continuous, num_branches)
    assert (continuous.shape, discrete.shape) == ((4, num_continuous), (4, num_branches))


@pytest.mark.parametrize(
    ("behavior_id", "num_agents", "num_continuous", "num_branches"),
    [
        ("Walker", 3, 2, 1),  # an agent without action
        ("Walker", 1, 4, 2),  # as many numbers, but not as many agents
        ("Walker", 2, 1, 1),
        ("Walker", 2, 2, 2),
        ("Runner", 2, 2, 1),
    ],
)
def test_actions_that_do_not_fit_are_an_error(
    behavior_id: str, num_agents: int, num_continuous: int, num_branches: int
) -> None:
    request = request_with([[0.5, 0.5]] * 2, [[1]] * 2)
    with pytest.raises(BadDataError, match=f"answered {behavior_id} with"):
        request.actions(behavior_id, num_agents, num_continuous, num_branches)


def test_nobody_waiting_needs_no_actions() -> None:
    continuous, discrete = request_with([], []).actions("Runner", 0, 2, 3)
    assert (continuous.shape, discrete.shape) == ((0, 2), (0, 3))


def test_port_without_a_trainer_is_named() -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        port = bound_but_deaf.getsockname()[1]
        with pytest.raises(SimulatorDidNotStartError, match=f"127.0.0.1:{port} .*waited 0.3 s"):
            TrainerConnection(port, connect_timeout_s=0.3)


def test_step_message_is_what_ordinary_protobuf_reads() -> None:
    message = step_message({"Walker": b""}, b"side", [brain("Walker", 2, (3, 4))])
    read = UnityMessageProto.FromString(message)
    assert read.header.status == 200
    output = read.unity_output
    assert list(output.rl_output.agentInfos) == ["Walker"]
    assert output.rl_output.side_channel == b"side"
    (parameters,) = output.rl_initialization_output.brain_parameters
    assert parameters.brain_name == "Walker"
    assert parameters.action_spec.num_continuous_actions == 2
    assert parameters.action_spec.num_discrete_actions == 2
    assert list(parameters.action_spec.discrete_branch_sizes) == [3, 4]
