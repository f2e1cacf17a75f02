"""What wins: flag, behaviour, default_settings, default; and how a run is to begin."""

from __future__ import annotations

import logging

import pytest
from settings_texts import PRECEDENCE, Write, load_text, load_typed

from trainer.config.errors import ConfigError
from trainer.config.hyperparameters import (
    PPOHyperparameters,
)
from trainer.config.load import load_run
from trainer.config.settings import BehaviorSettings


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
