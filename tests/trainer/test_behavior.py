"""One behaviour from decisions to updates: what is collected, and what is learnt from it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from crowd_behavior import (
    CROWD,
    LANES,
    MakeBehavior,
    columns,
    play,
    statistics,
    weights,
    written_scalars,
)
from pytest import approx

from envs.batch import Decisions, Terminals
from trainer.behavior_match import BehaviorMismatchError

# Collecting.


def test_step_counts_complete_decisions(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior()
    idle = [0.0] * CROWD
    behavior.decide([Decisions(**columns(LANES, idle, 0))])
    assert behavior.step == 0  # nothing has come of them yet
    behavior.decide([Decisions(**columns([0, 1, 2], idle[:3], 1))])
    assert behavior.step == 3
    behavior.end([Terminals(**columns([5], [0.0], 1), truncated=np.array([True]))])
    assert behavior.step == 4
    behavior.abandon(np.array([6, 7]))
    behavior.decide([Decisions(**columns([6, 7], [0.0, 0.0], 1))])  # other agents in these lanes
    assert behavior.step == 4


def test_begin_anew_forgets_lanes_and_everything_collected(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior()
    play(behavior, 2)
    behavior.decide([Decisions(**columns(LANES, [0.0] * CROWD, 0))])
    behavior.begin_anew(np.array(LANES))
    assert behavior.log.num_rows == 0
    assert behavior.log.num_complete == 0
    play(behavior, 4)  # 9999 as first reward would show, were an old row still open
    assert behavior.log.num_complete == 4 * CROWD


REINFORCE: dict[str, Any] = {"trainer_type": "reinforce", "hyperparameters": {"batch_size": 8}}


def test_reinforce_waits_for_the_end_of_episodes(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior(**REINFORCE)
    idle = [0.0] * CROWD
    for moment in range(6):
        behavior.decide([Decisions(**columns(LANES, idle, moment))])
    assert behavior.step == 5 * CROWD
    assert not behavior.is_ready_to_learn  # 40 decisions, and no episode is over
    ended = LANES[:6]
    behavior.end([Terminals(**columns(ended, idle[:6], 6), truncated=np.zeros(6, np.bool_))])
    assert behavior.is_ready_to_learn  # 6 episodes of 6 decisions
    behavior.learn()
    assert behavior.log.num_complete == 2 * 5  # of two agents that go on
    assert behavior.has_just_learned
    assert behavior.step == 46
    assert behavior.saved_step == 36
    behavior.begin_anew(np.array(LANES))
    assert behavior.step == behavior.saved_step == 36
    assert behavior.log.num_rows == 0


def test_size_of_rewards_outlives_the_process(make_behavior: MakeBehavior) -> None:
    changes = {"reward_signals": {"extrinsic": {"normalize": True, "clip": 5}}}
    behavior = make_behavior(**changes)
    play(behavior, 4)
    behavior.learn()
    (saved,) = behavior.rewards
    (resumed,) = make_behavior(state=behavior.state_dict(), seed=9, **changes).rewards
    assert saved.scale is not None
    assert (
        saved.state_dict()
        == resumed.state_dict()
        != make_behavior(**changes).rewards[0].state_dict()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer_type": "npg"}, "trainer_type ppo, and the settings say npg"),
        ({"hyperparameters": {"critic_learning_rate": 0.1}}, "critic_learning_rate unset"),
    ],
)
def test_state_of_another_learner_is_refused(
    make_behavior: MakeBehavior, changes: dict[str, Any], message: str
) -> None:
    state = make_behavior().state_dict()
    with pytest.raises(BehaviorMismatchError, match=message):
        make_behavior(state=state, **changes)


def test_equal_seeds_give_equal_actions_and_other_seeds_others(make_behavior: MakeBehavior) -> None:
    assert play(make_behavior(seed=3), 4) == play(make_behavior(seed=3), 4)
    assert play(make_behavior(seed=3), 4) != play(make_behavior(seed=4), 4)


# Learning.


def test_ratio_of_the_first_minibatch_is_one_after_the_normalizer_has_changed(
    make_behavior: MakeBehavior,
) -> None:
    behavior = make_behavior(hyperparameters={"num_epoch": 1})
    for update in range(4):
        play(behavior, 4, moment=10 * update)
        assert behavior.is_ready_to_learn
        behavior.learn()
        assert statistics(behavior)["Policy/KL"] == approx(0.0, abs=1e-10)
    assert behavior.num_updates == 4


def test_normalizer_takes_in_each_observation_that_was_learnt_from_once(
    make_behavior: MakeBehavior,
) -> None:
    behavior = make_behavior(hyperparameters={"num_epoch": 3})
    normalizer = behavior.policy.normalizer
    assert normalizer is not None
    seen = np.zeros((1, 2))  # the imagined row
    for update in range(2):
        play(behavior, 4, moment=10 * update)
        for step in range(4):
            batch = columns(LANES, [0.0] * CROWD, 10 * update + step)
            seen = np.concatenate([seen, batch["obs"][0]])
        behavior.learn()
    assert normalizer.steps.item() == 1 + 2 * 4 * CROWD
    assert normalizer.mean.numpy() == approx(seen.mean(axis=0), rel=1e-6)


def test_open_rows_are_the_only_ones_of_an_older_policy(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior(hyperparameters={"num_epoch": 1})
    reward = [0.0] * CROWD
    found = []
    for step in range(9):  # nobody's episode ends: the last decisions are open at each update
        (answer,) = behavior.decide([Decisions(**columns(LANES, reward, step))])
        reward = answer.continuous[:, 0].tolist()
        if behavior.is_ready_to_learn:
            behavior.learn()
            found.append(statistics(behavior)["Policy/KL"])
    assert len(found) == 2
    assert found[0] == approx(0.0, abs=1e-10)
    assert found[1] > 1e-6  # a quarter of these rows were decided before the first update


def test_crowd_of_interleaved_agents_learns_what_its_actions_are_worth(
    make_behavior: MakeBehavior,
) -> None:
    """Reward of an action comes later, with other agents' messages between: mix-ups show here."""
    behavior = make_behavior(
        hyperparameters={"batch_size": 64, "buffer_size": 256, "learning_rate": 0.005},
        network_settings={"hidden_units": 16},
    )
    chance = np.random.default_rng(0)
    last = np.zeros(16)
    signs = np.zeros(16)
    heard: list[float] = []
    while behavior.num_updates < 24:
        lanes = chance.permutation(16)[: chance.integers(1, 17)]
        rewards = 1 - (3 * last[lanes] - signs[lanes]) ** 2
        signs[lanes] = chance.choice([-1.0, 1.0], len(lanes))
        batch = columns(lanes.tolist(), rewards.tolist(), 0)
        batch["obs"] = (np.stack([signs[lanes], np.ones(len(lanes))], axis=1).astype(np.float32),)
        (answer,) = behavior.decide([Decisions(**batch)])
        last[lanes] = answer.continuous[:, 0]
        heard += rewards.tolist()
        if behavior.is_ready_to_learn:
            behavior.learn()
    assert np.mean(heard[16:272]) < 0
    # the best is 1, less the variance of the noise that the policy still has
    assert np.mean(heard[-256:]) > 0.75


def test_acting_without_training_changes_nothing(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior(is_training=False)
    before = copy.deepcopy(behavior.policy.state_dict())
    for update in range(3):
        play(behavior, 4, moment=update)
        assert behavior.is_ready_to_learn
        behavior.learn()
        assert behavior.log.num_complete == 0
    for name, value in behavior.policy.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert (behavior.num_updates, behavior.step) == (0, 96)
    assert behavior.mean_recent_length == 4.0


def test_finished_behavior_uses_what_it_has_collected_and_then_learns_no_more(
    make_behavior: MakeBehavior,
) -> None:
    behavior = make_behavior(max_steps=50)
    play(behavior, 4)
    behavior.learn()
    play(behavior, 4)  # 32 + 32 decisions: the limit lies among them
    assert behavior.is_finished
    behavior.learn()
    assert behavior.num_updates == 2
    before = weights(behavior)
    play(behavior, 4)
    behavior.learn()
    assert behavior.num_updates == 2
    assert behavior.log.num_complete == 0
    assert torch.equal(weights(behavior), before)


def test_statistics_tell_rewards_and_what_the_critic_made_of_them(
    make_behavior: MakeBehavior,
) -> None:
    behavior = make_behavior(reward_signals={"extrinsic": {"strength": 10.0, "gamma": 0.5}})
    with torch.no_grad():
        behavior.policy.value_head.weight.zero_()
        behavior.policy.value_head.bias.fill_(2.5)
    sent = play(behavior, 4)
    behavior.learn()
    behavior.step = 100
    summary = behavior.summary_if_due()
    assert summary is not None
    # each agent's return is the sum of its four actions
    returns = np.array(sent).reshape(4, CROWD).sum(axis=0)
    assert summary.num_episodes == CROWD
    assert summary.mean_reward == approx(returns.mean(), abs=1e-6)
    assert summary.std_of_reward == approx(returns.std(), abs=1e-6)
    scalars = written_scalars(behavior)
    assert scalars["Environment/Cumulative Reward"] == approx(returns.mean(), abs=1e-6)
    assert scalars["Environment/Episode Length"] == 3.0  # ML-Agents leaves out the last transition
    assert scalars["Policy/Extrinsic Reward"] == approx(10 * returns.mean(), abs=1e-5)
    assert scalars["Policy/Extrinsic Value Estimate"] == approx(2.5)
