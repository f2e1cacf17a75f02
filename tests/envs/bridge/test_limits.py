"""What one simulator may be, and what becomes of one that is more."""

from __future__ import annotations

import uuid
from contextlib import suppress
from queue import Empty

import numpy as np
import pytest
from mlagents_envs.base_env import ActionSpec
from scripted_client import ScriptedClient, agent, bare, brain, greeting, step

from envs.bridge import limits
from envs.bridge.limits import require_usable_brains, require_usable_spec
from envs.bridge.side_channels import STATS, Inbox, Writer, frame
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.fleet import Fleet, FleetPlan, SimulatorLoss
from envs.lanes import MOST_AGENTS, LaneTable
from envs.spec import BehaviorSpec, vector_sensor


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/evil",
        "/etc/evil",
        "a/../../evil",
        "..\\evil",
        "C:\\evil",
        "..",
        ".",
        "",
        "?team=0",
        "run_logs",
        "run_logs/tls",
        "configuration.yaml",
        "a\nb",
        "x" * 201,
        "Walker?team=x",
        "Walker?team=-1",
        "Walker?team=3000000000",
    ],
)
def test_behaviour_that_has_no_folder_costs_only_its_simulator(name: str) -> None:
    plan = FleetPlan(launch=None, num_simulators=1, base_port=None, timeout_wait_s=20)
    with Fleet(plan) as fleet:
        client = ScriptedClient(fleet.ports[0])
        items: list[object] = []
        messages = [greeting(), bare(), step({name: [agent(1)]}, [brain(name)])]
        for message in messages:
            future = client.send(message)
            while not future.done() and not items:
                with suppress(Empty):
                    items += fleet.recv(timeout_s=0.05)
        (loss,) = items
        assert isinstance(loss, SimulatorLoss)
        assert isinstance(loss.error, BadDataError)
        assert "cannot be used: " in str(loss.error)
        assert len(str(loss.error)) < 1000
        client.close()


@pytest.mark.parametrize("name", ["Walker", "Team/Walker?team=3", "My Behavior", "a:b", "..a", "ä"])
def test_other_names_are_fine(name: str) -> None:
    require_usable_brains([brain(name)], {})


def test_number_of_behaviours_is_limited() -> None:
    brains = [brain(f"Walker{number}?team=0") for number in range(limits.MOST_BEHAVIORS)]
    require_usable_brains(brains, {})
    known = {each.brain_name: each for each in brains}
    require_usable_brains(brains, known)  # announced again
    with pytest.raises(BadDataError, match="announces 257 behaviours, at most 256"):
        require_usable_brains([brain("One?team=0")], known)


def test_words_of_the_introduction_are_limited() -> None:
    message = greeting("1" * 5000).unity_output.rl_initialization_output
    with pytest.raises(BadDataError, match="protocol version has 5000 characters"):
        limits.require_short_words(message)


@pytest.mark.parametrize(
    ("sensors", "actions", "words"),
    [
        ([vector_sensor("a", 1 << 21), vector_sensor("b", 1)], (1, ()), "2097153 numbers"),
        ([vector_sensor("a" * 257, 1)], (1, ()), "257 characters in a sensor's name"),
        ([vector_sensor("a", 1)] * 1025, (1, ()), "1025 sensors"),
        ([vector_sensor("a", 1)], (2**31 - 1, ()), "2147483647 continuous actions"),
        ([vector_sensor("a", 1)], (0, (2**31 - 1,)), "2147483647 choices"),
        ([vector_sensor("a", 1)], (0, (1,) * 5000), "5000 discrete branches"),
        ([vector_sensor("a", 1)], (-1, ()), "-1 continuous actions"),
        ([vector_sensor("a", 1)], (0, (3, 0)), r"branches of sizes \(3, 0\)"),
    ],
)
def test_networks_larger_than_machines_are_not_built(
    sensors: list[object], actions: tuple[int, tuple[int, ...]], words: str
) -> None:
    spec = BehaviorSpec(sensors, ActionSpec(*actions))  # type: ignore[arg-type]  # of vector_sensor
    with pytest.raises(UnsupportedSpaceError, match=words):
        require_usable_spec("Walker", spec)


def test_number_of_agents_is_limited_before_any_gets_a_lane() -> None:
    agents = LaneTable().agents(0, "Walker?team=0", "Walker")
    crowd = np.arange(MOST_AGENTS + 1, dtype=np.int32)
    agents.require_unique(crowd[:-1])
    with pytest.raises(BadDataError, match="100001 living agents, at most 100000"):
        agents.require_unique(crowd)
    # Those that never end, a few more with every message.
    agents.of_decisions(crowd[:-1])
    agents.of_decisions(crowd[-1:])
    with pytest.raises(BadDataError, match="100001 living agents"):
        agents.require_unique(np.array([5, 3], np.int32))


def stat(key: str) -> bytes:
    return frame(STATS, Writer().string(key).float32(1.0).int32(0).payload())


def test_statistics_are_limited() -> None:
    inbox = Inbox()
    inbox.read(b"".join(stat(f"key {number}") for number in range(limits.MOST_STATISTICS)))
    assert [each.key for each in inbox.read(stat("key 7"))] == ["key 7"]
    with pytest.raises(BadDataError, match="would be key 10001, at most 10000"):
        inbox.read(stat("one more"))
    with pytest.raises(BadDataError, match="a key has 1025 characters"):
        Inbox().read(stat("k" * 1025))


def test_unknown_side_channels_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()
    for number in range(1000):
        inbox.read(frame(uuid.UUID(int=number), b"x"))
    assert len(caplog.records) == limits.MOST_UNKNOWN_CHANNELS
