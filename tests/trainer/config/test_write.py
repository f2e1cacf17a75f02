"""Settings that a run writes load again, to equal ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from settings_texts import PRECEDENCE, load_text

from trainer.config.hyperparameters import (
    HYPERPARAMETERS,
    A2CHyperparameters,
    PPOHyperparameters,
    TRPOHyperparameters,
)
from trainer.config.settings import BehaviorSettings, MemorySettings, RunSettings
from trainer.config.write import dump

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
