from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from envs.batch import Actions, Decisions
from envs.bridge.proto.communicator_pb2 import GOAL_SIGNAL
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorMessage
from envs.spec import VARIABLE_LENGTH, VECTOR, VISUAL, ObservationType
from envs.testing.tiny import TinyEnv, tiny_sensors


def play(env: TinyEnv, toward_goal: int, num_episodes: int = 20) -> list[float]:
    """Plays full steps toward the goal (1) or away from it (-1); gives the returns."""
    returns = []
    for _ in range(num_episodes):
        env.reset()
        total, terminated = 0.0, False
        while not terminated:
            direction = env.goal * toward_goal
            outcome = env.step(
                [float(direction)] * env.num_continuous, [int(direction > 0)] * env.num_branches
            )
            total, terminated = total + outcome.reward, outcome.terminated
        returns.append(total)
    return returns


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (0, 2), (2, 0), (1, 1)])
@pytest.mark.parametrize(
    # 1.06 less 4 or 1 steps of 0.01; the wrong end costs 1.06 on top of the steps
    ("step_size", "best", "worst"),
    [(0.2, 1.02, -1.10), (0.8, 1.05, -1.07)],
)
def test_best_and_worst_return_are_known(
    sizes: tuple[int, int], step_size: float, best: float, worst: float
) -> None:
    env = TinyEnv(*sizes, step_size, "seed")
    assert env.best_return == pytest.approx(best)
    assert play(env, toward_goal=1) == pytest.approx([best] * 20)
    assert play(env, toward_goal=-1) == pytest.approx([worst] * 20)


def test_axes_that_end_on_different_sides_pay_nothing() -> None:
    env = TinyEnv(2, 0, 0.5, "seed")
    env.step([1.0, -1.0], [])
    outcome = env.step([1.0, -1.0], [])
    assert outcome.terminated
    assert outcome.reward == 0.0


def test_goals_follow_from_the_seed_and_are_mixed() -> None:
    def goals(seed: str) -> list[int]:
        env = TinyEnv(1, 0, 0.2, seed)
        drawn = []
        for _ in range(50):
            env.reset()
            drawn.append(env.goal)
        return drawn

    assert goals("a") == goals("a")
    assert goals("a") != goals("b")
    assert 10 < sum(goal > 0 for goal in goals("a")) < 40


def test_memory_game_shows_its_goal_only_in_the_first_moments() -> None:
    one = TinyEnv(1, 0, 0.2, "seed", needs_memory=True)
    seen = [one.seen]
    for _ in range(4):
        one.step([1.0], [])
        seen.append(one.seen)
    # Moves so far: 0, 1, 2, 3, 4; up to 2 the goal is seen.
    assert seen == [one.goal] * 3 + [0] * 2
    one.reset()
    assert one.seen == one.goal
    two = TinyEnv(1, 1, 0.2, "seed", needs_memory=True)  # two moves per step
    seen = [two.seen]
    for _ in range(2):
        two.step([1.0], [1])
        seen.append(two.seen)
    assert seen == [two.goal] * 2 + [0]


def test_sensors_are_as_ml_agents_has_them() -> None:
    observations = [
        sensor.observation(-1)
        for sensor in tiny_sensors(1, 2, 1, image_shape=(3, 36, 36), goals=[0, 3])
    ]
    found = [(list(o.shape), list(o.dimension_properties)) for o in observations]
    assert found == [
        ([1], [1]),
        ([3, 36, 36], [1, 2, 2]),
        ([3, 36, 36], [1, 2, 2]),
        ([10, 5], [4, 1]),
    ]
    assert [o.observation_type for o in observations] == [GOAL_SIGNAL, 0, 0, GOAL_SIGNAL]
    for observation in observations:
        assert set(observation.float_data.data) == {-1.0}
        assert len(observation.float_data.data) == np.prod(observation.shape)


@pytest.mark.parametrize("counts", [(0, 0, 0, []), (1, 0, 0, [1]), (1, 0, 0, [-1])])
def test_sensors_that_are_not_there_are_refused(counts: tuple[int, int, int, list[int]]) -> None:
    *numbers, goals = counts
    with pytest.raises(ValueError, match="goal signals"):
        tiny_sensors(*numbers, goals=goals)


def best_actions(decisions: Decisions, sizes: tuple[int, int]) -> Actions:
    obs = decisions.obs[-1]  # every element is the goal, or 0 and 255 in a PNG
    if obs.dtype == np.uint8:
        obs = obs.astype(np.float32) / 127.5 - 1
    goals = obs.reshape(len(obs), -1)[:, :1]  # (N, 1)
    return Actions(
        np.repeat(goals, sizes[0], axis=1).astype(np.float32),
        np.repeat(goals > 0, sizes[1], axis=1).astype(np.int32),
    )


IMAGES = ["--vectors", "0", "--images", "2", "--image-shape", "4,5,6"]


@pytest.mark.parametrize(
    ("sizes", "sensors"),
    [
        ((1, 0), []),
        ((0, 2), []),
        ((1, 1), IMAGES),
        ((0, 1), [*IMAGES, "--image-format", "png"]),
        ((1, 0), ["--entities", "2", "--goal", "0"]),
    ],
)
def test_best_policy_over_the_wire_returns_the_best(
    sizes: tuple[int, int], sensors: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "envs.testing.tiny", "--actions", f"{sizes[0]},{sizes[1]}"]
    two_teams = ["--behavior", "1D?team=0", "--behavior", "1D?team=1"]
    launch = LaunchPlan(command=(*command, *sensors, *two_teams), kind="gym")
    returns: dict[str, list[float]] = defaultdict(list)
    totals: dict[tuple[str, int], float] = defaultdict(float)
    with Fleet(FleetPlan(launch=launch, logs_dir=tmp_path)) as fleet:
        while min(len(returns[f"1D?team={team}"]) for team in (0, 1)) < 10:
            (message,) = fleet.recv(timeout_s=60)
            assert isinstance(message, SimulatorMessage), message
            for behavior_id, ended in message.terminals.items():
                assert not ended.truncated.any()
                for agent, reward in zip(ended.agent_id, ended.reward, strict=True):
                    returns[behavior_id].append(totals.pop((behavior_id, agent)) + reward)
            for behavior_id, decisions in message.decisions.items():
                for agent, reward in zip(decisions.agent_id, decisions.reward, strict=True):
                    totals[behavior_id, agent] += reward
            fleet.send(
                message.simulator,
                {name: best_actions(asked, sizes) for name, asked in message.decisions.items()},
            )
    for values in returns.values():
        assert values == pytest.approx([1.02] * len(values))


def test_all_kinds_of_sensors_reach_the_fleet_and_memory_fades(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "envs.testing.tiny", "--memory", "--actions", "1,0"]
    command += ["--images", "1", "--image-format", "png", "--entities", "1", "--goal", "2"]
    launch = LaunchPlan(command=tuple(command), kind="gym")
    with Fleet(FleetPlan(launch=launch, logs_dir=tmp_path)) as fleet:
        seen = []
        for step in range(5):
            (message,) = fleet.recv(timeout_s=60)
            assert isinstance(message, SimulatorMessage), message
            if step == 0:
                (spec,) = message.new_behaviors.values()
            (decisions,) = message.decisions.values()
            vector, image, entities = decisions.obs
            assert np.ptp(image) == np.ptp(entities) == 0
            goal = vector[0, 0]
            assert entities[0, 9, 4] == goal
            assert image[0, 2, 19, 19] == {-1: 0, 0: 128, 1: 255}[int(goal)]
            seen.append(float(goal))
            still = np.zeros((1, 1), np.float32)
            fleet.send(0, {"1D?team=0": Actions(still, np.empty((1, 0), np.int32))})
    assert abs(seen[0]) == 1
    assert seen == [seen[0]] * 3 + [0, 0]
    assert [
        (o.shape, o.dimension_property, o.observation_type, o.dtype) for o in spec.observation_specs
    ] == [
        ((1,), VECTOR, ObservationType.DEFAULT, "float32"),
        ((3, 20, 20), VISUAL, ObservationType.DEFAULT, "uint8"),
        ((10, 5), VARIABLE_LENGTH, ObservationType.GOAL_SIGNAL, "float32"),
    ]
