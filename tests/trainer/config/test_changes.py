"""What may be changed between a stop and a resume, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config.changes import REFUSED, WITHOUT_EFFECT, Change, behavior_changes, run_changes
from trainer.config.settings import BehaviorSettings, RunSettings


def behavior(**settings: Any) -> BehaviorSettings:
    return BehaviorSettings.model_validate(settings)


def changes(before: BehaviorSettings, now: BehaviorSettings) -> list[Change]:
    return list(behavior_changes("Walker", before, now))


def test_equal_settings_have_not_changed() -> None:
    assert changes(behavior(), behavior()) == []
    assert list(run_changes(RunSettings(), RunSettings())) == []


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"max_steps": 9}, "behaviors.Walker.max_steps: 500000 -> 9"),
        (
            {"hyperparameters": {"learning_rate": 1e-4}},
            "behaviors.Walker.hyperparameters.learning_rate: 0.0003 -> 0.0001",
        ),
        (
            {"hyperparameters": {"max_grad_norm": 0.5}},
            "behaviors.Walker.hyperparameters.max_grad_norm: empty (null) -> 0.5",
        ),
        (
            {"reward_signals": {"extrinsic": {"gamma": 0.9}}},
            "behaviors.Walker.reward_signals.extrinsic.gamma: 0.99 -> 0.9",
        ),
        (
            {"network_settings": {"deterministic": True}},
            "behaviors.Walker.network_settings.deterministic: false -> true",
        ),
        (
            {"init_path": "a.pt"},
            "behaviors.Walker.init_path: empty (null) -> 'a.pt' (without effect, because the run "
            "has its weights already)",
        ),
    ],
)
def test_safe_change_is_applied_and_listed(now: dict[str, Any], line: str) -> None:
    (change,) = changes(behavior(), behavior(**now))
    assert change.refusal is None
    assert str(change) == line


@pytest.mark.parametrize(
    ("before", "now", "problem"),
    [
        (
            {},
            {"network_settings": {"hidden_units": 64}},
            "behaviors.Walker.network_settings.hidden_units was 128 when the run was saved, and is "
            "64 now: the saved weights are those of the other network. Set it back to go on, or "
            "begin another run (--run-id).",
        ),
        ({}, {"network_settings": {"num_layers": 3}}, "num_layers was 2"),
        ({}, {"network_settings": {"activation": "tanh"}}, "activation was 'swish'"),
        ({}, {"network_settings": {"memory": {}}}, "network_settings.memory was empty (null)"),
        (
            {"network_settings": {"memory": {"memory_size": 128}}},
            {"network_settings": {"memory": {"memory_size": 64}}},
            "network_settings.memory.memory_size was 128",
        ),
        ({}, {"hyperparameters": {"shared_critic": True}}, "shared_critic was false"),
    ],
)
def test_other_network_is_refused(
    before: dict[str, Any], now: dict[str, Any], problem: str
) -> None:
    (change,) = changes(behavior(**before), behavior(**now))
    assert change.refusal is not None
    assert problem in change.problem


def test_other_reward_signals_are_refused_once() -> None:
    before = behavior()
    signals = {**before.reward_signals, "second": before.reward_signals["extrinsic"]}
    now = before.model_copy(update={"reward_signals": signals})
    (change,) = changes(before, now)
    assert "reward_signals was ['extrinsic'] when" in change.problem
    assert "and is ['extrinsic', 'second'] now: every reward signal has a value head" in (
        change.problem
    )


def test_other_algorithm_is_refused_without_a_list_of_its_hyperparameters() -> None:
    before = behavior()
    now = behavior(max_steps=7).model_copy(update={"trainer_type": "other"})
    (change,) = changes(before, now)
    assert change.path == "behaviors.Walker.trainer_type"
    assert "that of the other algorithm" in change.problem


def test_every_rule_is_about_a_key_that_there_is() -> None:
    memory = behavior(network_settings={"memory": {}}).model_dump()
    for path in (*REFUSED, *WITHOUT_EFFECT):
        place = memory
        for key in path.split("."):
            assert key in place, path
            place = place[key]


def run(**settings: Any) -> RunSettings:
    return RunSettings.model_validate(settings)


def test_changes_outside_of_behaviors_are_listed() -> None:
    found = run_changes(
        run(env_settings={"env_path": "a", "num_envs": 2}),
        run(
            env_settings={"env_path": "a", "num_envs": 8, "timeout_wait": 5},
            engine_settings={"time_scale": 1},
            environment_parameters={"mass": 2},
        ),
    )
    assert [str(change) for change in found] == [
        "env_settings.num_envs: 2 -> 8",
        "env_settings.timeout_wait: 60 -> 5",
        "engine_settings.time_scale: 20.0 -> 1.0",
        "environment_parameters.mass: empty (null) -> 2.0",
    ]


def test_what_a_start_is_told_is_no_change() -> None:
    before = run(checkpoint_settings={"run_id": "a"})
    now = run(checkpoint_settings={"run_id": "a", "resume": True}, debug=True)
    assert list(run_changes(before, now)) == []


def test_seed_counts_in_reproducible_runs_only() -> None:
    seeds = ({"seed": 3}, {"seed": 4})
    before, now = (run(env_settings=seed) for seed in seeds)
    assert list(run_changes(before, now)) == []
    before, now = (run(env_settings=seed, reproducible=True) for seed in seeds)
    (change,) = run_changes(before, now)
    assert change.refusal is not None
    assert "env_settings.seed was 3" in change.problem
