"""Where agents act, and how many env_steps a simulator is to make by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensor_specs import vector

from envs.batch import Choices, Decisions
from envs.fleet import Assignment, Fleet, SimulatorMessage
from envs.spec import ActionSpec, BehaviorSpec
from trainer import placement
from trainer.behavior import Behavior
from trainer.config.settings import ActAt, RunSettings
from trainer.placement import (
    FASTER,
    PATIENCE_STEPS,
    REPORT_S,
    TRIAL_S,
    TRIAL_STEPS,
    CannotActError,
    Placement,
)
from trainer.rollout.steplog import CONTINUED

SPEC = BehaviorSpec([vector(2)], ActionSpec(1, ()))
ID = "Ball?team=0"


class RecordingFleet(Fleet):
    """Stands for the simulators: keeps what was assigned to each, and sends nothing."""

    def __init__(self) -> None:
        self.assigned: list[tuple[int, Assignment]] = []
        self.acting = {0, 1, 2}
        self.num_started = 0
        self.most = 10**6  # env_steps that the limits of size allow

    @property
    def num_alive(self) -> int:
        return self.num_started

    def most_steps(self, simulator: int) -> int:
        return self.most

    def assign(self, simulator: int, assignment: Assignment) -> None:
        self.assigned.append((simulator, assignment))

    def can_act(self, simulator: int) -> bool:
        return simulator in self.acting


class Scene:
    """A placement with a behaviour, and simulators of some agents each."""

    def __init__(self, folder: Path, act_at: ActAt, num_agents: int, **settings: Any) -> None:
        hyperparameters = {"batch_size": 8, "buffer_size": settings.pop("buffer_size", 64)}
        network = {"hidden_units": 4, "num_layers": 1, **settings.pop("network", {})}
        words = {"hyperparameters": hyperparameters, "network_settings": network, **settings}
        resolved = RunSettings.model_validate({"behaviors": {"Ball": words}})
        self.behavior = Behavior(
            "Ball",
            SPEC,
            resolved.for_behavior("Ball"),
            folder,
            seed=3,
            device=torch.device("cpu"),
            is_training=True,
            state=None,
            starts_at_zero=False,
            is_threaded=resolved.for_behavior("Ball").threaded,
        )
        self.fleet = RecordingFleet()
        self.placement = Placement(act_at, self.fleet, {"Ball": self.behavior})
        self.num_agents = num_agents

    def decisions(self, simulator: int) -> Decisions:
        count = self.num_agents
        lane = np.arange(count) + simulator * count
        return Decisions(
            obs=(np.zeros((count, 2), np.float32),),
            reward=np.ones(count, np.float32),
            lane=lane,
            agent_id=lane.astype(np.int32),
            simulator=np.full(count, simulator, np.int32),
            team=np.zeros(count, np.int32),
            group_id=np.zeros(count, np.int32),
            group_reward=np.zeros(count, np.float32),
        )

    def message(self, simulator: int, *, has_acted: bool) -> SimulatorMessage:
        message = SimulatorMessage(simulator, {}, {ID: self.decisions(simulator)}, {}, ())
        if has_acted:
            chosen = np.full((self.num_agents, 1), simulator + 0.5, np.float32)
            nothing = np.zeros((self.num_agents, 0), np.int64)
            message = message._replace(choices={ID: Choices(chosen, nothing, -chosen)})
        return message

    def says(self, simulator: int, *, has_acted: bool = False) -> bool:
        """A simulator's agents wait; whether it is to act for itself."""
        message = self.message(simulator, has_acted=has_acted)
        self.placement.hear(message)
        return self.placement.lets_act(message)

    def plays(self, simulator: int, num_steps: int) -> None:
        """A simulator tells of the env_steps that it was assigned."""
        for _ in range(num_steps - 1):
            message = self.message(simulator, has_acted=True)
            self.placement.hear(message)
            self.placement.open_rows(message)
        assert self.says(simulator, has_acted=True)

    def assigned(self) -> list[tuple[int, int, bool]]:
        """Assigns; gives simulator, env_steps, and whether a policy came along."""
        self.fleet.assigned.clear()
        self.placement.assign()
        return [(number, a.num_steps, bool(a.policies)) for number, a in self.fleet.assigned]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Any]:
    scenes: list[Scene] = []

    def build(act_at: ActAt = "simulator", num_agents: int = 4, **settings: Any) -> Scene:
        scenes.append(Scene(tmp_path / str(len(scenes)), act_at, num_agents, **settings))
        return scenes[-1]

    yield build
    for built in scenes:
        built.behavior.metrics.close()


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulators need no time: what they were assigned is all that limits the next assignment."""
    monkeypatch.setattr("trainer.placement.time.perf_counter", lambda: 0.0)


# How many env_steps.


@pytest.mark.usefixtures("_fast")
def test_assignments_double_up_to_an_eighth_and_end_with_the_rollout(scene: Any) -> None:
    one = scene(num_agents=2, buffer_size=320)  # an eighth: 40 decisions, 20 env_steps of 2 agents
    assert one.says(0)
    found: list[int] = []
    while not one.behavior.is_ready_to_learn:
        ((_, num_steps, has_policy),) = one.assigned()
        assert has_policy == (not found)
        found.append(num_steps)
        one.plays(0, num_steps)
    assert found == [1, 2, 4, 8, 16, 20, 20, 20, 20, 20, 20, 9]
    assert one.behavior.log.num_complete == 320
    assert one.assigned() == []  # the update comes first


@pytest.mark.usefixtures("_fast")
def test_short_summaries_shorten_assignments(scene: Any) -> None:
    one = scene(num_agents=2, buffer_size=320, summary_freq=80)  # an eighth: 10 decisions
    assert one.says(0)
    found = []
    for _ in range(5):
        ((_, num_steps, _),) = one.assigned()
        found.append(num_steps)
        one.plays(0, num_steps)
    assert found == [1, 2, 4, 5, 5]


@pytest.mark.parametrize(("seconds", "expected"), [(0.1, 2), (0.5, 1), (0.02, 2)])
def test_time_that_it_took_limits_the_next_assignment(
    scene: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    one = scene(num_agents=1, buffer_size=10_000)
    now = 0.0
    monkeypatch.setattr("trainer.placement.time.perf_counter", lambda: now)
    assert one.says(0)
    assert one.assigned() == [(0, 1, True)]
    now = seconds  # an env_step's: so many fit into REPORT_S, and never more than twice as many
    one.plays(0, 1)
    assert one.assigned() == [(0, expected, False)]
    assert expected <= max(1, REPORT_S / seconds)


def test_no_more_is_assigned_than_the_rollout_lacks(scene: Any) -> None:
    # 6 of 8 decisions are there; two simulators of 4 agents wait, one env_step of one is enough.
    two = scene(buffer_size=8)
    assert two.says(0)
    assert two.says(1)
    assert two.assigned() == [(0, 1, True), (1, 1, True)]
    two.plays(1, 1)
    two.plays(0, 1)
    assert two.behavior.is_ready_to_learn
    two.behavior.log.num_complete = 6
    assert two.assigned() == [(0, 1, False)]


def test_update_waits_for_those_that_still_act(scene: Any) -> None:
    two = scene(buffer_size=8)
    two.says(0)
    two.says(1)
    assert not two.placement.awaits(two.behavior)
    assert len(two.assigned()) == 2
    two.plays(0, 1)
    assert two.placement.awaits(two.behavior)
    two.placement.forget(1)  # it is lost
    assert not two.placement.awaits(two.behavior)
    assert two.assigned() == [(0, 1, False)]  # what it would have brought


def test_max_steps_are_not_overshot(scene: Any) -> None:
    one = scene(buffer_size=64, max_steps=100)
    assert one.says(0)
    one.behavior.step = 91  # 9 are left: 3 env_steps of 4 agents, one of which is known to be fast
    one.placement._players[0].most_steps = 50
    assert one.assigned() == [(0, 2, True)]  # an eighth of the rollout
    one.plays(0, 2)
    assert one.behavior.step == 99
    assert one.assigned() == [(0, 1, False)]
    one.plays(0, 1)
    assert one.behavior.is_finished
    assert one.assigned() == []


def test_policy_comes_with_the_first_assignment_after_an_update_and_a_restart(scene: Any) -> None:
    one = scene(buffer_size=8)
    one.says(0)
    old = one.behavior.actor.graph
    assert one.assigned() == [(0, 1, True)]
    one.plays(0, 1)
    assert one.assigned() == [(0, 1, False)]
    one.plays(0, 1)
    one.behavior.learn()
    assert one.assigned() == [(0, 1, True)]
    (_, assignment) = one.fleet.assigned[0]
    assert assignment.policies == {ID: one.behavior.actor.graph}
    assert assignment.policies[ID].model != old.model
    one.placement.forget(0)
    one.behavior.abandon(np.arange(4))
    one.says(0)
    assert one.assigned() == [(0, 1, True)]


def test_deterministic_policies_act_so(scene: Any) -> None:
    for is_deterministic in (False, True):
        one = scene(network={"deterministic": is_deterministic})
        one.says(0)
        one.assigned()
        assert one.fleet.assigned[0][1].deterministic == is_deterministic


@pytest.mark.usefixtures("_fast")
def test_whole_episodes_longer_than_the_rollout_go_on_in_all_simulators(scene: Any) -> None:
    two = scene(buffer_size=64, trainer_type="reinforce", max_steps=1000)
    two.says(0)
    two.says(1)
    while two.behavior.log.num_complete < 64:
        for simulator, num_steps, _ in two.assigned():
            two.plays(simulator, num_steps)
    assert not two.behavior.is_ready_to_learn  # nobody's episode has ended
    most = two.placement._players[0].most_steps
    two.placement._players[1].most_steps = 500
    assert two.assigned() == [(0, min(most, PATIENCE_STEPS), False), (1, PATIENCE_STEPS, False)]
    two.plays(0, min(most, PATIENCE_STEPS))
    assert two.assigned() == []  # the other one may bring the end
    two.plays(1, PATIENCE_STEPS)
    assert len(two.assigned()) == 2
    two.plays(0, two.fleet.assigned[0][1].num_steps)
    two.plays(1, two.fleet.assigned[1][1].num_steps)
    two.behavior.step = 1000 - 9  # of 8 agents; 8 decisions, then the last one
    assert two.assigned() == [(0, 2, False), (1, 1, False)]


@pytest.mark.usefixtures("_fast")
def test_threaded_simulators_get_the_next_rollout_while_the_update_is_under_way(
    scene: Any,
) -> None:
    two = scene(buffer_size=8, threaded=True)
    two.says(0)
    two.says(1)
    two.assigned()
    two.plays(0, 1)
    # 4 decisions are there and 4 on their way: all that the rollout needs, and more may come.
    assert two.assigned() == [(0, 1, False)]
    two.plays(0, 1)
    assert two.behavior.is_ready_to_learn
    update = two.behavior.begin_update()
    assert update is not None
    # Simulator 1 is still at the first assignment; its 4 and 4 more fill the next rollout.
    assert two.assigned() == [(0, 1, False)]
    two.plays(0, 1)
    assert two.assigned() == []  # the update comes first
    update.carry_out()
    two.behavior.end_update()
    assert two.assigned() == [(0, 1, True)]


def test_late_choices_bear_the_version_that_the_simulator_had(scene: Any) -> None:
    two = scene(buffer_size=8, threaded=True)
    two.says(0)
    two.says(1)
    two.assigned()
    two.plays(0, 1)
    two.assigned()
    two.plays(0, 1)
    two.assigned()
    update = two.behavior.begin_update()
    assert update is not None
    update.carry_out()
    two.behavior.end_update()
    two.plays(1, 1)  # was assigned before the update
    log = two.behavior.log
    lanes, versions = (log.columns[name][: log.num_rows] for name in ("lane", "policy_version"))
    status = log.columns["status"][: log.num_rows]
    assert versions[(lanes >= 4) & (status == CONTINUED)].tolist() == [0, 0, 0, 0]
    assert two.behavior.num_updates == log.policy_version == 1


def test_choices_go_into_the_rows_that_wait_for_them(scene: Any) -> None:
    two = scene()
    two.says(1)
    two.says(0)
    two.assigned()
    two.plays(0, 1)
    two.plays(1, 1)
    log = two.behavior.log
    columns = {name: log.columns[name][:8] for name in ("lane", "continuous", "log_probs")}
    np.testing.assert_array_equal(columns["lane"], [4, 5, 6, 7, 0, 1, 2, 3])
    np.testing.assert_array_equal(columns["continuous"][:, 0], [1.5] * 4 + [0.5] * 4)
    np.testing.assert_array_equal(columns["log_probs"][:, 0], [-1.5] * 4 + [-0.5] * 4)


# Which place.


def observed(placement: Placement, *moments: tuple[int, float]) -> list[str]:
    """Lets it look at steps and seconds, moment after moment; gives what it said."""
    said = [placement.observe(step, seconds) for step, seconds in moments]
    return [text for text in said if text is not None]


IN_TRAINER = ((1, 5.0), (1001, 6.0))  # 1000 steps in a second
BETWEEN = (1001, 6.0)


@pytest.mark.parametrize(
    ("rate_there", "is_there", "words"),
    [
        (2000, True, "Agents act at the simulators: collecting made 2,000 steps/s with the policy"),
        (1051, True, "Agents act at the simulators: collecting made 1,051 steps/s"),
        (
            1049,
            False,
            "Agents act in the trainer: collecting made 1,049 steps/s with the policy at",
        ),
        (500, False, "Agents act in the trainer: collecting made 500 steps/s with the policy at"),
    ],
)
def test_auto_tries_the_trainer_then_the_simulators_and_takes_the_faster(
    scene: Any, rate_there: int, is_there: bool, words: str
) -> None:
    assert FASTER == 1.05
    placement = scene("auto").placement
    assert not placement.at_simulator
    assert observed(placement, *IN_TRAINER) == []
    assert placement.at_simulator
    (told,) = observed(placement, BETWEEN, (1001 + rate_there, 7.0), (10**6, 10**3))  # once
    assert told.startswith(words)
    assert told.endswith("1,000 in the trainer.")
    assert placement.at_simulator == is_there


def test_trials_last_for_both_steps_and_seconds(scene: Any) -> None:
    placement = scene("auto").placement
    assert placement.observe(0, 0.0) is None  # simulators start
    placement.observe(4, 30.0)
    for step, seconds in ((4 + TRIAL_STEPS - 1, 90.0), (5 + TRIAL_STEPS - 2, 30 + TRIAL_S / 2)):
        placement.observe(step, seconds)
        assert not placement.at_simulator
    placement.observe(4 + TRIAL_STEPS, 30 + TRIAL_S)
    assert placement.at_simulator


def test_trial_begins_once_every_simulator_plays_and_anew_after_a_loss_or_a_pause(
    scene: Any,
) -> None:
    one = scene("auto")
    placement, one.fleet.num_started = one.placement, 2
    one.says(0)
    observed(placement, *IN_TRAINER)
    assert not placement.at_simulator, "simulator 1 is still starting"
    one.says(1)
    placement.observe(1, 5.0)
    placement.begin_trial_anew()  # what a pause does
    observed(placement, (2, 100.0), (900, 100.5))
    placement.lose(1)
    observed(placement, (901, 200.0), (2001, 201.5))
    assert not placement.at_simulator, "simulator 1 is not back"
    one.says(1)
    observed(placement, (2001, 201.5), (3001, 202.5))
    assert placement.at_simulator


def test_limits_of_size_shorten_assignments(scene: Any) -> None:
    one = scene("simulator", num_agents=1, buffer_size=64)
    one.fleet.most = 3
    for _ in range(8):
        one.says(0)
        one.placement.assign()
    steps = [assignment.num_steps for _, assignment in one.fleet.assigned]
    assert max(steps) == 3


def test_where_it_was_said_nothing_is_tried(scene: Any) -> None:
    for act_at, is_there in (("trainer", False), ("simulator", True)):
        placement = scene(act_at).placement
        assert observed(placement, (1, 1.0), (10_000, 10.0), (20_000, 30.0), (30_000, 31.0)) == []
        assert placement.at_simulator == is_there


# Who cannot.


def test_simulators_that_cannot_act_are_an_error_if_they_have_to(scene: Any) -> None:
    one = scene()
    one.fleet.acting = {1}
    with pytest.raises(CannotActError) as caught:
        one.says(0)
    assert str(caught.value) == (
        "env_settings.act_at is simulator, but simulator 0 cannot act: only ppo-train's own "
        "simulator agents (env_path gym:...), of one behavior, can. Set act_at to auto or trainer."
    )


def test_memory_stays_in_the_trainer(scene: Any) -> None:
    memory = {"memory": {"memory_size": 8, "sequence_length": 4}}
    with pytest.raises(CannotActError, match="cannot act: its policy has memory, or lies on"):
        scene(network=memory).says(0)
    tried = scene("auto", network=memory)
    observed(tried.placement, *IN_TRAINER)
    assert tried.placement.at_simulator
    assert not tried.says(0)
    assert observed(tried.placement, BETWEEN, (9000, 7.0)) == []  # nothing to compare any more
    assert not tried.placement.at_simulator


def test_simulator_whose_agents_are_all_ignored_is_answered_by_the_trainer(scene: Any) -> None:
    one = scene()
    one.says(0)
    assert len(one.assigned()) == 1
    assert not one.placement.lets_act(SimulatorMessage(0, {}, {}, {}, ()))
    assert one.assigned() == []
    one.behavior.abandon(np.arange(4))
    assert one.says(0)
    assert one.assigned() == [(0, 1, True)]


def test_assigning_looks_at_each_simulator_as_often_however_many_there_are(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_looks = 0
    counted: property = vars(placement._Player)["num_assigned"]

    def look(player: object) -> int:
        nonlocal num_looks
        num_looks += 1
        return int(counted.__get__(player))

    monkeypatch.setattr(placement._Player, "num_assigned", property(look))

    def looks(num_simulators: int) -> int:
        nonlocal num_looks
        built = scene("simulator", num_agents=1, buffer_size=4096)
        built.fleet.acting = set(range(num_simulators))
        for simulator in range(num_simulators):
            assert built.says(simulator)
        num_looks = 0
        assert len(built.assigned()) == num_simulators
        return num_looks

    assert looks(60) == 6 * looks(10)
