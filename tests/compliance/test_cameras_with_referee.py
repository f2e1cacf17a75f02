"""mlagents-envs' own stubs play Unity and send PNGs; its own decoder says what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_gym_agent_with_referee import HERE, referee_python

from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorMessage
from envs.spec import VARIABLE_LENGTH, VISUAL

pytestmark = pytest.mark.referee

BEHAVIOR = "Cameras?team=0"
CHANNELS = [3, 1, 1, 3, 4, 7]
AVERAGED = {1, 2, 3, 4}  # sensors some of whose channels are means of several
STEPS = 12


def test_fleet_reads_pngs_as_mlagents_envs_does(tmp_path: Path) -> None:
    output = tmp_path / "read.npz"
    command = (referee_python(), str(HERE / "referee_cameras.py"), "--output", str(output))
    plan = FleetPlan(launch=LaunchPlan(command=command, kind="gym"), logs_dir=tmp_path)
    heard = []
    with Fleet(plan) as fleet:
        for step in range(STEPS):
            (message,) = fleet.recv(timeout_s=60)
            assert isinstance(message, SimulatorMessage), message
            heard.append(message)
            if step < STEPS - 1:
                fleet.send(0, {})
    sensors = heard[0].new_behaviors[BEHAVIOR].observation_specs
    assert [sensor.shape for sensor in sensors] == [*[(c, 9, 7) for c in CHANNELS], (3, 2)]
    assert {sensor.dimension_property for sensor in sensors[:-1]} == {VISUAL}
    assert sensors[-1].dimension_property == VARIABLE_LENGTH
    read = np.load(output)
    for step, message in enumerate(heard):
        decisions = message.decisions[BEHAVIOR]
        assert decisions.agent_id.tolist() == [0, 1, 2, 3]
        assert decisions.reward.tolist() == [step] * 4
        for agent in range(4):
            for index, channels in enumerate(CHANNELS):
                column = decisions.obs[index]
                assert column.dtype == np.uint8
                theirs = read[f"{step}_{agent}_{index}"].transpose(2, 0, 1)
                assert theirs.shape == (channels, 9, 7)
                # Theirs is a float; a mean of ours is rounded to the nearest byte.
                within = 0.5 / 255 if index in AVERAGED else 0.0
                np.testing.assert_allclose(column[agent] / 255, theirs, rtol=0, atol=within + 1e-6)
            assert decisions.obs[-1][agent].tolist() == [[agent + 0.5] * 2] * 2 + [[0, 0]]
