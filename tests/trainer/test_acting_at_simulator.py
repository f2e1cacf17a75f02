"""Our own simulator agents act with the policy that they are sent, over a real socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import camera_env
import gymnasium
import numpy as np
import pytest
import torch
from camera_env import CameraEnv
from numpy.typing import NDArray

from envs.batch import Choices, Decisions, Terminals
from envs.errors import SimulatorCrashedError
from envs.fleet import Assignment, Fleet, FleetPlan, SimulatorLoss, SimulatorMessage
from envs.graph_policy import PolicyGraph
from envs.gym.agent import env_seed
from envs.registry import resolve
from trainer.compiled_policy import graph_of
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic

NUM_AREAS = 2
SEED = 5
WAIT_S = 60.0

MODULE = '''
"""Environments of this test: rewards say which episode and env_step, and actions change things."""

import gymnasium
import numpy as np
from gymnasium import spaces

ALLOWED = ([1, 0, 1, 0, 1], [0, 1, 1, 1, 0])


class Forbidding(gymnasium.Env):
    """Two branches with masks; refuses what it has forbidden."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.MultiDiscrete([2, 3])

    def observe(self, action):
        self.allowed = ALLOWED[self.t % 2] if self.t % 5 else [1] * 5
        obs = np.array([self.np_random.normal(), action[0] + 2 * action[1]], np.float32)
        return obs, {"action_mask": np.array(self.allowed, np.int8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe((0, 0))

    def step(self, action):
        if not (self.allowed[action[0]] and self.allowed[2 + action[1]]):
            raise ValueError(f"{action} was forbidden")
        self.t += 1
        obs, info = self.observe(action)
        chance = self.np_random.random()
        return obs, self.t + 0.5 * int(action[1]), chance < 0.1, 0.1 <= chance < 0.2, info


class Hybrid(gymnasium.Env):
    """Numbers and a branch without masks; bounds that are not -1 and 1."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Dict(
        {"gear": spaces.Discrete(3), "steer": spaces.Box(-2.0, 6.0, (2,), np.float32)}
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(0, 3, 3).astype(np.float32), {}

    def step(self, action):
        obs = self.np_random.normal(0, 3, 3).astype(np.float32)
        obs[:2] += action["steer"]
        chance = self.np_random.random()
        reward = float(action["gear"] + action["steer"].sum())
        return obs, reward, chance < 0.1, 0.1 <= chance < 0.2, {}
'''


def camera_columns(obs: dict[str, Any]) -> list[NDArray[Any]]:
    return [
        obs["colour"].transpose(2, 0, 1),
        obs["depth"].transpose(2, 0, 1),
        obs["desired_goal"],
        obs["grey"][None],
        obs["stack"],
    ]


def within(continuous: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """ML-Agents' way from draw to action: cut at 3; -3 means the lowest, 3 the highest."""
    limited = np.minimum(np.maximum(continuous, -3), 3)
    acted: NDArray[Any] = low + (limited + 3) / 6 * (high - low)
    return acted.astype(np.float32)


@dataclass(frozen=True)
class Game:
    """An environment, and how to read it without any code of ours."""

    env: str
    build: Callable[[Any], gymnasium.Env[Any, Any]]
    columns: Callable[[Any], list[NDArray[Any]]]
    action: Callable[[Choices, int], Any]  # of an agent's row
    mask: Callable[[Any], NDArray[Any] | None] = lambda _: None


GAMES = {
    "images, continuous": Game(
        "camera_env:CameraEnv",
        lambda _: CameraEnv(),
        camera_columns,
        lambda choices, row: within(choices.continuous[row], -1.0, 1.0),
    ),
    "masks, discrete": Game(
        "acting_games:Forbidding",
        lambda games: games.Forbidding(),
        lambda obs: [obs],
        lambda choices, row: choices.discrete[row],
        lambda env: np.array(env.allowed, bool),
    ),
    "hybrid": Game(
        "acting_games:Hybrid",
        lambda games: games.Hybrid(),
        lambda obs: [obs],
        lambda choices, row: {
            "gear": choices.discrete[row, 0],
            "steer": within(choices.continuous[row], -2.0, 6.0),
        },
        lambda _: np.ones(3, bool),
    ),
}


@pytest.fixture
def games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with the environments, where simulators and this process find it."""
    (tmp_path / "acting_games.py").write_text(MODULE)
    found = [str(tmp_path), str(Path(camera_env.__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*found, os.environ.get("PYTHONPATH", "")]))
    namespace: dict[str, Any] = {}
    exec(MODULE, namespace)
    return type("acting_games", (), namespace)


@contextmanager
def fleet_of(game: Game, folder: Path, **plan: Any) -> Iterator[tuple[Fleet, SimulatorMessage]]:
    """A fleet of one simulator, and its first message."""
    launch = resolve(f"gym:{game.env}", num_areas=NUM_AREAS)
    with Fleet(FleetPlan(launch=launch, seed=SEED, logs_dir=folder, **plan)) as fleet:
        yield fleet, heard(fleet)


def heard(fleet: Fleet) -> SimulatorMessage:
    (message,) = fleet.recv(timeout_s=WAIT_S)
    assert isinstance(message, SimulatorMessage), message
    return message


def policy_for(message: SimulatorMessage, seed: int = 1) -> ActorCritic:
    """A policy that normalises and is not fresh."""
    (spec,) = message.new_behaviors.values()
    torch.manual_seed(seed)
    settings = NetworkSettings.model_validate(
        {
            "hidden_units": 16,
            "num_layers": 1,
            "normalize": True,
            "initial_log_std": 0.3,
            "vis_encode_type": "match3",
        }
    )
    policy = ActorCritic("Game", spec, settings, 1, False)
    policy.update_normalizer(
        [torch.randn(50, *sensor.shape) * 2 + 1 for sensor in spec.observation_specs]
    )
    return policy


def played(fleet: Fleet, assignment: Assignment) -> list[SimulatorMessage]:
    """Lets the simulator act; gives the messages of all env_steps."""
    fleet.assign(0, assignment)
    message = heard(fleet)
    return [*message.earlier, message]


def judged(policy: ActorCritic, seen: Decisions, choices: Choices) -> NDArray[Any]:
    """What torch says of the log-probabilities of choices, (N, C + K)."""
    obs = [torch.from_numpy(np.array(column)) for column in seen.obs]
    mask = None if seen.action_mask is None else torch.from_numpy(np.array(seen.action_mask))
    with torch.no_grad():
        found = policy.evaluate(
            policy.inputs(obs),
            mask,
            torch.from_numpy(np.array(choices.continuous)),
            torch.from_numpy(np.array(choices.discrete)),
        )
    return found.log_probs.numpy()


class Copies:
    """Fresh copies of the simulator's environments, stepped here."""

    def __init__(self, game: Game, games: Any) -> None:
        self.game = game
        self.envs = [game.build(games) for _ in range(NUM_AREAS)]
        self.obs = [env.reset(seed=env_seed(SEED, i))[0] for i, env in enumerate(self.envs)]

    def require(self, seen: Decisions) -> None:
        """What the agents that wait see is what the copies show, and so are the masks."""
        assert len(seen) == NUM_AREAS
        for row, (env, obs) in enumerate(zip(self.envs, self.obs, strict=True)):
            self.require_row(seen, row, obs)
            mask = self.game.mask(env)
            if mask is None:
                assert seen.action_mask is None
            else:
                assert seen.action_mask is not None
                np.testing.assert_array_equal(seen.action_mask[row], mask)

    def require_row(self, rows: Decisions | Terminals, row: int, obs: Any) -> None:
        for found, expected in zip(rows.obs, self.game.columns(obs), strict=True):
            assert found.dtype == expected.dtype
            # The way to the action, in another order of float32 operations.
            np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=2e-6)

    def step(self, choices: Choices, message: SimulatorMessage) -> int:
        """Acts as the agents did and compares what came of it; gives how many episodes ended."""
        (decisions,) = message.decisions.values()
        ended = list(message.terminals.values())
        num_ended = 0
        for row, env in enumerate(self.envs):
            acted = self.game.action(choices, row)
            obs, reward, terminated, truncated, _ = env.step(acted)
            if terminated or truncated:
                (terminals,) = ended
                assert terminals.truncated[num_ended] == (not terminated)
                assert terminals.reward[num_ended] == pytest.approx(reward, rel=1e-5)
                self.require_row(terminals, num_ended, obs)
                assert decisions.reward[row] == 0
                num_ended += 1
                obs, _ = env.reset()
            else:
                assert decisions.reward[row] == pytest.approx(reward, rel=1e-5)
            self.obs[row] = obs
        assert num_ended == sum(map(len, ended))
        return num_ended


@pytest.mark.parametrize("name", GAMES)
def test_simulator_acts_as_the_policy_would_and_tells_what_happened(
    name: str, tmp_path: Path, games: Any
) -> None:
    game = GAMES[name]
    with fleet_of(game, tmp_path) as (fleet, first):
        assert fleet.can_act(0)
        copies = Copies(game, games)
        (behavior_id,) = first.decisions
        seen = first.decisions[behavior_id]
        copies.require(seen)
        policies = [policy_for(first, seed) for seed in (1, 2)]
        num_ended, all_choices = 0, []
        # The second assignment brings no policy, the third one another, the last is answered here.
        for number, (policy, is_new) in enumerate(
            [(policies[0], True), (policies[0], False), (policies[1], True)]
        ):
            sent = {behavior_id: graph_of(policy)} if is_new else {}
            messages = played(fleet, Assignment(12 + number, sent))
            assert len(messages) == 12 + number
            for message in messages:
                choices = message.choices[behavior_id]
                expected = judged(policy, seen, choices)
                np.testing.assert_allclose(choices.log_probs, expected, rtol=0, atol=2e-5)
                num_ended += copies.step(choices, message)
                seen = message.decisions[behavior_id]
                copies.require(seen)
                all_choices.append(choices)
        assert num_ended > 5
        # They are draws: not twice the same noise, not the likeliest action.
        drawn = np.concatenate([c.continuous for c in all_choices])
        branches = np.concatenate([c.discrete for c in all_choices])
        assert all(len(np.unique(column)) == len(drawn) for column in drawn.T)
        assert all(len(np.unique(column)) > 1 for column in branches.T)


def test_deterministic_assignments_choose_the_mean(tmp_path: Path, games: Any) -> None:
    game = GAMES["hybrid"]
    with fleet_of(game, tmp_path) as (fleet, first):
        (behavior_id,) = first.decisions
        seen, policy = first.decisions[behavior_id], policy_for(first)
        assignment = Assignment(5, {behavior_id: graph_of(policy)}, deterministic=True)
        for message in played(fleet, assignment):
            obs = policy.inputs([torch.from_numpy(np.array(column)) for column in seen.obs])
            mask = torch.from_numpy(np.array(seen.action_mask))
            expected = policy.act(obs, mask, torch.Generator(), deterministic=True)
            choices = message.choices[behavior_id]
            np.testing.assert_allclose(choices.continuous, expected.continuous, atol=1e-5)
            np.testing.assert_array_equal(choices.discrete, expected.discrete)
            seen = message.decisions[behavior_id]


def test_trainer_acts_again_between_assignments(tmp_path: Path, games: Any) -> None:
    game = GAMES["hybrid"]
    with fleet_of(game, tmp_path) as (fleet, first):
        copies = Copies(game, games)
        (behavior_id,) = first.decisions
        graph = graph_of(policy_for(first))
        fixed = Choices(
            np.array([[0.5, -1.5], [4.0, 0.0]], np.float32),
            np.array([[2], [1]], np.int64),
            np.zeros((2, 3), np.float32),
        )
        for number in range(4):
            if number % 2:
                fleet.send(0, {behavior_id: fixed.actions()})
                messages = [heard(fleet)]
                assert messages[0].choices == {}
            else:
                messages = played(fleet, Assignment(3, {behavior_id: graph}))
            for message in messages:
                copies.step(message.choices.get(behavior_id, fixed), message)
                copies.require(message.decisions[behavior_id])


def test_assignment_before_any_policy_ends_the_simulator_and_its_log_says_why(
    tmp_path: Path, games: Any
) -> None:
    with fleet_of(GAMES["hybrid"], tmp_path, max_lifetime_restarts=0) as (fleet, _):
        fleet.assign(0, Assignment(3, {}))
        (loss,) = fleet.recv(timeout_s=WAIT_S)
        assert isinstance(loss, SimulatorLoss)
        assert isinstance(loss.error, SimulatorCrashedError)
        said = " ".join(str(loss.error).split())
        assert "The trainer assigned 3 steps of Hybrid?team=0 and no policy to act with." in said


def test_policy_that_is_no_model_ends_the_simulator(tmp_path: Path, games: Any) -> None:
    with fleet_of(GAMES["hybrid"], tmp_path, max_lifetime_restarts=0) as (fleet, first):
        (behavior_id,) = first.decisions
        broken = PolicyGraph(b"not ONNX", np.zeros(2, np.float32))
        fleet.assign(0, Assignment(3, {behavior_id: broken}))
        (loss,) = fleet.recv(timeout_s=WAIT_S)
        assert isinstance(loss, SimulatorLoss)
