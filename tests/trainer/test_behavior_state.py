"""A behaviour's state: what it holds, that it goes on from it, and which is refused."""

from __future__ import annotations

import copy
import io
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
    require_plain,
    spec_of,
    through_a_file,
    weights,
)
from sensor_specs import behavior as behavior_spec
from sensor_specs import entities, image, random_obs, vector

from envs.batch import Decisions
from envs.spec import BehaviorSpec
from trainer.behavior_match import BehaviorMismatchError

# State.


def test_state_holds_only_what_any_reader_can_load(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior(spec=spec_of((2,), 1))
    play(behavior, 4)
    behavior.learn()
    state = behavior.state_dict()
    require_plain("state", state)
    through_a_file(state)


def test_state_is_a_snapshot(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior()
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


def test_resumed_behavior_cannot_be_told_from_one_that_went_on(make_behavior: MakeBehavior) -> None:
    behavior = make_behavior()
    for update in range(2):
        play(behavior, 4, moment=update)
        behavior.learn()
    resumed = make_behavior(seed=99, state=through_a_file(behavior.state_dict()))
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


def test_resumed_behavior_writes_its_summaries_where_they_would_have_been(
    make_behavior: MakeBehavior,
) -> None:
    state = {**make_behavior().state_dict(), "step": 230}
    resumed = make_behavior(state=state)
    resumed.step = 299
    assert resumed.summary_if_due() is None
    resumed.step = 301
    summary = resumed.summary_if_due()
    assert summary is not None
    assert summary.step == 300


def test_initialized_behavior_has_the_weights_and_a_history_of_its_own(
    make_behavior: MakeBehavior,
) -> None:
    source = make_behavior()
    play(source, 4)
    source.learn()
    behavior = make_behavior(state=through_a_file(source.state_dict()), starts_at_zero=True)
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
    make_behavior: MakeBehavior, spec: BehaviorSpec, changes: dict[str, Any], named: str
) -> None:
    state = make_behavior().state_dict()
    with pytest.raises(BehaviorMismatchError) as error:
        make_behavior(spec=spec, state=state, **changes)
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
    make_behavior: MakeBehavior,
    before: BehaviorSpec,
    now: BehaviorSpec,
    changes: dict[str, Any],
    named: str,
) -> None:
    state = make_behavior(spec=before).state_dict()
    make_behavior(spec=before, state=state)
    with pytest.raises(BehaviorMismatchError) as error:
        make_behavior(spec=now, state=state, **changes)
    for words in ("Behavior 'Crab'", named, "--run-id"):
        assert words in str(error.value)


def test_images_stay_bytes_from_the_log_to_the_update(make_behavior: MakeBehavior) -> None:
    spec = behavior_spec(vector(2), image(3, 20, 20), entities(3, 2), continuous=1)
    behavior = make_behavior(spec)
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
    again = make_behavior(spec, state=through_a_file(behavior.state_dict()))
    assert torch.equal(weights(again), weights(behavior))


def test_changed_settings_keep_what_was_learnt_and_survive_a_resume(
    make_behavior: MakeBehavior,
) -> None:
    behavior = make_behavior()
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
    resumed = make_behavior(state=torch.load(state, weights_only=True))
    assert resumed.settings.summary_freq == 30
    assert resumed.algorithm.rates(0)["Policy/Learning Rate"] == 0.002
    other = make_behavior(state=behavior.state_dict(), starts_at_zero=True)
    assert other.settings.summary_freq == 100  # another run's changes are not this one's
