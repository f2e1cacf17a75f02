"""What ML-Agents accepts is accepted: its keys, spellings, nulls, and files it wrote."""

from __future__ import annotations

import pytest
from settings_texts import load_text

from trainer.config.errors import ConfigError
from trainer.config.hyperparameters import (
    PPOHyperparameters,
)
from trainer.config.settings import MemorySettings

# --- what ML-Agents accepts -----------------------------------------------------------------------


def test_hyperparameters_need_a_trainer_type_beside_them() -> None:
    with pytest.raises(ConfigError, match="without trainer_type"):
        load_text("behaviors: {A: {hyperparameters: {batch_size: 5}}}")


def test_section_without_lines_counts_as_absent() -> None:
    text = "behaviors: {A: {}}\nenv_settings:\ndefault_settings: null\nenvironment_parameters:\n"
    assert load_text(text) == load_text("behaviors: {A: {}}")


def test_lambda_is_read_as_lambd_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    text = "behaviors: {A: {trainer_type: ppo, hyperparameters: {lambda: 0.5}}}"
    assert load_text(text).behaviors["A"].hyperparameters == PPOHyperparameters(lambd=0.5)
    assert "run.yaml:1:54: behaviors.A.hyperparameters.lambda read as" in caplog.text


def test_retired_keys_warn_and_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    text = """
behaviors: {A: {framework: pytorch}}
checkpoint_settings: {load_model: true, train_model: false}
"""
    assert load_text(text) == load_text("behaviors: {A: {}}")
    assert "behaviors.A.framework has no effect" in caplog.text
    assert "load_model has no effect" in caplog.text
    assert "train_model" not in caplog.text


def test_texts_keep_the_spelling_that_yaml_would_lose() -> None:
    settings = load_text(
        """
        behaviors: {A: {}, 007: {}, on: {}}
        checkpoint_settings: {run_id: 007}
        env_settings: {env_path: game, env_args: [--level, 010, 1e5, yes]}
        """
    )
    assert settings.checkpoint_settings.run_id == "007"
    assert settings.env_settings.env_args == ("--level", "010", "1e5", "yes")
    assert list(settings.behaviors) == ["A", "007", "on"]


def test_constructor_arguments_read_exponents_as_numbers() -> None:
    settings = load_text(
        """
        behaviors: {A: {}}
        env_settings: {env_path: gym:A-v1, env_kwargs: {weight: 1e-3, name: "1e-3", top: .inf}}
        """
    )
    kwargs = settings.env_settings.env_kwargs
    assert kwargs == {"weight": 1e-3, "name": "1e-3", "top": float("inf")}


def test_wrappers_stand_alone_or_with_their_arguments() -> None:
    settings = load_text(
        """
        behaviors: {A: {}}
        env_settings:
          env_path: gym:ALE/Pong-v5
          env_wrappers:
            - AtariPreprocessing: {screen_size: [84, 84]}
            - FlattenObservation
            - TimeAwareObservation:
            - my_package.my_wrappers:Mine: {size: 1e-3}
        """
    )
    assert settings.env_settings.env_wrappers == (
        {"AtariPreprocessing": {"screen_size": [84, 84]}},
        {"FlattenObservation": {}},
        {"TimeAwareObservation": {}},
        {"my_package.my_wrappers:Mine": {"size": 1e-3}},
    )


def test_anchors_and_merge_keys_work() -> None:
    settings = load_text(
        """
        behaviors:
          A: &base {trainer_type: ppo, max_steps: 5, time_horizon: 6}
          B: {<<: *base, max_steps: 7}
        """
    )
    assert (settings.behaviors["B"].max_steps, settings.behaviors["B"].time_horizon) == (7, 6)


def test_configuration_written_by_ml_agents_loads() -> None:
    settings = load_text(
        """
default_settings: null
behaviors:
  3DBall:
    trainer_type: ppo
    hyperparameters:
      batch_size: 64
      buffer_size: 12000
      learning_rate: 0.0003
      beta: 0.001
      epsilon: 0.2
      lambd: 0.99
      num_epoch: 3
      shared_critic: false
      learning_rate_schedule: linear
      beta_schedule: linear
      epsilon_schedule: linear
    checkpoint_interval: 500000
    network_settings:
      normalize: true
      hidden_units: 128
      num_layers: 2
      vis_encode_type: simple
      memory: null
      goal_conditioning_type: hyper
      deterministic: false
    reward_signals:
      extrinsic:
        gamma: 0.99
        strength: 1.0
        network_settings:
          normalize: false
          hidden_units: 128
          num_layers: 2
          vis_encode_type: simple
          memory: null
          goal_conditioning_type: hyper
          deterministic: false
    init_path: null
    keep_checkpoints: 5
    even_checkpoints: false
    max_steps: 500000
    time_horizon: 1000
    summary_freq: 12000
    threaded: false
    self_play: null
    behavioral_cloning: null
env_settings:
  env_path: null
  env_args: null
  base_port: 5005
  num_envs: 1
  num_areas: 1
  timeout_wait: 60
  seed: -1
  max_lifetime_restarts: 10
  restarts_rate_limit_n: 1
  restarts_rate_limit_period_s: 60
engine_settings:
  width: 84
  height: 84
  quality_level: 5
  time_scale: 20
  target_frame_rate: -1
  capture_frame_rate: 60
  no_graphics: false
  no_graphics_monitor: false
environment_parameters: null
checkpoint_settings:
  run_id: ppo
  initialize_from: null
  load_model: false
  resume: false
  force: false
  train_model: false
  inference: false
  results_dir: results
torch_settings:
  device: null
debug: false
"""
    )
    assert settings.env_settings.base_port is None  # the Editor dials 5004
    ball = settings.behaviors["3DBall"].hyperparameters
    assert isinstance(ball, PPOHyperparameters)
    assert ball.lambd == 0.99


@pytest.mark.parametrize(
    ("env", "found", "is_told"),
    [
        ("base_port: 5005", None, True),
        ("base_port: 6000", 6000, False),
        ("base_port: 5005, env_path: Walker.exe", 5005, False),
        ("base_port: null", None, False),
    ],
)
def test_editor_is_waited_for_where_it_dials_unless_a_port_was_chosen(
    env: str, found: int | None, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_text(f"behaviors: {{A: {{}}}}\nenv_settings: {{{env}}}\n")
    assert settings.env_settings.base_port == found
    assert ("the Unity Editor is waited for on port 5004" in caplog.text) is is_told


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        ("null", "{}", MemorySettings(memory_size=128, sequence_length=64)),
        ("null", "null", None),
        ("{memory_size: 16}", "null", None),
        (
            "{memory_size: 16}",
            '{sequence_length: "8"}',
            MemorySettings(memory_size=16, sequence_length=8),
        ),
    ],
)
def test_memory_is_on_where_it_is_a_mapping_and_off_where_it_is_null(
    default: str, own: str, expected: MemorySettings | None
) -> None:
    settings = load_text(
        f"default_settings: {{network_settings: {{memory: {default}}}}}\n"
        f"behaviors: {{A: {{network_settings: {{memory: {own}}}}}}}"
    )
    assert settings.behaviors["A"].network_settings.memory == expected


@pytest.mark.parametrize(
    ("network", "is_told"),
    [("{hidden_units: 64}", True), ("{hidden_units: 128, memory: null}", False), ("{}", False)],
)
def test_network_of_extrinsic_is_accepted_with_one_note(
    network: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    load_text(
        f"behaviors: {{A: {{reward_signals: {{extrinsic: {{network_settings: {network}}}}}}}}}"
    )
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "run.yaml:1:46: behaviors.A.reward_signals.extrinsic.network_settings has no effect, "
        "extrinsic has no network of its own. Remove it."
    ] * int(is_told)


def test_empty_reward_signals_keep_those_of_default_settings() -> None:
    text = "default_settings: {reward_signals: {extrinsic: {gamma: 0.5}}}\nbehaviors: {A: {}}"
    empty = text.replace("{A: {}}", "{A: {reward_signals: {}}}")
    assert load_text(empty) == load_text(text)
