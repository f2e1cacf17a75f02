"""Real Atari games and a real robot, through the simulator agent and a socket to the fleet.

The same games are played beside it in this process, with Gymnasium's own classes put around them by
hand; what the fleet gets has to be what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from numpy.typing import NDArray
from plain_trainer import serving

from envs.batch import Actions, Decisions, Terminals
from envs.fleet import Fleet, FleetPlan, SimulatorMessage
from envs.gym.agent import env_seed
from envs.gym.packages import register_package_of
from envs.registry import resolve
from envs.spec import VECTOR, VISUAL, ObservationSpec, ObservationType

SEED = 5
NUM_AREAS = 2
FIRE = 1
STANDARD: Sequence[Mapping[str, object]] = [
    {"AtariPreprocessing": {"terminal_on_life_loss": True}},
    {"FrameStackObservation": {"stack_size": 4}},
    {"ClipReward": {"min_reward": -1, "max_reward": 1}},
]


class Played:
    """What was seen of episodes' ends, beside the comparison of all observations and rewards."""

    def __init__(self) -> None:
        self.rewards: list[tuple[float, float]] = []  # (what the fleet got, what the game paid)
        self.ends: list[tuple[bool, int, int]] = []  # truncated, lives left, env_steps of episode


def play(
    folder: Path,
    env: str,
    alone: Callable[[], gymnasium.Env[Any, Any]],
    parts: Callable[[Any], Sequence[NDArray[Any]]],
    act: Callable[[int], Actions],
    num_steps: int,
    **arguments: Any,
) -> tuple[list[ObservationSpec], Played]:
    """Plays through the fleet and alone, step for step.

    Args:
        folder: for logs.
        env: the word after --env.
        alone: builds the same environment, but for wrappers of its rewards.
        parts: gives the sensors' values of one observation.
        act: gives the actions of a step.
        num_steps: env_steps to play.
        arguments: of `resolve`.
    """
    plan = FleetPlan(
        launch=resolve(env, num_areas=NUM_AREAS, **arguments), seed=SEED, logs_dir=folder
    )
    envs = [alone() for _ in range(NUM_AREAS)]
    lengths = [0] * NUM_AREAS
    played = Played()

    def require_equal(rows: Decisions | Terminals, row: int, obs: Any) -> None:
        for column, expected in zip(rows.obs, parts(obs), strict=True):
            assert column.dtype == expected.dtype
            np.testing.assert_array_equal(column[row], expected)

    with Fleet(plan) as fleet:
        (message,) = fleet.recv(timeout_s=60)
        assert isinstance(message, SimulatorMessage), message
        ((behavior, spec),) = message.new_behaviors.items()
        for index, copy in enumerate(envs):
            require_equal(
                message.decisions[behavior], index, copy.reset(seed=env_seed(SEED, index))[0]
            )
        for step in range(num_steps):
            actions = act(step)
            fleet.send(0, {behavior: actions})
            (message,) = fleet.recv(timeout_s=60)
            assert isinstance(message, SimulatorMessage), message
            decisions, ended = message.decisions[behavior], message.terminals.get(behavior)
            row = 0
            for index, copy in enumerate(envs):
                action = actions.discrete[index, 0] if actions.discrete.size else None
                obs, reward, terminated, truncated, info = copy.step(
                    actions.continuous[index] if action is None else action
                )
                lengths[index] += 1
                if terminated or truncated:
                    assert ended is not None
                    require_equal(ended, row, obs)
                    assert ended.truncated[row] == (not terminated)
                    played.rewards.append((float(ended.reward[row]), float(reward)))
                    played.ends.append((truncated, info.get("lives", 0), lengths[index]))
                    lengths[index] = 0
                    row += 1
                    obs, _ = copy.reset()
                else:
                    played.rewards.append((float(decisions.reward[index]), float(reward)))
                require_equal(decisions, index, obs)
            assert row == (0 if ended is None else len(ended))
    for copy in envs:
        copy.close()
    return list(spec.observation_specs), played


def atari(game: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    register_package_of(game)
    env = gymnasium.make(game, frameskip=1, **kwargs)
    return FrameStackObservation(AtariPreprocessing(env, terminal_on_life_loss=True), 4)


def same_branch(branch: int) -> Callable[[int], Actions]:
    def act(_: int) -> Actions:
        nothing = np.empty((NUM_AREAS, 0), np.float32)
        return Actions(nothing, np.full((NUM_AREAS, 1), branch, np.int32))

    return act


def test_space_invaders_is_seen_as_four_frames_and_a_lost_life_ends_its_episode(
    tmp_path: Path,
) -> None:
    sensors, played = play(
        tmp_path,
        "gym:ALE/SpaceInvaders-v5",
        lambda: atari("ALE/SpaceInvaders-v5"),
        lambda obs: [obs],
        same_branch(FIRE),
        220,
        env_kwargs={"frameskip": 1},
        env_wrappers=STANDARD,
    )
    assert sensors == [
        ObservationSpec((4, 84, 84), VISUAL, ObservationType.DEFAULT, "obs", "uint8")
    ]
    # An invader pays 5 to 30 points, by its row.
    assert {paid for _, paid in played.rewards} >= {0.0, 5.0, 10.0}
    assert all(got == min(1.0, paid) for got, paid in played.rewards)
    # The ship has three lives; each that is lost is an end, and none was cut short.
    assert len(played.ends) >= 2
    assert {(is_truncated, lives) for is_truncated, lives, _ in played.ends} == {(False, 2)}


def test_pong_that_is_cut_short_is_truncated_and_not_terminated(tmp_path: Path) -> None:
    _, played = play(
        tmp_path,
        "gym:ALE/Pong-v5",
        lambda: atari("ALE/Pong-v5", max_num_frames_per_episode=200),
        lambda obs: [obs],
        same_branch(FIRE),
        100,
        env_kwargs={"frameskip": 1, "max_num_frames_per_episode": 200},
        env_wrappers=STANDARD,
    )
    assert len(played.ends) >= 2
    assert {is_truncated for is_truncated, _, _ in played.ends} == {True}
    # Up to 30 frames pass at the beginning, then 4 for each decision.
    assert all(170 <= 4 * length <= 200 for _, _, length in played.ends)


def test_reaching_robot_shows_its_goal_and_is_cut_short_after_50_decisions(tmp_path: Path) -> None:
    register_package_of("FetchReach-v4")
    chance = np.random.default_rng(3)
    sensors, played = play(
        tmp_path,
        "gym:FetchReach-v4",
        lambda: gymnasium.make("FetchReach-v4"),
        lambda obs: [
            obs[key].astype(np.float32) for key in ("achieved_goal", "desired_goal", "observation")
        ],
        lambda _: Actions(
            chance.uniform(-1, 1, (NUM_AREAS, 4)).astype(np.float32),
            np.empty((NUM_AREAS, 0), np.int32),
        ),
        110,
    )
    plain, goal = ObservationType.DEFAULT, ObservationType.GOAL_SIGNAL
    assert sensors == [
        ObservationSpec((3,), VECTOR, plain, "obs/achieved_goal", "float32"),
        ObservationSpec((3,), VECTOR, goal, "obs/desired_goal", "float32"),
        ObservationSpec((10,), VECTOR, plain, "obs/observation", "float32"),
    ]
    assert {got for got, _ in played.rewards} <= {-1.0, 0.0}
    assert all(got == paid for got, paid in played.rewards)
    assert [(cut, length) for cut, _, length in played.ends] == [(True, 50)] * 4


@pytest.mark.parametrize(
    ("wrappers", "shape"),
    [
        ("grey", [4, 84, 84]),
        ("grey with an axis", [4, 84, 84]),
        ("colour", [12, 84, 84]),
    ],
)
def test_frames_travel_as_small_files_of_bytes(
    tmp_path: Path, wrappers: str, shape: list[int]
) -> None:
    preprocessing: Mapping[str, object] = {
        "grey": {},
        "grey with an axis": {"grayscale_newaxis": True},
        "colour": {"grayscale_obs": False},
    }[wrappers]
    launch = resolve(
        "gym:ALE/Pong-v5",
        env_kwargs={"frameskip": 1},
        env_wrappers=[{"AtariPreprocessing": preprocessing}, *STANDARD[1:]],
    )
    assert launch is not None
    words = launch.command[launch.command.index("--env") :]
    with serving(*words, cwd=Path.cwd(), log=tmp_path / "log") as (trainer, _):
        trainer.greet()
        trainer.begin()
        (agent,) = trainer.step("Pong?team=0", [FIRE])
        (observation,) = agent.observations
        assert list(observation.shape) == shape
        assert not observation.float_data.data
        num_pixels = shape[0] * shape[1] * shape[2]
        assert 0 < len(observation.compressed_data) < num_pixels / 4
