from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trainer.config.document import parse_document
from trainer.config.errors import ConfigError
from trainer.config.flags import parse_train
from trainer.config.hyperparameters import (
    HYPERPARAMETERS,
    A2CHyperparameters,
    PPOHyperparameters,
    TRPOHyperparameters,
)
from trainer.config.load import load_run, resolve
from trainer.config.settings import BehaviorSettings, MemorySettings, RunSettings
from trainer.config.write import dump

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def load_text(text: str) -> RunSettings:
    return resolve(parse_document(Path("run.yaml"), text))


def load_typed(path: Path, *flags: str) -> RunSettings:
    arguments = parse_train([str(path), *flags])
    return load_run(arguments.config_path, arguments.overrides)


# --- precedence: flag, behaviour, default_settings, default ---------------------------------------

PRECEDENCE = """
default_settings:
  trainer_type: ppo
  max_steps: 111
  time_horizon: 222
  network_settings: {hidden_units: 32, num_layers: 3}
behaviors:
  Walker: {max_steps: 333, network_settings: {num_layers: 4}}
env_settings: {env_path: gym:A-v1, num_envs: 3, seed: 7}
engine_settings: {time_scale: 5, width: 10}
checkpoint_settings: {run_id: of-file, resume: true}
torch_settings: {device: cpu}
"""


def test_behaviour_beats_default_settings_beats_default(write: Write) -> None:
    walker = load_run(write(PRECEDENCE)).behaviors["Walker"]
    assert walker.max_steps == 333
    assert walker.time_horizon == 222
    assert walker.summary_freq == 50000
    assert (walker.network_settings.hidden_units, walker.network_settings.num_layers) == (32, 4)


def test_typed_flags_beat_the_file_and_others_leave_it_alone(write: Write) -> None:
    settings = load_typed(
        write(PRECEDENCE),
        *["--env", "gym:B-v1", "--num-envs", "4", "--time-scale", "9.5", "--run-id", "typed"],
        *["--torch-device", "cuda:1", "--timeout-wait", "5", "--debug", "--inference"],
    )
    assert settings.env_settings.env_path == "gym:B-v1"
    assert settings.env_settings.num_envs == 4
    assert settings.env_settings.seed == 7
    assert settings.env_settings.timeout_wait == 5
    assert (settings.engine_settings.time_scale, settings.engine_settings.width) == (9.5, 10)
    assert settings.checkpoint_settings.run_id == "typed"
    assert settings.checkpoint_settings.resume
    assert settings.checkpoint_settings.inference
    assert settings.torch_settings.device == "cuda:1"
    assert settings.debug


def test_flag_typed_with_its_default_beats_the_file(write: Write) -> None:
    assert load_typed(write(PRECEDENCE), "--seed", "-1").env_settings.seed == -1


def test_deterministic_reaches_listed_behaviours_and_those_of_the_defaults(write: Write) -> None:
    settings = load_typed(write(PRECEDENCE), "--deterministic")
    assert settings.for_behavior("Walker").network_settings.deterministic
    assert settings.for_behavior("Unlisted").network_settings.deterministic
    assert settings.for_behavior("Walker").network_settings.num_layers == 4


def test_wrong_flag_is_named_instead_of_a_line(write: Write) -> None:
    with pytest.raises(
        ConfigError, match=r"^--num-envs: env_settings.num_envs is 'many'; expected"
    ):
        load_typed(write(PRECEDENCE), "--num-envs", "many")


def test_flag_that_contradicts_the_file_is_named(write: Write) -> None:
    path = write("behaviors: {Walker: {}}")
    with pytest.raises(ConfigError, match=r"^--num-envs: .*num_envs is 2, but env_path is not set"):
        load_typed(path, "--num-envs", "2")
    assert load_typed(path, "--num-envs", "2", "--env", "game").env_settings.num_envs == 2


def test_without_a_file_every_behaviour_has_the_defaults() -> None:
    settings = load_run(None)
    assert settings.for_behavior("Anything") == BehaviorSettings()
    assert settings.behaviors == {}


# --- default_settings -----------------------------------------------------------------------------


def test_reward_signals_merge_with_default_settings() -> None:
    settings = load_text(
        """
        default_settings: {reward_signals: {extrinsic: {gamma: 0.5, strength: 2}}}
        behaviors:
          A: {reward_signals: {extrinsic: {strength: 3}}}
          B: {reward_signals: {}}
        """
    )
    extrinsic = settings.behaviors["A"].reward_signals["extrinsic"]
    assert (extrinsic.gamma, extrinsic.strength) == (0.5, 3)
    assert settings.behaviors["B"].reward_signals["extrinsic"].strength == 2


def test_default_settings_bring_extrinsic_even_unsaid() -> None:
    settings = load_text("default_settings: {}\nbehaviors: {A: {reward_signals: {}}}")
    assert list(settings.behaviors["A"].reward_signals) == ["extrinsic"]


def test_expanded_default_schedules_do_not_follow_a_behaviours_learning_rate() -> None:
    settings = load_text(
        """
        default_settings: {trainer_type: ppo}
        behaviors: {A: {hyperparameters: {learning_rate_schedule: constant}}}
        """
    )
    found = settings.behaviors["A"].hyperparameters
    assert isinstance(found, PPOHyperparameters)
    assert found.learning_rate_schedule == "constant"
    assert (found.beta_schedule, found.epsilon_schedule) == ("linear", "linear")


def test_contradiction_between_behaviour_and_defaults_points_at_the_behaviour() -> None:
    text = """default_settings:
  hyperparameters: {buffer_size: 500, batch_size: 100}
  trainer_type: ppo
behaviors:
  A: {hyperparameters: {batch_size: 600}}
"""
    with pytest.raises(ConfigError, match=r"^run.yaml:5:25: .*batch_size is 600, larger"):
        load_text(text)


def test_mistake_in_default_settings_is_told_once() -> None:
    text = """default_settings: {hyperparameters: {batch_size: 5, buffer_size: 4}}
behaviors: {A: {}, B: {}}
"""
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert len(caught.value.problems) == 1
    assert "default_settings.hyperparameters.batch_size is 5" in str(caught.value)


def test_contradiction_with_a_key_that_is_wrong_itself_is_not_told() -> None:
    text = """behaviors:
  A: {trainer_type: ppo, hyperparameters: {batch_size: 50000, buffer_size: many}}
"""
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert len(caught.value.problems) == 1
    assert "buffer_size is 'many'" in str(caught.value)


def test_only_wrong_keys_fall_silent_not_the_contradictions_of_others() -> None:
    text = "behaviors: {A: {}}\nenv_settings: {num_envs: 2, seed: x}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert [problem.split(" is ")[0] for problem in caught.value.problems] == [
        "run.yaml:2:16: env_settings.num_envs",
        "run.yaml:2:29: env_settings.seed",
    ]


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


# --- resume against initialize_from and force -----------------------------------------------------

BOTH = "behaviors: {A: {}}\ncheckpoint_settings: {resume: true, initialize_from: old}"
START_CASES = [
    (BOTH, [], True, None),
    (BOTH, ["--resume"], True, None),
    (BOTH, ["--initialize-from", "other"], False, "other"),
    (BOTH, ["--resume", "--initialize-from", "other"], True, None),
    ("behaviors: {A: {}}", ["--initialize-from", "other"], False, "other"),
]


@pytest.mark.parametrize(("text", "flags", "resume", "initialize_from"), START_CASES)
def test_resume_and_initialize_from_are_never_both_set(
    write: Write, text: str, flags: list[str], resume: bool, initialize_from: str | None
) -> None:
    found = load_typed(write(text), *flags).checkpoint_settings
    assert (found.resume, found.initialize_from) == (resume, initialize_from)


def test_loser_of_resume_and_initialize_from_is_told(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    load_typed(write(BOTH))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "resume wins over initialize_from 'old'" in caplog.text


FORCED = "behaviors: {A: {}}\ncheckpoint_settings: {force: true, resume: true}"


def test_resume_wins_over_force_and_says_so(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    found = load_typed(write("behaviors: {A: {}}"), "--resume", "--force").checkpoint_settings
    assert (found.resume, found.force) == (True, False)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "resume wins over force: run 'ppo' goes on" in caplog.text
    # A resume that lost against a typed --initialize-from takes nothing from force.
    found = load_typed(write(FORCED), "--initialize-from", "new").checkpoint_settings
    assert (found.resume, found.force, found.initialize_from) == (False, True, "new")


# --- writing --------------------------------------------------------------------------------------


def test_written_settings_load_again_with_every_section_used() -> None:
    settings = load_text(PRECEDENCE + "environment_parameters: {mass: 2}\nreproducible: true\n")
    assert load_text(dump(settings)) == settings


def test_written_memory_loads_again() -> None:
    settings = load_text("behaviors: {A: {network_settings: {memory: {memory_size: 6}}}}")
    assert load_text(dump(settings)).behaviors["A"].network_settings.memory == MemorySettings(
        memory_size=6
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: "\0" not in text
)
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | texts
    | st.sampled_from(
        ["1e5", "yes", "null", "0x1f", "12:30:00", "2001-01-01", "~", "<<", "=", "#"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@hypothesis_settings(deadline=None, max_examples=60, derandomize=True)
@given(
    kwargs=st.dictionaries(texts, plain_values, max_size=3),
    wrappers=st.lists(
        st.dictionaries(
            texts.filter(str.strip),
            st.dictionaries(texts, plain_values, max_size=2),
            min_size=1,
            max_size=1,
        ),
        max_size=2,
    ),
    env_args=st.none() | st.lists(texts, max_size=3).map(tuple),
    run_id=st.sampled_from(["1e5", "007", "on", "a b", "null", "é", "1_000"]),
    learning_rate=st.floats(1e-12, 1e3),
    max_steps=st.integers(1, 10**12),
    name=st.sampled_from(["Walker", "3DBall", "no", "1.5", "with space", "a: b", "<<"]),
)
def test_written_settings_load_again_to_equal_ones(
    kwargs: dict[str, object],
    wrappers: list[dict[str, dict[str, object]]],
    env_args: tuple[str, ...] | None,
    run_id: str,
    learning_rate: float,
    max_steps: int,
    name: str,
) -> None:
    settings = RunSettings.model_validate(
        {
            "behaviors": {
                name: {"max_steps": max_steps, "hyperparameters": {"learning_rate": learning_rate}}
            },
            "env_settings": {
                "env_path": "gym:A",
                "env_kwargs": kwargs,
                "env_wrappers": wrappers,
                "env_args": env_args,
            },
            "checkpoint_settings": {"run_id": run_id},
        }
    )
    assert load_text(dump(settings)) == settings


def test_trainer_type_of_the_defaults_says_what_hyperparameters_mean() -> None:
    settings = load_text(
        """
        default_settings: {trainer_type: a2c, hyperparameters: {n_steps: 5}}
        behaviors:
          A: {hyperparameters: {critic_target: q}}
          B: {trainer_type: trpo, hyperparameters: {max_kl: 0.02}}
          C: {trainer_type: ppo}
        """
    )
    found = {name: behavior.hyperparameters for name, behavior in settings.behaviors.items()}
    assert found["A"] == A2CHyperparameters(n_steps=5, critic_target="q")
    # Hyperparameters of the defaults are for a2c.
    assert found["B"] == TRPOHyperparameters(max_kl=0.02)
    assert found["C"] == PPOHyperparameters()
    assert settings.for_behavior("D").hyperparameters == A2CHyperparameters(n_steps=5)


def test_every_trainer_type_comes_back_from_what_a_run_writes() -> None:
    for name in HYPERPARAMETERS:
        settings = BehaviorSettings.model_validate(
            {"trainer_type": name, "hyperparameters": {"buffer_size": 2000}}
        )
        assert isinstance(settings.hyperparameters, HYPERPARAMETERS[name])
        assert BehaviorSettings.model_validate_json(settings.model_dump_json()) == settings
        assert BehaviorSettings.model_validate(settings.model_dump()) == settings


def test_a_file_of_common_keys_serves_every_trainer_type() -> None:
    for name in HYPERPARAMETERS:
        text = (
            f"behaviors: {{A: {{trainer_type: {name}, hyperparameters: {{buffer_size: 2000, "
            "learning_rate: 1e-3, learning_rate_schedule: constant, max_grad_norm: 1}}}"
        )
        found = load_text(text).behaviors["A"].hyperparameters
        assert (found.buffer_size, found.learning_rate, found.max_grad_norm) == (2000, 1e-3, 1.0)
