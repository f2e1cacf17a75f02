from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest import approx
from sensor_specs import behavior as behavior_spec
from sensor_specs import entities, image, random_obs, vector

from envs.batch import Decisions, Terminals
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.behavior import Behavior, BehaviorMismatchError
from trainer.config.settings import BehaviorSettings

CROWD = 8  # agents at once
SETTINGS: dict[str, Any] = {
    "hyperparameters": {
        "batch_size": 32,
        "buffer_size": 32,
        "learning_rate": 0.01,
        "learning_rate_schedule": "constant",
    },
    "network_settings": {"hidden_units": 8, "num_layers": 1, "normalize": True},
    "summary_freq": 100,
    "checkpoint_interval": 250,
    "max_steps": 100_000,
}

Make = Callable[..., Behavior]


def spec_of(
    sizes: tuple[int, ...] = (2,), continuous: int = 1, branches: tuple[int, ...] = ()
) -> BehaviorSpec:
    sensors = [
        ObservationSpec((size,), (DimensionProperty.NONE,), Kind.DEFAULT, "eyes") for size in sizes
    ]
    return BehaviorSpec(sensors, ActionSpec(continuous, branches))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    torch.set_num_threads(1)  # as a run does for small networks
    made: list[Behavior] = []

    def build(
        spec: BehaviorSpec | None = None,
        state: dict[str, object] | None = None,
        seed: int = 3,
        is_training: bool = True,
        starts_at_zero: bool = False,
        **changes: Any,
    ) -> Behavior:
        settings = {
            key: {**value, **changes.get(key, {})} if isinstance(value, dict) else value
            for key, value in {**changes, **SETTINGS}.items()
        }
        settings.update({key: value for key, value in changes.items() if key not in settings})
        settings.update({k: v for k, v in changes.items() if not isinstance(v, dict)})
        behavior = Behavior(
            "Crab",
            spec or spec_of(),
            BehaviorSettings.model_validate(settings),
            tmp_path / str(len(made)),
            seed=seed,
            device=torch.device("cpu"),
            is_training=is_training,
            state=state,
            starts_at_zero=starts_at_zero,
        )
        made.append(behavior)
        return behavior

    yield build
    for behavior in made:
        behavior.metrics.close()


def columns(lanes: list[int], reward: list[float], moment: int) -> dict[str, Any]:
    count = len(lanes)
    zeros = np.zeros(count, np.int32)
    own = np.array(lanes, np.float32)
    return {
        "obs": (np.stack([np.sin(own + moment), 100 + 10 * np.cos(own * moment)], axis=1),),
        "reward": np.array(reward, np.float32),
        "lane": np.array(lanes),
        "agent_id": zeros,
        "simulator": zeros,
        "team": zeros,
        "group_id": zeros,
        "group_reward": np.zeros(count, np.float32),
    }


LANES = list(range(CROWD))


def play(behavior: Behavior, decisions: int, moment: int = 0) -> list[float]:
    """One episode of each agent: the reward of an action is the action; gives all actions."""
    reward = [0.0] * CROWD
    sent: list[float] = []
    for step in range(decisions):
        (answer,) = behavior.decide([Decisions(**columns(LANES, reward, moment + step))])
        reward = answer.continuous[:, 0].tolist()
        sent += reward
    ended = columns(LANES, reward, moment + decisions)
    behavior.end([Terminals(**ended, truncated=np.array([i % 2 == 0 for i in LANES]))])
    return sent


def weights(behavior: Behavior) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in behavior.policy.parameters()])


def through_a_file(state: dict[str, object]) -> dict[str, object]:
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    found = torch.load(stored, weights_only=True)
    assert isinstance(found, dict)
    return found


def require_plain(where: str, value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert isinstance(key, str | int), where
            require_plain(f"{where}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            require_plain(f"{where}[]", inner)
    else:
        plain = (torch.Tensor, int, float, str, bool, type(None))
        assert type(value) in plain, f"{where} is a {type(value)}"


def statistics(behavior: Behavior) -> dict[str, float]:
    return behavior.metrics.write(behavior.step)


# Collecting.


def test_step_counts_complete_decisions(make: Make) -> None:
    behavior = make()
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


def test_begin_anew_forgets_lanes_and_everything_collected(make: Make) -> None:
    behavior = make()
    play(behavior, 2)
    behavior.decide([Decisions(**columns(LANES, [0.0] * CROWD, 0))])
    behavior.begin_anew(np.array(LANES))
    assert behavior.log.num_rows == 0
    assert behavior.log.num_complete == 0
    play(behavior, 4)  # 9999 as first reward would show, were an old row still open
    assert behavior.log.num_complete == 4 * CROWD


REINFORCE: dict[str, Any] = {"trainer_type": "reinforce", "hyperparameters": {"batch_size": 8}}


def test_reinforce_waits_for_the_end_of_episodes(make: Make) -> None:
    behavior = make(**REINFORCE)
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


def test_size_of_rewards_outlives_the_process(make: Make) -> None:
    changes = {"reward_signals": {"extrinsic": {"normalize": True, "clip": 5}}}
    behavior = make(**changes)
    play(behavior, 4)
    behavior.learn()
    (saved,) = behavior.rewards
    (resumed,) = make(state=behavior.state_dict(), seed=9, **changes).rewards
    assert saved.scale is not None
    assert saved.state_dict() == resumed.state_dict() != make(**changes).rewards[0].state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer_type": "npg"}, "trainer_type ppo, and the settings say npg"),
        ({"hyperparameters": {"critic_learning_rate": 0.1}}, "critic_learning_rate unset"),
    ],
)
def test_state_of_another_learner_is_refused(
    make: Make, changes: dict[str, Any], message: str
) -> None:
    state = make().state_dict()
    with pytest.raises(BehaviorMismatchError, match=message):
        make(state=state, **changes)


def test_equal_seeds_give_equal_actions_and_other_seeds_others(make: Make) -> None:
    assert play(make(seed=3), 4) == play(make(seed=3), 4)
    assert play(make(seed=3), 4) != play(make(seed=4), 4)


# Learning.


def test_ratio_of_the_first_minibatch_is_one_after_the_normalizer_has_changed(make: Make) -> None:
    behavior = make(hyperparameters={"num_epoch": 1})
    for update in range(4):
        play(behavior, 4, moment=10 * update)
        assert behavior.is_ready_to_learn
        behavior.learn()
        assert statistics(behavior)["Policy/KL"] == approx(0.0, abs=1e-10)
    assert behavior.num_updates == 4


def test_normalizer_takes_in_each_observation_that_was_learnt_from_once(make: Make) -> None:
    behavior = make(hyperparameters={"num_epoch": 3})
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


def test_open_rows_are_the_only_ones_of_an_older_policy(make: Make) -> None:
    behavior = make(hyperparameters={"num_epoch": 1})
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


def test_crowd_of_interleaved_agents_learns_what_its_actions_are_worth(make: Make) -> None:
    """Reward of an action comes later, with other agents' messages between: mix-ups show here."""
    behavior = make(
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


def test_acting_without_training_changes_nothing(make: Make) -> None:
    behavior = make(is_training=False)
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


def test_finished_behavior_uses_what_it_has_collected_and_then_learns_no_more(make: Make) -> None:
    behavior = make(max_steps=50)
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


def test_statistics_tell_rewards_and_what_the_critic_made_of_them(make: Make) -> None:
    behavior = make(reward_signals={"extrinsic": {"strength": 10.0, "gamma": 0.5}})
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


def written_scalars(behavior: Behavior) -> dict[str, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    behavior.metrics.flush()
    events: Any = EventAccumulator(str(behavior.folder))
    events.Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


# Summaries and checkpoints.


def test_summaries_stand_at_exact_multiples(make: Make) -> None:
    behavior = make()
    steps = []
    for step in (0, 99, 100, 101, 199, 230, 550, 600):
        behavior.step = step
        summary = behavior.summary_if_due()
        steps.append(summary and summary.step)
    assert steps == [None, None, 100, None, None, 200, 500, 600]


def test_every_summary_shows_the_rates_of_its_own_step(make: Make) -> None:
    behavior = make(
        max_steps=1000,
        hyperparameters={
            "learning_rate": 0.01,
            "learning_rate_schedule": "linear",
            "epsilon": 0.3,
            "beta": 0.005,
        },
    )
    found: list[Any] = []
    for step in (100, 250, 500):  # nobody has learnt anything between them
        behavior.step = step
        summary = behavior.summary_if_due()
        assert summary is not None
        scalars = {tag: summary.scalars[f"Policy/{tag}"] for tag in ("Epsilon", "Beta")}
        found.append((summary.step, summary.scalars["Policy/Learning Rate"], scalars))
    # Straight from the start to the floors 1e-10, 0.1 and 1e-5 at step 1000.
    assert found == [
        (100, approx(0.009), {"Epsilon": approx(0.28), "Beta": approx(0.9 * 0.00499 + 1e-5)}),
        (200, approx(0.008), {"Epsilon": approx(0.26), "Beta": approx(0.8 * 0.00499 + 1e-5)}),
        (500, approx(0.005), {"Epsilon": approx(0.20), "Beta": approx(0.5 * 0.00499 + 1e-5)}),
    ]
    assert written_scalars(behavior)["Policy/Learning Rate"] == approx(0.005)


def test_summary_of_acting_alone_shows_no_rates(make: Make) -> None:
    behavior = make(is_training=False)
    behavior.step = 100
    summary = behavior.summary_if_due()
    assert summary is not None
    assert not [tag for tag in summary.scalars if "Rate" in tag]


def test_summary_without_an_episode_says_so(make: Make) -> None:
    behavior = make()
    behavior.step = 100
    summary = behavior.summary_if_due()
    assert summary is not None
    assert (summary.num_episodes, summary.mean_reward, summary.std_of_reward) == (0, None, None)


def test_checkpoints_are_due_once_per_interval(make: Make) -> None:
    behavior = make()
    due = []
    for step in (0, 249, 250, 251, 499, 1100, 1249):
        behavior.step = step
        due.append(behavior.is_checkpoint_due)
        if due[-1]:
            behavior.plan_next_checkpoint()
    assert due == [False, False, True, False, False, True, False]


# State.


def test_state_holds_only_what_any_reader_can_load(make: Make) -> None:
    behavior = make(spec=spec_of((2,), 1))
    play(behavior, 4)
    behavior.learn()
    state = behavior.state_dict()
    require_plain("state", state)
    through_a_file(state)


def test_state_is_a_snapshot(make: Make) -> None:
    behavior = make()
    for update in range(2):
        play(behavior, 4, moment=update)
        behavior.learn()
    state = behavior.state_dict()
    kept = through_a_file(state)
    play(behavior, 4)
    behavior.learn()
    pairs = list(zip(tensors(state), tensors(kept), strict=True))
    assert len(pairs) > 10
    assert all(torch.equal(now, before) for now, before in pairs)
    assert (state["step"], state["recent_returns"]) == (kept["step"], kept["recent_returns"])


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for inner in value.values() for tensor in tensors(inner)]
    return []


def test_resumed_behavior_cannot_be_told_from_one_that_went_on(make: Make) -> None:
    behavior = make()
    for update in range(2):
        play(behavior, 4, moment=update)
        behavior.learn()
    resumed = make(seed=99, state=through_a_file(behavior.state_dict()))
    assert (resumed.step, resumed.num_updates) == (64, 2)
    assert resumed.mean_recent_return == behavior.mean_recent_return is not None
    for update in (2, 3):
        assert play(behavior, 4, moment=update) == play(resumed, 4, moment=update)
        behavior.learn()
        resumed.learn()
        assert torch.equal(weights(behavior), weights(resumed))
    assert behavior.step == resumed.step
    ours, theirs = (tensors(one.state_dict()) for one in (behavior, resumed))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_resumed_behavior_writes_its_summaries_where_they_would_have_been(make: Make) -> None:
    state = {**make().state_dict(), "step": 230}
    resumed = make(state=state)
    resumed.step = 299
    assert resumed.summary_if_due() is None
    resumed.step = 301
    summary = resumed.summary_if_due()
    assert summary is not None
    assert summary.step == 300


def test_initialized_behavior_has_the_weights_and_a_history_of_its_own(make: Make) -> None:
    source = make()
    play(source, 4)
    source.learn()
    behavior = make(state=through_a_file(source.state_dict()), starts_at_zero=True)
    assert torch.equal(weights(behavior), weights(source))
    assert (behavior.step, behavior.num_updates) == (0, 0)
    assert behavior.mean_recent_return is None
    assert behavior.mean_recent_length is None


@pytest.mark.parametrize(
    ("spec", "changes", "named"),
    [
        (spec_of(), {"network_settings": {"hidden_units": 9}}, "checkpoint (8, 2), now (9, 2)"),
        (spec_of(), {"network_settings": {"num_layers": 2}}, "checkpoint none, now (8, 8)"),
        (spec_of(), {"network_settings": {"normalize": False}}, "now none"),
        (spec_of((3,)), {}, "observations: checkpoint [[2]], now [[3]]"),
        (spec_of((2,), 2), {}, "log_std: checkpoint (1,), now (2,)"),
    ],
)
def test_checkpoint_of_another_network_is_refused(
    make: Make, spec: BehaviorSpec, changes: dict[str, Any], named: str
) -> None:
    state = make().state_dict()
    with pytest.raises(BehaviorMismatchError) as error:
        make(spec=spec, state=state, **changes)
    message = str(error.value)
    for words in ("Behavior 'Crab'", "differences", named, "--run-id"):
        assert words in message


@pytest.mark.parametrize(
    ("before", "now", "changes", "named"),
    [
        (spec_of(), spec_of(), {"hyperparameters": {"shared_critic": True}}, "shared_critic"),
        (spec_of(), spec_of(), {"network_settings": {"activation": "relu"}}, "activation"),
        (spec_of(), spec_of(), {"network_settings": {"std_type": "fixed"}}, "std_type"),
        (spec_of((2,), 0, (2, 3)), spec_of((2,), 0, (3, 2)), {}, "discrete_branches"),
        (spec_of((1, 2)), spec_of((2, 1)), {}, "observations"),
    ],
)
def test_checkpoint_of_equal_shapes_and_another_meaning_is_refused(
    make: Make, before: BehaviorSpec, now: BehaviorSpec, changes: dict[str, Any], named: str
) -> None:
    state = make(spec=before).state_dict()
    make(spec=before, state=state)
    with pytest.raises(BehaviorMismatchError) as error:
        make(spec=now, state=state, **changes)
    for words in ("Behavior 'Crab'", named, "--run-id"):
        assert words in str(error.value)


def test_images_stay_bytes_from_the_log_to_the_update(make: Make) -> None:
    spec = behavior_spec(vector(2), image(3, 20, 20), entities(3, 2), continuous=1)
    behavior = make(spec)
    before = weights(behavior).clone()
    for step in range(6):
        given = columns(LANES, [0.1 * step] * CROWD, step)
        given["obs"] = tuple(column.numpy() for column in random_obs(spec, CROWD, seed=step))
        behavior.decide([Decisions(**given)])
    assert behavior.log.columns["obs_1"].dtype == np.uint8
    assert behavior.is_ready_to_learn
    behavior.learn()
    assert behavior.num_updates == 1
    assert not torch.equal(weights(behavior), before)
    assert behavior.policy.normalizer is not None
    assert behavior.policy.normalizer.mean.shape == (2,)
    assert any("camera (3, 20, 20) uint8" in line for line in behavior.introduction())
    assert any("crowd (3, 2) of variable length" in line for line in behavior.introduction())
    again = make(spec, state=through_a_file(behavior.state_dict()))
    assert torch.equal(weights(again), weights(behavior))


def test_changed_settings_keep_what_was_learnt_and_survive_a_resume(make: Make) -> None:
    behavior = make()
    before = copy.deepcopy(behavior.algorithm.state_dict())
    behavior.learning_rate_factor = 0.1  # as after a divergence
    settings = behavior.settings.model_copy(
        update={
            "summary_freq": 30,
            "hyperparameters": behavior.settings.hyperparameters.model_copy(
                update={"learning_rate": 0.002}
            ),
        }
    )
    behavior.change_settings(settings)
    rates = behavior.algorithm.rates(behavior.step)
    assert rates["Policy/Learning Rate"] == 0.002
    after = behavior.algorithm.state_dict()
    assert torch.equal(after["generator"], before["generator"])  # type: ignore[arg-type]
    state = io.BytesIO()
    torch.save(behavior.state_dict(), state)
    state.seek(0)
    resumed = make(state=torch.load(state, weights_only=True))
    assert resumed.settings.summary_freq == 30
    assert resumed.algorithm.rates(0)["Policy/Learning Rate"] == 0.002
    other = make(state=behavior.state_dict(), starts_at_zero=True)
    assert other.settings.summary_freq == 100  # another run's changes are not this one's
