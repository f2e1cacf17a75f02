"""`threaded: true`, which ML-Agents' own files had for years, is accepted and told."""

from __future__ import annotations

import pytest
from settings_texts import load_text

TOLD = "updates beside collection are not supported yet"


@pytest.mark.parametrize("spelled", ["true", "'true'", "yes"])
def test_file_of_ml_agents_with_threads_loads_and_says_that_updates_run_in_turn(
    spelled: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_text(f"behaviors: {{A: {{max_steps: 5, threaded: {spelled}}}, B: {{}}}}")
    assert (settings.behaviors["A"].threaded, settings.behaviors["B"].threaded) == (True, False)
    assert f"run.yaml:1:31: behaviors.A.threaded is true; {TOLD}" in caplog.text


def test_threads_of_default_settings_are_told_once_where_they_stand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load_text(
        "default_settings:\n  threaded: true\nbehaviors: {A: {}, B: {}, C: {threaded: false}}"
    )
    assert caplog.text.count(TOLD) == 1
    assert "run.yaml:2:3: default_settings.threaded is true" in caplog.text


def test_nothing_is_said_of_threads_that_nobody_asks_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load_text("behaviors: {A: {threaded: false}, B: {}}")
    assert caplog.text == ""
