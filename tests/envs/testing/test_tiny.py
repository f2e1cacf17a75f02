from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from envs.batch import Actions, Decisions
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorMessage
from envs.testing.tiny import TinyEnv


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


@pytest.mark.parametrize(
    ("sizes", "expected"),
    # A move of each axis counts: after 3 moves the goal is gone.
    [((1, 0), [1, 1, 1, 0, 0]), ((0, 1), [1, 1, 1, 0, 0]), ((1, 1), [1, 1, 0, 0, 0])],
)
def test_recall_shows_the_goal_only_at_first_and_anew_in_every_episode(
    sizes: tuple[int, int], expected: list[int]
) -> None:
    env = TinyEnv(*sizes, 0.2, "seed", is_recall=True)
    plain = TinyEnv(*sizes, 0.2, "seed")
    for _ in range(3):
        env.reset()
        seen = []
        for _ in range(5):
            seen.append(env.shown * env.goal)
            assert plain.shown == plain.goal
            env.step([1.0] * sizes[0], [1] * sizes[1])
            plain.step([1.0] * sizes[0], [1] * sizes[1])
        assert seen == expected


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


def best_actions(decisions: Decisions, sizes: tuple[int, int]) -> Actions:
    goals = decisions.obs[0]  # (N, 1)
    return Actions(
        np.repeat(goals, sizes[0], axis=1).astype(np.float32),
        np.repeat(goals > 0, sizes[1], axis=1).astype(np.int32),
    )


@pytest.mark.parametrize("sizes", [(1, 0), (0, 2), (1, 1)])
def test_best_policy_over_the_wire_returns_the_best(sizes: tuple[int, int], tmp_path: Path) -> None:
    command = (sys.executable, "-m", "envs.testing.tiny", "--actions", f"{sizes[0]},{sizes[1]}")
    two_teams = ("--behavior", "1D?team=0", "--behavior", "1D?team=1")
    launch = LaunchPlan(command=(*command, *two_teams), kind="gym")
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
