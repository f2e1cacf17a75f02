"""Masks of an environment on the wire, where True is what is forbidden."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from masked_env import ALLOWED, MaskedEnv
from plain_trainer import WAIT_S, serving

from envs.errors import BadDataError
from envs.gym.agent import GymSimulator
from envs.gym.masks import ActionMasks

HERE = Path(__file__).parent


@pytest.mark.parametrize("form", ["flat", "branches", "method"])
def test_every_form_of_mask_reaches_the_trainer_with_its_decision(form: str) -> None:
    simulator = GymSimulator([MaskedEnv(form), MaskedEnv(form)], "MaskedEnv", seed=1)
    simulator.reset()
    forbidden = simulator._records.forbidden
    assert forbidden.tolist()[:2] == [[0, 1, 0, 1, 0]] * 2
    assert forbidden.tolist()[2:] == [[0] * 5] * 2  # rows of agents whose episode is over


def test_ordinary_protobuf_reads_the_masks(tmp_path: Path) -> None:
    arguments = ("--env", "masked_env:MaskedEnv", "--kwargs", '{"form": "branches"}')
    with serving(*arguments, cwd=HERE, log=tmp_path / "log") as (trainer, process):
        trainer.greet(num_areas=2)
        found = [list(agent.action_mask) for agent in trainer.begin()]
        assert found == [[not allowed for allowed in ALLOWED[0]]] * 2
        trainer.close()
        assert process.wait(WAIT_S) == 0


def test_taxi_of_gymnasium_forbids_what_its_walls_do() -> None:
    env = gymnasium.make("Taxi-v4", disable_env_checker=True)
    _, info = env.reset(seed=3)
    masks = ActionMasks([env], [6])
    assert masks.are_given([info])
    assert masks.forbidden(0, info).tolist() == [not bool(x) for x in info["action_mask"]]
    env.close()


def test_environment_without_masks_sends_none() -> None:
    simulator = GymSimulator([gymnasium.make("CartPole-v1")], "CartPole", seed=1)
    simulator.reset()
    assert simulator._records.forbidden.shape == (2, 0)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("short", r"info\['action_mask'\] of environment 0 has 2 values.*the actions are 5 in all"),
        ("nothing", "leaves a branch without any action"),
    ],
)
def test_mask_that_makes_no_sense_is_refused(form: str, message: str) -> None:
    simulator = GymSimulator([MaskedEnv(form)], "MaskedEnv", seed=1)
    with pytest.raises(BadDataError, match=message):
        simulator.reset()


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({"action_mask": [1, 1]}, {}, "which it has given before"),
        ({}, {"action_mask": [1, 1]}, "but not with the first reset"),
    ],
)
def test_mask_that_comes_and_goes_is_refused(
    first: dict[str, object], then: dict[str, object], message: str
) -> None:
    simulator = GymSimulator([gymnasium.make("CartPole-v1")], "CartPole", seed=1)
    simulator._has_masks = simulator._masks.are_given([first])
    simulator._build_rows()
    simulator._write_mask(0, first)
    with pytest.raises(BadDataError, match=message):
        simulator._write_mask(0, then)


def test_mask_without_branches_is_refused() -> None:
    masks = ActionMasks([gymnasium.make("CartPole-v1")], [])
    with pytest.raises(BadDataError, match="has 3 values, but the actions are 0 in all"):
        masks.forbidden(0, {"action_mask": np.ones(3)})
