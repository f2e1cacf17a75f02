"""Environments in the trainer's process: what the trainer hears, and what becomes of failures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import vector_ledgers
from in_process_driver import Books, answer, plan, play
from ledger_env import BOTH, GO_ON, RAISE, TERMINATE, TRUNCATE

from envs.batch import Actions
from envs.errors import SimulatorDidNotStartError, SimulatorError
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorMessage
from envs.registry import open_simulators, resolve
from envs.spec import ObservationType

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    monkeypatch.syspath_prepend(str(HERE))


# ---- one meaning of all autoreset modes ---------------------------------------------------------

# Two environments, 0 and 1; episodes are numbered from 1. Action of each in every turn.
STORY = [[GO_ON, GO_ON], [TERMINATE, GO_ON], [GO_ON, TRUNCATE], [GO_ON, GO_ON], [BOTH, GO_ON]]


def life_of_environment_0(step_reward: float = 10.0) -> list[list[Any]]:
    """What the ledger does by its own rules, written down by hand."""
    first = [("asks", [1, 0], 0), ("asks", [1, 1], 11), ("terminated", [1, 2], 12)]
    second = [("asks", [2, 0], 0), ("asks", [2, 1], 21), ("asks", [2, 2], 22)]
    return [first, [*second, ("terminated", [2, 3], 23)]]


@pytest.mark.parametrize("name", ["SameStep", "Disabled"])
def test_modes_that_begin_at_once_tell_the_true_last_observation_and_the_next_first(
    name: str,
) -> None:
    books = play(plan(f"vector_ledgers:{name}", 2), STORY)
    own = [life for life in books.lives if life[0][1][0] < 100]
    assert own[:2] == life_of_environment_0()
    assert own[2] == [("asks", [3, 0], 0)]
    other = [life for life in books.lives if life[0][1][0] >= 100]
    assert other[0] == [
        ("asks", [101, 0], 0),
        ("asks", [101, 1], 11),
        ("asks", [101, 2], 12),
        ("truncated", [101, 3], 13),
    ]
    assert other[1] == [("asks", [102, 0], 0), ("asks", [102, 1], 21), ("asks", [102, 2], 22)]


def test_next_step_does_not_ask_between_an_end_and_the_next_beginning() -> None:
    # Environment 0 is absent after its end, so that the message has one row, of environment 1.
    story = [[GO_ON, GO_ON], [TERMINATE, GO_ON], [TRUNCATE], [GO_ON], [GO_ON, GO_ON], [BOTH, GO_ON]]
    books = play(plan("vector_ledgers:NextStep", 2), story)
    own = [life for life in books.lives if life[0][1][0] < 100]
    assert own == life_of_environment_0()
    other = [life for life in books.lives if life[0][1][0] >= 100]
    assert other[0][-1] == ("truncated", [101, 3], 13)
    assert other[1] == [("asks", [102, 0], 0), ("asks", [102, 1], 21), ("asks", [102, 2], 22)]


def test_single_environments_mean_the_same_as_vector_environments() -> None:
    books = play(plan("ledger_env:LedgerEnv", 2), STORY)
    numbers = {life[0][1][0] for life in books.lives}
    assert len(numbers) == len(books.lives), "the random numbers tell environments apart"
    told = [[(kind, obs[1:], reward) for kind, obs, reward in life] for life in books.lives]
    expected = [
        [(kind, obs, reward) for kind, obs, reward in life] for life in life_of_environment_0()
    ]
    assert told[0] == expected[0]
    assert expected[1] in told


def test_a_vector_environment_without_a_mode_does_not_start() -> None:
    with pytest.raises(SimulatorDidNotStartError, match=r"metadata\['autoreset_mode'\]"):
        open_simulators(plan("vector_ledgers:Unlabelled", 2))


def test_registered_vector_implementations_are_used_and_wrappers_want_single_ones() -> None:
    from envs.gym.in_process import build_copies
    from envs.gym.own_copies import OwnCopies
    from envs.gym.vector_copies import VectorCopies

    assert isinstance(build_copies(plan("CartPole-v1", 3)), VectorCopies)
    wrapped = plan("CartPole-v1", 3, wrappers=[{"FlattenObservation": {}}])
    assert isinstance(build_copies(wrapped), OwnCopies)
    assert isinstance(build_copies(plan("MountainCar-v0", 3)), OwnCopies)


def test_vectorised_cartpole_is_truncated_after_its_time_limit() -> None:
    books = play(
        plan("CartPole-v1", 2, kwargs={"max_episode_steps": 3}),
        [[0, 1], [1, 0], [0, 1], [], [0, 0]],
    )
    first, second, *rest = books.lives
    assert [entry[0] for entry in first] == ["asks", "asks", "asks", "truncated"]
    assert [entry[2] for entry in first] == [0, 1, 1, 1]
    assert [entry[0] for entry in second] == ["asks", "asks", "asks", "truncated"]
    assert [entry[2] for life in rest for entry in life] == [0, 1, 0, 1]


# ---- the same as over a socket ------------------------------------------------------------------


def drive(simulators: Any, num_turns: int) -> list[Any]:
    """Plays with actions that depend on the turn alone; gives all that was said."""
    said: list[Any] = []
    for turn in range(num_turns):
        (message,) = simulators.recv(60.0)
        assert isinstance(message, SimulatorMessage)
        said += [
            (terminals.obs[0].copy(), terminals.reward, terminals.truncated)
            for terminals in message.terminals.values()
        ]
        answers = {}
        for behavior_id, decisions in message.decisions.items():
            said.append((decisions.obs[0].copy(), decisions.reward.copy(), decisions.agent_id > 0))
            angles = np.arange(3 * len(decisions), dtype=np.float32).reshape(-1, 3) + turn
            answers[behavior_id] = Actions(np.sin(angles), np.zeros((len(decisions), 0), np.int32))
        simulators.send(message.simulator, answers)
    return said


def test_physics_are_those_of_a_simulator_process_with_the_same_seed(tmp_path: Path) -> None:
    launch = resolve("gym:Hopper-v5", num_areas=3)
    remote = FleetPlan(launch=launch, num_areas=3, seed=7, logs_dir=tmp_path, lockstep=True)
    with Fleet(remote) as fleet:
        expected = drive(fleet, 60)
    with open_simulators(plan("Hopper-v5", 3, seed=7)) as simulators:
        found = drive(simulators, 60)
    assert len(found) == len(expected) > 60, "episodes have ended"
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a, b)


# ---- what goes wrong ----------------------------------------------------------------------------


def test_one_that_raises_loses_its_own_episode_and_is_built_anew() -> None:
    story = [[GO_ON] * 3, [GO_ON, RAISE, GO_ON], [GO_ON] * 3]
    books = play(plan("ledger_env:LedgerEnv", 3), story)
    (loss,) = books.losses
    text = str(loss.error)
    assert text.startswith("Environment 1 (gym:ledger_env:LedgerEnv, in the trainer's process)")
    assert "ArithmeticError: the ledger does not add up" in text
    assert 'ledger_env.py", line' in text, "the traceback leads into the environment"
    assert "It is built anew (1 of 10)." in text
    assert loss.will_restart
    assert [[e[1][1:] for e in life] for life in books.lost] == [[[1, 0], [1, 1]]]
    going = [life for life in books.lives if len(life) == 4]
    assert [[e[2] for e in life] for life in going] == [[0, 11, 12, 13]] * 2
    assert [[e[2] for e in life] for life in books.lives if len(life) == 2] == [[0, 11]] * 2
    first, again = books.lost[0][0][1][0], books.lives[-1][0][1][0]
    assert first != again, "the same seed would lead to the same failure"


def test_a_given_up_environment_leaves_the_others_alone_until_none_is_left() -> None:
    wanted = plan("ledger_env:LedgerEnv", 2, max_lifetime_restarts=0)
    books = Books()
    with open_simulators(wanted) as simulators:
        books.hear(simulators.recv(1.0))
        answer(simulators, books, [RAISE, GO_ON])
        books.hear(simulators.recv(1.0))
        (loss,) = books.losses
        assert not loss.will_restart
        assert "Given up: it has been restarted 0 times" in str(loss.error)
        assert "Environments that go on: 1." in str(loss.error)
        assert simulators.num_alive == 1
        answer(simulators, books, [RAISE])
        books.hear(simulators.recv(1.0))
        assert simulators.num_alive == 0
        with pytest.raises(SimulatorError, match=r"Environment 1 .*ArithmeticError"):
            simulators.recv(1.0)


def test_a_second_failure_rests_while_the_others_go_on() -> None:
    wanted = plan("ledger_env:LedgerEnv", 2, restart_delay_s=3600.0)
    books = play(wanted, [[RAISE, GO_ON], [RAISE, GO_ON], [GO_ON], [GO_ON]])
    assert "It is built anew in 3600 s (2 of 10)." in str(books.losses[1].error)
    assert len(books.lives[1]) == 5, "environment 1 has played on"


def test_a_vector_environment_that_raises_is_built_anew_as_a_whole() -> None:
    built = vector_ledgers.SameStep.num_built
    story = [[GO_ON, GO_ON], [GO_ON, RAISE], [GO_ON, GO_ON]]
    books = play(plan("vector_ledgers:SameStep", 2), story)
    (loss,) = books.losses
    assert str(loss.error).startswith("2 environments (gym:vector_ledgers:SameStep")
    assert len(books.lost) == 2
    assert vector_ledgers.SameStep.num_built == built + 2
    assert [e[2] for e in books.lives[-1]] == [0, 11]


class SometimesBad(gymnasium.Env[Any, Any]):  # type: ignore[misc]  # gymnasium is untyped for mypy
    """Its action 1 gives a NaN, 2 an infinite reward, 3 ends the episode."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(4)
    num_resets = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self.num_resets += 1
        return np.array([self.num_resets / 10, 0], np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs = np.array([self.num_resets / 10, math.nan if action == 1 else 0.5], np.float32)
        return obs, math.inf if action == 2 else 1.0, action == 3, False, {}


@pytest.mark.parametrize(("action", "what"), [(1, "sensor 'obs' holds nan"), (2, "the reward")])
def test_bad_numbers_drop_the_episode_and_the_next_one_begins_at_once(
    action: int, what: str
) -> None:
    wanted = plan("test_in_process:SometimesBad", 2, max_bad_episodes=1)
    books = play(wanted, [[0, action], [0, 0], [3, 0]])
    (text,) = books.dropped
    assert what in text
    assert "'SometimesBad?team=0', agent 2" in text
    first, bad, begun, *_ = books.lives
    assert [e[0] for e in first] == ["asks", "asks", "asks", "terminated"]
    assert len(bad) == 1
    assert begun[0][1] == pytest.approx([0.2, 0.0])
    assert begun[0][2] == 0.0
    assert len(begun) == 3


def test_too_many_bad_episodes_count_as_a_failure() -> None:
    wanted = plan("test_in_process:SometimesBad", 2, max_bad_episodes=1)
    books = play(wanted, [[0, 1], [0, 1], [0], [0, 0]])
    assert len(books.dropped) == 1
    (loss,) = books.losses
    assert "Episodes dropped before it: 1 (env_settings.max_bad_episodes)" in str(loss.error)
    assert len(books.lives[0]) == 5, "environment 0 has played on"


def test_a_vector_environment_ignores_a_spoilt_episode_until_it_is_over() -> None:
    wanted = plan("vector_ledgers:Spoilt", 2, max_bad_episodes=3)
    # Environment 1 is answered with zeros, which is GO_ON; it cannot end, so nobody hears of it.
    books = play(wanted, [[GO_ON, GO_ON], [GO_ON], [GO_ON]])
    assert len(books.dropped) == 1
    assert [e[2] for e in books.lives[0]] == [0, 11, 12, 13]
    assert len(books.lives) == 2
    assert len(books.lost) == 1


# ---- the rest of the interface ------------------------------------------------------------------


def test_relaunch_ends_all_lanes_and_begins_with_the_other_seed() -> None:
    books, fresh = Books(), Books()
    with open_simulators(plan("ledger_env:LedgerEnv", 2, seed=3)) as simulators:
        books.hear(simulators.recv(1.0))
        void = simulators.relaunch(9)
        assert {name: sorted(lanes.tolist()) for name, lanes in void.items()} == {
            "LedgerEnv": [0, 1]
        }
        books.void(void)
        books.hear(simulators.recv(1.0))
    with open_simulators(plan("ledger_env:LedgerEnv", 2, seed=9)) as simulators:
        fresh.hear(simulators.recv(1.0))
    assert books.lives[2:] == fresh.lives
    assert books.lives[:2] != fresh.lives


def test_while_nobody_answers_nothing_happens() -> None:
    books = Books()
    with open_simulators(plan("ledger_env:LedgerEnv", 1)) as simulators:
        books.hear(simulators.recv(1.0))
        assert simulators.recv(0.0) == []
        answer(simulators, books, [GO_ON])
        assert len(simulators.recv(0.0)) == 1
        with pytest.raises(ValueError, match="2 actions given to 1 agents"):
            simulators.send(
                0,
                {
                    "LedgerEnv?team=0": Actions(
                        np.zeros((2, 0), np.float32), np.zeros((2, 1), np.int32)
                    )
                },
            )


def test_goals_and_images_are_described_as_over_a_socket() -> None:
    class Seeing(SometimesBad):
        observation_space = gymnasium.spaces.Dict(
            {
                "camera": gymnasium.spaces.Box(0, 255, (6, 5, 3), np.uint8),
                "desired_goal": gymnasium.spaces.Discrete(3),
            }
        )

        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
            pixels = np.arange(90, dtype=np.uint8).reshape(6, 5, 3)
            return {"camera": pixels, "desired_goal": 2}, {"action_mask": [1, 0, 1, 1]}

    from envs.gym.own_copies import OwnCopies
    from envs.in_process.fleet import InProcessFleet

    copies = OwnCopies(Seeing, "Seeing?team=0", 2)
    camera, goal = copies.spec.observation_specs
    assert (camera.shape, camera.dtype) == ((3, 6, 5), "uint8")
    assert goal.observation_type is ObservationType.GOAL_SIGNAL
    with InProcessFleet(plan("unused", 2), copies) as simulators:
        (message,) = simulators.recv(1.0)
        assert isinstance(message, SimulatorMessage)
        decisions = message.decisions["Seeing?team=0"]
        # Channel 1 of the pixel in row 2, column 3: 2 * 15 + 3 * 3 + 1
        assert decisions.obs[0][1, 1, 2, 3] == 40
        assert decisions.obs[1].tolist() == [[0, 0, 1]] * 2
        assert decisions.action_mask is not None
        assert decisions.action_mask.tolist() == [[True, False, True, True]] * 2


def test_a_vector_environment_cannot_be_a_process() -> None:
    from envs.gym.make import make_env

    with pytest.raises(SimulatorDidNotStartError, match="--num-envs 0"):
        make_env("vector_ledgers:SameStep", {"num_envs": 2})


def test_launch_plans_are_not_needed() -> None:
    assert isinstance(resolve("gym:CartPole-v1"), LaunchPlan)
    assert plan("CartPole-v1", 2).is_ours
