"""One behaviour whose updates are carried out while it goes on acting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crowd_behavior import CROWD, LANES, MakeBehavior, columns, play, statistics, weights

import trainer.actor
from envs.batch import Decisions
from trainer.behavior import Behavior


def answers(behavior: Behavior, moment: int) -> list[float]:
    (answer,) = behavior.decide([Decisions(**columns(LANES, [0.0] * CROWD, moment))])
    found: list[float] = answer.continuous[:, 0].tolist()
    return found


@pytest.fixture(params=["onnxruntime", "the policy itself"])
def make(
    request: pytest.FixtureRequest, make_behavior: MakeBehavior, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A threaded behaviour; on other devices than the CPU the policy itself acts."""
    if request.param != "onnxruntime":
        monkeypatch.setattr(trainer.actor, "runs_onnx", lambda device: False)

    def build(**changes: Any) -> Behavior:
        network = {"deterministic": True}
        return make_behavior(is_threaded=True, threaded=True, network_settings=network, **changes)

    return build


def test_agents_act_as_before_until_the_update_is_published(make: Any) -> None:
    behavior = make()
    play(behavior, 4)
    first = answers(behavior, 7)
    before = weights(behavior)
    update = behavior.begin_update()
    update.carry_out()
    assert not torch.equal(weights(behavior), before)
    assert answers(behavior, 7) == first
    behavior.end_update()
    assert answers(behavior, 7) != first


def test_what_is_under_way_is_no_state_and_counts_as_not_learnt(make: Any) -> None:
    behavior = make()
    play(behavior, 4)
    behavior.begin_update()
    with pytest.raises(AssertionError, match="half an update is no state"):
        behavior.state_dict()
    assert not behavior.has_just_learned
    behavior.update.carry_out()
    play(behavior, 3)
    behavior.end_update()
    assert behavior.has_just_learned
    assert behavior.step == 56
    # 24 decisions were collected meanwhile: whoever goes on from here collects them anew.
    assert behavior.state_dict()["step"] == 32


def test_update_that_was_not_carried_out_counts_for_nothing(make: Any) -> None:
    behavior = make()
    play(behavior, 4)
    behavior.begin_update()
    assert behavior.end_update() is None
    assert behavior.num_updates == 0


def test_lag_is_measured_and_what_is_older_than_the_bound_is_dropped(make: Any) -> None:
    behavior = make(max_policy_lag=1)
    # Agent 0 decides once and is silent for three updates; the others go on.
    answers(behavior, 0)
    for moment in range(3):
        others = LANES[1:]
        for step in range(6):
            behavior.decide([Decisions(**columns(others, [0.0] * 7, 10 * moment + step))])
        assert behavior.drop_stale() == 0
        behavior.begin_update().carry_out()
        behavior.end_update()
    shown = statistics(behavior)
    # The first rollout by its own version; of each later one 35 of 42 too, 7 were open.
    assert shown["Policy/Lag"] == pytest.approx((0 + 7 / 42 + 7 / 42) / 3)
    assert shown["Policy/Largest Lag"] == 1
    assert shown["Policy/Stale Steps"] == 0
    answers(behavior, 99)  # now agent 0's first decision has its reward: three updates old
    assert behavior.log.num_complete == 8
    assert behavior.drop_stale() == 1
    assert behavior.log.num_complete == 7
    assert statistics(behavior)["Policy/Stale Steps"] == 1


def test_room_ahead_is_there_until_an_update_is_under_way(
    make: Any, make_behavior: MakeBehavior
) -> None:
    behavior = make()
    play(behavior, 4)
    assert behavior.num_ahead == 32
    behavior.begin_update()
    assert behavior.num_ahead == 0
    assert make_behavior().num_ahead == 0
