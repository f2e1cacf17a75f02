from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from envs.batch import Actions
from envs.bridge.proto.communicator_pb2 import AgentInfoProto, UnityMessageProto
from envs.fleet import Fleet, FleetPlan, SimulatorMessage
from envs.registry import resolve
from envs.testing.null import NullSimulator, write_executable


def agents_in(message: bytes) -> list[AgentInfoProto]:
    output = UnityMessageProto.FromString(message).unity_output
    return list(output.rl_output.agentInfos["Walker"].value)


def test_messages_hold_all_agents_and_episodes_end_on_time() -> None:
    simulator = NullSimulator("Walker", 5, 2, (3,), num_agents=4, episode_length=3)
    first = simulator.reset()
    (brain,) = UnityMessageProto.FromString(
        first
    ).unity_output.rl_initialization_output.brain_parameters
    assert brain.brain_name == "Walker"
    assert brain.action_spec.num_continuous_actions == 2
    assert list(brain.action_spec.discrete_branch_sizes) == [3]
    messages = [agents_in(first), *(agents_in(simulator.step()) for _ in range(6))]
    assert [len(agents) for agents in messages] == [4, 4, 4, 8, 4, 4, 8]
    ids = [[agent.id for agent in agents if not agent.done] for agents in messages]
    assert ids[0] == ids[1] == ids[2]
    assert ids[3] == ids[4] == ids[5]
    assert not set(ids[0]) & set(ids[3])
    ended = [agent.id for agent in messages[3] if agent.done]
    assert ended == ids[0]
    assert all(not agent.max_step_reached for agent in messages[3])
    # 3 rewards of 0.1 in each episode, none for the message that begins one.
    assert [round(agent.reward, 6) for agent in messages[3]] == [0.0] * 4 + [0.1] * 4
    seen = {tuple(agent.observations[0].float_data.data) for agent in messages[0]}
    assert len(seen) == 4


def test_cameras_and_masks_are_those_of_every_message_and_compressed_once() -> None:
    simulator = NullSimulator(
        "Walker", 2, 0, (3, 2), num_agents=2, episode_length=2, image=(9, 10, 3), masked=True
    )
    messages = [agents_in(simulator.reset()), *(agents_in(simulator.step()) for _ in range(4))]
    pictures = []
    for agents in messages:
        for agent in agents:
            camera, vector = sorted(agent.observations, key=lambda one: -len(one.shape))
            assert list(camera.shape) == [3, 9, 10]
            assert len(vector.float_data.data) == 2
            assert list(agent.action_mask)[0::3] == [False, False]  # the first of either branch
            assert len(agent.action_mask) == 5
            with Image.open(BytesIO(camera.compressed_data)) as file:
                pictures.append(np.asarray(file).tobytes())
    assert any(True in agent.action_mask for agents in messages for agent in agents)
    assert len(pictures) == 2 + 2 + 4 + 2 + 4
    assert pictures[0] == pictures[1] != pictures[2]  # agents of a message see the same


def test_executable_file_is_played_by_the_fleet_like_a_unity_build(tmp_path: Path) -> None:
    build = write_executable(
        tmp_path / "Null.x86_64",
        ["--observations", "8", "--continuous", "2", "--agents", "12", "--episode-length", "5"],
    )
    launch = resolve(str(tmp_path / "Null"), no_graphics=True)
    assert launch is not None
    assert launch.command == (str(build),)
    num_ended = 0
    with Fleet(FleetPlan(launch=launch, logs_dir=tmp_path / "logs")) as fleet:
        for _ in range(21):
            (message,) = fleet.recv(timeout_s=60)
            assert isinstance(message, SimulatorMessage), message
            (decisions,) = message.decisions.values()
            assert decisions.obs[0].shape == (12, 8)
            num_ended += sum(len(ended) for ended in message.terminals.values())
            nothing = Actions(np.zeros((12, 2), np.float32), np.zeros((12, 0), np.int32))
            fleet.send(message.simulator, {"Null?team=0": nothing})
    assert num_ended == 4 * 12


def test_mistyped_argument_is_refused(tmp_path: Path) -> None:
    program = write_executable(tmp_path / "Null", ["--observation", "8"])
    done = subprocess.run(
        [program, "--mlagents-port", "1"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "unrecognized arguments: --observation 8" in done.stderr
