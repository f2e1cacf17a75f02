from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest import approx

from envs.batch import Actions, Decisions
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.actor import Actor, split_actions, to_simulator
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import Action, ActorCritic
from trainer.rollout.steplog import StepLog

SENSORS = [
    ObservationSpec((size,), (DimensionProperty.NONE,), Kind.DEFAULT, f"s{size}") for size in (2, 1)
]


def make(
    continuous: int, branches: tuple[int, ...], deterministic: bool, seed: int = 0
) -> tuple[Actor, StepLog]:
    spec = BehaviorSpec(SENSORS, ActionSpec(continuous, branches))
    torch.manual_seed(0)
    policy = ActorCritic("Crab", spec, NetworkSettings(initial_log_std=1.0), 1, False)
    return Actor(policy, seed, deterministic), StepLog(spec, 4)


def ask(lanes: list[int], mask: list[bool] | None = None) -> Decisions:
    """Agent in lane n sees (n, n + 0.5) and -n."""
    column = np.array(lanes, np.float32)[:, None]
    zeros = np.zeros(len(lanes), np.int32)
    return Decisions(
        obs=(np.hstack([column, column + 0.5]), -column),
        reward=np.zeros(len(lanes), np.float32),
        lane=np.array(lanes),
        agent_id=zeros,
        simulator=zeros,
        team=zeros,
        group_id=zeros,
        group_reward=np.zeros(len(lanes), np.float32),
        action_mask=None if mask is None else np.tile(np.array(mask), (len(lanes), 1)),
    )


def test_simulators_get_continuous_actions_clipped_at_three_and_scaled_to_one() -> None:
    drawn = torch.tensor([[0.0, 1.5, 3.0, 3.1, -7.0]])
    actions = to_simulator(Action(drawn, torch.tensor([[4]]), torch.zeros(1, 6)))
    assert actions.continuous.tolist() == [[0.0, 0.5, 1.0, 1.0, -1.0]]
    assert actions.discrete.tolist() == [[4]]
    assert actions.continuous.dtype == np.float32
    assert actions.discrete.dtype == np.int32
    assert drawn.tolist() == [[0.0, 1.5, 3.0, approx(3.1), -7.0]]  # what is learnt from


def test_answers_are_cut_back_into_the_batches_they_answer() -> None:
    numbers = np.arange(6, dtype=np.float32)[:, None]
    parts = split_actions(Actions(numbers, numbers.astype(np.int32)), [1, 3, 2])
    assert [part.continuous[:, 0].tolist() for part in parts] == [[0], [1, 2, 3], [4, 5]]
    assert [part.discrete[:, 0].tolist() for part in parts] == [[0], [1, 2, 3], [4, 5]]


def test_every_agent_gets_the_answer_to_its_own_observation() -> None:
    batches = [[3, 0], [7], [1, 5, 2]]
    actor, log = make(2, (4,), deterministic=True)
    answers = actor.act(log, [ask(lanes) for lanes in batches])
    for lanes, answer in zip(batches, answers, strict=True):
        for row, lane in enumerate(lanes):
            alone, _ = make(2, (4,), deterministic=True)
            (own,) = alone.act(make(2, (4,), True)[1], [ask([lane])])
            assert answer.continuous[row] == approx(own.continuous[0], abs=1e-6)
            assert answer.discrete[row].tolist() == own.discrete[0].tolist()


@pytest.mark.parametrize("deterministic", [False, True])
def test_log_holds_what_was_seen_and_drawn_before_clipping(deterministic: bool) -> None:
    actor, log = make(2, (3,), deterministic)
    lanes = list(range(200))
    (answer,) = actor.act(log, [ask(lanes, [True, False, True])])
    drawn = log.columns["continuous"][:200]
    assert log.columns["obs_1"][:200, 0].tolist() == [-lane for lane in lanes]
    assert answer.continuous == approx(np.clip(drawn, -3, 3) / 3, abs=1e-6)
    assert (answer.discrete == log.columns["discrete"][:200]).all()
    assert 1 not in answer.discrete
    if not deterministic:
        assert np.abs(drawn).max() > 3  # the deviation is 2.7
    # the log-probabilities are those of exactly these actions
    obs = [log.tensors[f"obs_{i}"][:200] for i in range(2)]
    evaluation = actor._policy.evaluate(
        actor._policy.inputs(obs),
        log.tensors["action_mask"][:200],
        log.tensors["continuous"][:200],
        log.tensors["discrete"][:200],
    )
    torch.testing.assert_close(
        evaluation.log_probs.detach(), log.tensors["log_probs"][:200], rtol=0, atol=1e-5
    )


def test_deterministic_actors_need_no_luck() -> None:
    answers = []
    for seed in (1, 2):
        actor, log = make(2, (3,), deterministic=True, seed=seed)
        answers += actor.act(log, [ask([0, 1, 2])])
    assert (answers[0].continuous == answers[1].continuous).all()
    assert (answers[0].discrete == answers[1].discrete).all()
