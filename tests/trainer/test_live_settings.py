from __future__ import annotations

import pytest

from trainer.config.behavior_settings import BehaviorSettings
from trainer.config.errors import ConfigError
from trainer.control_client import CommandError
from trainer.live_settings import Changes, changed, noted, value_of, with_changes

FILE = BehaviorSettings(max_steps=1000)


def test_texts_are_read_as_the_file_is_and_all_else_stays() -> None:
    found = changed("Crab", FILE, {"learning_rate": "1e-4", "max_steps": "2e3"})
    assert found.hyperparameters.learning_rate == 1e-4
    assert found.max_steps == 2000
    assert changed("Crab", found, {"learning_rate": 3e-4, "max_steps": 1000}) == FILE


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_size": "64"}, "'batch_size' cannot be set while a run goes on. Expected learn"),
        ({"epsilon": "1"}, "behaviors.Crab.hyperparameters.epsilon is '1'; expected a number"),
        ({"max_steps": "1.5"}, "behaviors.Crab.max_steps is '1.5'; expected a whole number"),
        ({"beta": None}, "beta is empty"),
        ({"summary_freq": ["1"]}, "summary_freq is ['1']; expected"),
        ({"learning_rate": "nan"}, "learning_rate is 'nan'; expected"),
    ],
)
def test_wrong_keys_and_values_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(CommandError) as error:
        changed("Crab", FILE, values)
    assert said in str(error.value)


def test_second_change_remembers_what_the_file_said() -> None:
    once = changed("Crab", FILE, {"max_steps": 2000})
    twice = changed("Crab", once, {"max_steps": 3000})
    changes = noted(noted({}, FILE, once), once, twice)
    assert changes == {"max_steps": {"file": 1000, "now": 3000}}
    assert noted(changes, twice, FILE) == {}  # set back: nothing to remember


def test_change_holds_until_the_file_says_something_else() -> None:
    changes: Changes = {
        "max_steps": {"file": 1000, "now": 3000},
        "beta": {"file": 5e-3, "now": 0.0},
    }
    settings, kept = with_changes("Crab", FILE, changes)
    assert (settings.max_steps, value_of(settings, "beta")) == (3000, 0.0)
    assert kept == changes
    edited = FILE.model_copy(update={"max_steps": 5000})
    settings, kept = with_changes("Crab", edited, changes)
    assert (settings.max_steps, value_of(settings, "beta")) == (5000, 0.0)
    assert list(kept) == ["beta"]


def test_keys_of_another_trainer_type_are_refused() -> None:
    plain = BehaviorSettings.model_validate({"trainer_type": "a2c"})
    with pytest.raises(CommandError, match="trainer_type a2c of 'Crab' has no epsilon"):
        changed("Crab", plain, {"epsilon": 0.1})
    faster = changed("Crab", plain, {"learning_rate": 0.5})
    assert noted({}, plain, faster)["learning_rate"]["now"] == 0.5


def test_change_that_contradicts_the_file_is_a_message() -> None:
    even = BehaviorSettings.model_validate(
        {"max_steps": 1000, "keep_checkpoints": 500, "even_checkpoints": True}
    )
    with pytest.raises(ConfigError, match=r"does not go with .*even_checkpoints.*into the file"):
        with_changes("Crab", even, {"max_steps": {"file": 1000, "now": 100}})
