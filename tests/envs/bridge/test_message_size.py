"""What our own agents may be assigned to send fits into one message, as noise too."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_client import BEHAVIOR, brain, greeting
from sensor_specs import entities, image, vector

from envs.batch import Choices
from envs.bridge import limits
from envs.bridge.assignments import Assignment
from envs.bridge.client import PlayedStep, played_message, step_message
from envs.bridge.records import FIRST_AGENT_ID, AgentRecords
from envs.bridge.session import Session
from envs.lanes import LaneTable
from envs.spec import ActionSpec, ObservationSpec

NUM_AGENTS = 3
BRANCHES = (3, 2)
SENSORS = {
    "vectors": [vector(1, "one"), vector(7, "a longer name")],
    "floats": [image(3, 20, 21, "depth", dtype="float32"), vector(2, "goal")],
    "colour": [image(3, 20, 21, "colour")],
    "grey and stacks": [image(1, 9, 30, "grey"), image(4, 30, 9, "four"), entities(5, 2, "e")],
}


def random_records(sensors: list[ObservationSpec], chance: np.random.Generator) -> AgentRecords:
    """Rows of all agents that ask, and behind them of all whose episode ends."""
    records = AgentRecords(sensors, 2 * NUM_AGENTS, sum(BRANCHES))
    for column in records.obs:
        if column.dtype == np.uint8:
            column[...] = chance.integers(0, 256, column.shape, np.uint8)
        else:
            column[...] = chance.standard_normal(column.shape, np.float32)
    records.done[NUM_AGENTS:] = 1
    return records


@pytest.mark.parametrize("kind", SENSORS)
def test_as_many_env_steps_as_may_be_assigned_fit_into_a_message(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LARGEST_ASSIGNED_BYTES", 200_000)
    chance, sensors = np.random.default_rng(1), SENSORS[kind]
    session = Session(0, LaneTable())
    session.greet(session.parse(greeting().SerializeToString()), 1, 1)
    session.reset(b"")
    next_id = FIRST_AGENT_ID

    def one_step(*, has_ended: bool) -> bytes:
        nonlocal next_id
        records = random_records(sensors, chance)
        for row in range(NUM_AGENTS):
            records.set_agent_id(row, next_id + NUM_AGENTS + row)
            records.set_agent_id(NUM_AGENTS + row, next_id + row)
        next_id += NUM_AGENTS
        return records.rows(2 * NUM_AGENTS if has_ended else NUM_AGENTS)

    first = step_message({BEHAVIOR: one_step(has_ended=False)}, b"", [brain(BEHAVIOR, 2, BRANCHES)])
    session.step(session.parse(first))
    num_steps = session.most_steps
    session.assign(Assignment(num_steps, {}), b"")
    numbers = np.ones((NUM_AGENTS, 4), np.float32)
    choices = Choices(numbers[:, :2], np.ones((NUM_AGENTS, 2), np.int64), numbers)
    steps = [PlayedStep(choices, one_step(has_ended=True), b"") for _ in range(num_steps)]
    data = played_message(BEHAVIOR, steps)
    assert 60_000 < len(data) <= 200_000  # the bound is one, and not far away
    ahead = session.decode_ahead(data)
    heard = session.step(session.parse(data), ahead)
    assert len(heard.earlier) == num_steps - 1
    assert len(heard.terminals[BEHAVIOR]) == NUM_AGENTS


def test_assignments_stay_within_the_largest_message_and_what_is_left_for_side_channels() -> None:
    # 100 agents with a camera of 256 x 256 x 3 floats, which may all end: one env_step fits.
    camera = image(3, 256, 256, "camera", dtype="float32")
    row_bytes = limits.largest_row_bytes([camera], ActionSpec(2, BRANCHES))
    step_bytes = 2 * 100 * row_bytes
    assert 157_286_400 < step_bytes < limits.LARGEST_ASSIGNED_BYTES
    assert limits.most_steps(row_bytes, 200, 10**9) == 1
    assert limits.most_steps(100, 2, 10**9) == limits.MOST_STEPS
    assert limits.LARGEST_ASSIGNED_BYTES < limits.LARGEST_MESSAGE_BYTES
