"""`threaded: true`, which ML-Agents' own files had for years, and the bound on the policy's lag."""

from __future__ import annotations

import pytest
from settings_texts import load_text

from trainer.config.behavior_settings import MAX_POLICY_LAG
from trainer.config.errors import ConfigError


@pytest.mark.parametrize("spelled", ["true", "'true'", "yes"])
def test_file_of_ml_agents_with_threads_loads_without_a_word(
    spelled: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_text(f"behaviors: {{A: {{max_steps: 5, threaded: {spelled}}}, B: {{}}}}")
    assert (settings.behaviors["A"].threaded, settings.behaviors["B"].threaded) == (True, False)
    assert caplog.text == ""


def test_bound_on_the_lag_is_three_unless_told_otherwise() -> None:
    settings = load_text(
        "behaviors: {A: {threaded: true}, B: {threaded: true, max_policy_lag: 1}, "
        "C: {threaded: true, max_policy_lag: null}}"
    )
    bounds = {name: own.policy_lag_bound for name, own in settings.behaviors.items()}
    assert MAX_POLICY_LAG == 3
    assert bounds == {"A": 3, "B": 1, "C": 3}


def test_bound_of_default_settings_holds_where_updates_are_threaded() -> None:
    text = "default_settings: {threaded: true, max_policy_lag: 2}\nbehaviors: {A: {}, B: {%s}}"
    settings = load_text(text % "threaded: false, max_policy_lag: null")
    assert settings.behaviors["A"].policy_lag_bound == 2
    with pytest.raises(ConfigError, match="max_policy_lag is 2, but threaded is false"):
        load_text(text % "threaded: false")
