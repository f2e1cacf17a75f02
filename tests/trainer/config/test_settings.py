from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainer.config.errors import ConfigError
from trainer.config.settings import (
    BehaviorSettings,
    CheckpointSettings,
    EngineSettings,
    EnvironmentSettings,
    MemorySettings,
    NetworkSettings,
    PPOHyperparameters,
    RewardSignalSettings,
    RunSettings,
    TorchSettings,
)

# ML-Agents 1.1.0's own defaults, for every key it has (reference/mlagents-config.md).
ML_AGENTS_DEFAULTS: list[tuple[type[Any], dict[str, Any]]] = [
    (
        PPOHyperparameters,
        {
            "batch_size": 1024,
            "buffer_size": 10240,
            "learning_rate": 3e-4,
            "learning_rate_schedule": "linear",
            "num_epoch": 3,
            "beta": 5e-3,
            "beta_schedule": "linear",
            "epsilon": 0.2,
            "epsilon_schedule": "linear",
            "lambd": 0.95,
            "shared_critic": False,
        },
    ),
    (
        NetworkSettings,
        {
            "normalize": False,
            "hidden_units": 128,
            "num_layers": 2,
            "vis_encode_type": "simple",
            "memory": None,
            "goal_conditioning_type": "hyper",
            "deterministic": False,
        },
    ),
    (MemorySettings, {"memory_size": 128, "sequence_length": 64}),
    (RewardSignalSettings, {"gamma": 0.99, "strength": 1.0}),
    (
        BehaviorSettings,
        {
            "trainer_type": "ppo",
            "checkpoint_interval": 500000,
            "init_path": None,
            "keep_checkpoints": 5,
            "even_checkpoints": False,
            "max_steps": 500000,
            "time_horizon": 64,
            "summary_freq": 50000,
            "threaded": False,
        },
    ),
    (
        EnvironmentSettings,
        {
            "env_path": None,
            "env_args": None,
            "num_envs": 1,
            "num_areas": 1,
            "timeout_wait": 60,
            "seed": -1,
            "max_lifetime_restarts": 10,
            "restarts_rate_limit_n": 1,
            "restarts_rate_limit_period_s": 60,
        },
    ),
    (
        EngineSettings,
        {
            "width": 84,
            "height": 84,
            "quality_level": 5,
            "time_scale": 20.0,
            "target_frame_rate": -1,
            "capture_frame_rate": 60,
            "no_graphics": False,
            "no_graphics_monitor": False,
        },
    ),
    (
        CheckpointSettings,
        {
            "run_id": "ppo",
            "initialize_from": None,
            "resume": False,
            "force": False,
            "inference": False,
            "results_dir": "results",
        },
    ),
    (TorchSettings, {"device": None}),
]


@pytest.mark.parametrize(("model", "expected"), ML_AGENTS_DEFAULTS)
def test_defaults_are_those_of_ml_agents(model: type[Any], expected: dict[str, Any]) -> None:
    found = model().model_dump()
    assert {key: found[key] for key in expected} == expected


def test_only_extrinsic_is_rewarded_by_default() -> None:
    assert list(BehaviorSettings().reward_signals) == ["extrinsic"]


@pytest.mark.parametrize("written", [1000, 1000.0, "1000", "1e3", "1.0e3", 1e3])
def test_whole_number_may_be_written_in_many_ways(written: object) -> None:
    found = BehaviorSettings.model_validate({"max_steps": written}).max_steps
    assert found == 1000
    assert type(found) is int


def test_large_whole_number_in_text_keeps_every_digit() -> None:
    found = BehaviorSettings.model_validate({"max_steps": "9007199254740993"})
    assert found.max_steps == 9007199254740993  # 2**53 + 1, which no float can hold


@pytest.mark.parametrize("written", [3e-4, "3e-4", "0.0003"])
def test_number_may_be_written_as_text(written: object) -> None:
    assert PPOHyperparameters.model_validate({"learning_rate": written}).learning_rate == 3e-4


@pytest.mark.parametrize("written", [True, "true", "True", "TRUE"])
def test_true_may_be_quoted(written: object) -> None:
    assert NetworkSettings.model_validate({"normalize": written}).normalize is True


@pytest.mark.parametrize("written", [False, "false", "False"])
def test_quoted_false_is_false(written: object) -> None:
    assert NetworkSettings.model_validate({"normalize": written}).normalize is False


# Each pair is the nearest value that is allowed and the nearest that is not.
BOUNDS: list[tuple[type[Any], str, object, object]] = [
    (PPOHyperparameters, "batch_size", 1, 0),
    (PPOHyperparameters, "buffer_size", 1024, 3.9),
    (PPOHyperparameters, "learning_rate", 1e-12, 0),
    (PPOHyperparameters, "learning_rate", 1.0, float("inf")),
    (PPOHyperparameters, "learning_rate", 1.0, "nan"),
    (PPOHyperparameters, "learning_rate", 1.0, True),
    (PPOHyperparameters, "beta", 0, -1e-9),
    (PPOHyperparameters, "epsilon", 1e-9, 0),
    (PPOHyperparameters, "epsilon", 0.999, 1),
    (PPOHyperparameters, "lambd", 1, 1.001),
    (PPOHyperparameters, "num_epoch", 1, 0),
    (PPOHyperparameters, "learning_rate_schedule", "constant", "cosine"),
    (PPOHyperparameters, "ratio", "per_dimension", "both"),
    (PPOHyperparameters, "max_grad_norm", None, 0),
    (PPOHyperparameters, "target_kl", 0.01, -0.01),
    (PPOHyperparameters, "value_clip", 0.2, 0),
    (NetworkSettings, "hidden_units", 1, 0),
    (NetworkSettings, "num_layers", "2", "two"),
    (NetworkSettings, "normalize", True, 1),
    (NetworkSettings, "normalize", True, "yes please"),
    (NetworkSettings, "vis_encode_type", "match3", "vgg"),
    (MemorySettings, "memory_size", 2, 0),
    (MemorySettings, "memory_size", "6", 7),
    (MemorySettings, "sequence_length", 1, 0),
    (RewardSignalSettings, "gamma", 0, -0.1),
    (RewardSignalSettings, "strength", -1, "strong"),
    (BehaviorSettings, "trainer_type", "a2c", "a3c"),
    (BehaviorSettings, "max_steps", "5e5", 2.5),
    (BehaviorSettings, "max_steps", 1, True),
    (BehaviorSettings, "threaded", True, 1),
    (EnvironmentSettings, "num_areas", 1, 0),
    (EnvironmentSettings, "seed", -1, -2),
    (EnvironmentSettings, "base_port", 65535, 65536),
    (EnvironmentSettings, "max_lifetime_restarts", -1, -2),
    (EnvironmentSettings, "env_args", ["--level", "3"], "--level 3"),
    (EngineSettings, "time_scale", 0.1, 0),
    (CheckpointSettings, "run_id", "a/b", "a/../../b"),
    (CheckpointSettings, "run_id", "run 1", ""),
    (CheckpointSettings, "run_id", "run", "/etc"),
    (TorchSettings, "device", "cuda:1", "gpu"),
    (TorchSettings, "num_threads", 1, 0),
    (RunSettings, "environment_parameters", {"mass": 2}, {"mass": "heavy"}),
]


@pytest.mark.parametrize(("model", "key", "allowed", "refused"), BOUNDS)
def test_bound_is_where_it_is_said_to_be(
    model: type[Any], key: str, allowed: object, refused: object
) -> None:
    model.model_validate({key: allowed, **({"batch_size": 1} if key == "buffer_size" else {})})
    with pytest.raises(ValidationError):
        model.model_validate({key: refused})


@pytest.mark.parametrize(
    ("given", "beta", "epsilon"),
    [
        ({"learning_rate_schedule": "constant"}, "constant", "constant"),
        ({"learning_rate_schedule": "constant", "beta_schedule": "linear"}, "linear", "constant"),
        ({"beta_schedule": "constant"}, "constant", "linear"),
        ({}, "linear", "linear"),
    ],
)
def test_schedules_follow_the_learning_rate_unless_given(
    given: dict[str, object], beta: str, epsilon: str
) -> None:
    found = PPOHyperparameters.model_validate(given)
    assert (found.beta_schedule, found.epsilon_schedule) == (beta, epsilon)


def test_even_checkpoints_override_the_interval() -> None:
    found = BehaviorSettings(
        even_checkpoints=True, keep_checkpoints=4, max_steps=1001, checkpoint_interval=7
    )
    assert found.checkpoint_interval == 250  # int(1001 / 4)


@pytest.mark.parametrize("keep", [0, -1, 1001])
def test_even_checkpoints_need_checkpoints_to_spread(keep: int) -> None:
    with pytest.raises(ValidationError, match=r"even_checkpoints.*keep_checkpoints"):
        BehaviorSettings(even_checkpoints=True, keep_checkpoints=keep, max_steps=1000)


def test_settings_are_frozen() -> None:
    settings = RunSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.debug = True


def test_for_behavior_gives_the_listed_one_then_the_defaults() -> None:
    listed, other = BehaviorSettings(max_steps=1), BehaviorSettings(max_steps=2)
    settings = RunSettings(behaviors={"Walker": listed}, default_settings=other)
    assert settings.for_behavior("Walker") is listed
    assert settings.for_behavior("Crawler") is other


def test_for_behavior_without_defaults_names_the_known_ones() -> None:
    settings = RunSettings(behaviors={"Walker": BehaviorSettings()})
    with pytest.raises(ConfigError, match=r"has a behaviour 'walker'.*probably 'Walker'"):
        settings.for_behavior("walker")


def test_the_clock_chooses_no_checkpoint_of_a_reproducible_run() -> None:
    assert CheckpointSettings().checkpoint_interval_s == 300
    settings = RunSettings.model_validate({"reproducible": True})
    assert settings.checkpoint_settings.checkpoint_interval_s is None
    chosen = {"checkpoint_interval_s": 60}
    with pytest.raises(ValidationError, match="the clock must not choose it"):
        RunSettings.model_validate({"reproducible": True, "checkpoint_settings": chosen})
    # What was resolved loads again.
    again = RunSettings.model_validate(settings.model_dump())
    assert again == settings


def test_resume_or_start_and_force_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="Leave one of them out"):
        CheckpointSettings(resume_or_start=True, force=True)
