from __future__ import annotations

from typing import Any

from trainer.config.behavior_settings import BehaviorStopSettings
from trainer.stop_conditions import StopConditions


def conditions(**chosen: Any) -> StopConditions:
    return StopConditions(BehaviorStopSettings.model_validate({"min_episodes": 2, **chosen}))


def steps_with_reason(found: StopConditions, means: list[float], start: int = 0) -> list[int]:
    """Shows a mean per summary, one every 100 steps, and gives where training may end."""
    met = []
    for i, mean in enumerate(means):
        step = start + 100 * (i + 1)
        found.observe(step, [mean - 1, mean + 1])
        if found.reason is not None:
            met.append(step)
    return met


def test_without_conditions_nothing_ends_training() -> None:
    assert steps_with_reason(conditions(), [1.0] * 50) == []


def test_threshold_is_met_from_its_value_on_and_only_while_it_holds() -> None:
    assert steps_with_reason(conditions(threshold=2), [1, 1.99, 2, 3, 1]) == [300, 400]


def test_few_episodes_meet_no_threshold() -> None:
    found = conditions(threshold=2, min_episodes=3)
    found.observe(100, [9, 9])
    assert found.reason is None
    found.observe(200, [9, 9, 9])
    assert found.reason is not None


def test_plateau_ends_patience_steps_after_the_best() -> None:
    # Best at 200; 2.5 at 300 is not more than 0.5 above it; 200 + 300 = 500.
    found = conditions(plateau={"patience": 300, "min_delta": 0.5})
    assert steps_with_reason(found, [1, 2, 2.5, 1, 2, 1]) == [500, 600]
    assert "above 2.000 (step 200) for 400 steps" in str(found.reason)


def test_new_best_starts_patience_anew() -> None:
    found = conditions(plateau={"patience": 300})
    assert steps_with_reason(found, [2, 1, 1, 3, 1, 1, 1]) == [400 + 300]


def test_patience_goes_on_after_a_resume() -> None:
    plateau = {"patience": 300}
    first = conditions(plateau=plateau)
    steps_with_reason(first, [2, 1])
    second = conditions(plateau=plateau)
    second.load_state_dict(first.state_dict())
    assert steps_with_reason(second, [1, 1], start=200) == [400]
