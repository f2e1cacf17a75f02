"""Settings files of older ML-Agents: recognised, read, and written anew with their comments."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from trainer.config.document import parse_document
from trainer.config.errors import ConfigError
from trainer.config.hyperparameters import PPOHyperparameters
from trainer.config.load import resolve
from trainer.config.settings import RunSettings
from trainer.config.upgrade.dialect import upgraded
from trainer.config.upgrade.emit import emit

ROOT = Path(__file__).parents[4]
FILES = [
    ROOT / "behaviors.yaml",
    *sorted(ROOT.glob("configs/**/*.yaml")),
    *sorted(ROOT.glob("tests/trainer/config/unity/*.yaml")),
]

FLAT = """
# Settings of 2019. Ask Ada.

default:
  trainer: ppo
  batch_size: 1024   # per optimizer step
  buffer_size: 10240
  hidden_units: 128
  normalize: false
  use_recurrent: false
  sequence_length: 64
  memory_size: 256
  reward_signals:
    extrinsic: {strength: 1.0, gamma: 0.99}

# The biped.
Walker:
  normalize: true
  # slow but sure
  max_steps: 2e6
  learning_rate: 2.0e-4
  num_layers: 3
  summary_path: "walks"
"""

FLAT_UPGRADED = """\
# Settings of 2019. Ask Ada.
default_settings:
  trainer_type: ppo
  hyperparameters:
    batch_size: 1024  # per optimizer step
    buffer_size: 10240
  network_settings:
    hidden_units: 128
    normalize: false
  reward_signals:
    extrinsic: {strength: 1.0, gamma: 0.99}

behaviors:
  # The biped.
  Walker:
    hyperparameters:
      learning_rate: 2.0e-4
    network_settings:
      normalize: true
      num_layers: 3
    # slow but sure
    max_steps: 2e6
"""

RANDOMIZED = """
behaviors: {A: {trainer_type: ppo}}
parameter_randomization:
  resampling-interval: 500
  mass:            # of the ball
    sampler-type: uniform
    min_value: 0.5
    max_value: 10
  size:
    sampler-type: multirange_uniform
    intervals: [[0, 1], [4, 8]]
  wind: {sampler_type: gaussian, sampler_parameters: {mean: 1, st_dev: 2}}
"""

RANDOMIZED_UPGRADED = """\
behaviors: {A: {trainer_type: ppo}}

environment_parameters:
  mass:  # of the ball
    sampler_type: uniform
    sampler_parameters:
      min_value: 0.5
      max_value: 10
  size:
    sampler_type: multirangeuniform
    sampler_parameters:
      intervals: [[0, 1], [4, 8]]
  wind: {sampler_type: gaussian, sampler_parameters: {mean: 1, st_dev: 2}}
"""

CURRICULUM = """
behaviors: {Jump: {trainer_type: ppo}}
curriculum:
  Jump:
    measure: progress
    thresholds: [0.1]
    min_lesson_length: 100
    signal_smoothing: true
    parameters: {wall: [1, 2], gap: [3, 4]}
parameter_randomization:
  gap: {sampler-type: uniform, min_value: 0, max_value: 1}
"""

CURRICULUM_UPGRADED = """\
behaviors: {Jump: {trainer_type: ppo}}

environment_parameters:
  wall:
    curriculum:
      - name: Lesson0
        value: 1
        completion_criteria:
          behavior: Jump
          measure: progress
          threshold: 0.1
          min_lesson_length: 100
          signal_smoothing: true
      - name: Lesson1
        value: 2
  gap:
    sampler_type: uniform
    sampler_parameters:
      min_value: 0
      max_value: 1
"""

NESTED_LESSONS = """
behaviors: {A: {trainer_type: ppo}}
environment_parameters:
  wall:
    curriculum:
    - Lesson0: {value: 4}
"""

NESTED_LESSONS_UPGRADED = """\
behaviors: {A: {trainer_type: ppo}}

environment_parameters:
  wall:
    curriculum:
      - name: Lesson0
        value: 4
"""

CASES = {
    "0.16": (FLAT, FLAT_UPGRADED, ["23:3: summary_path is left out"]),
    "samplers": (RANDOMIZED, RANDOMIZED_UPGRADED, ["4:3: resampling-interval is left out"]),
    "curriculum": (CURRICULUM, CURRICULUM_UPGRADED, ["9:32: the curriculum of gap is left out"]),
    "lessons": (NESTED_LESSONS, NESTED_LESSONS_UPGRADED, []),
}


def upgrade_text(text: str) -> tuple[str, list[str], list[str]]:
    """Gives the new text, the comments that are lost, and the notes."""
    document = parse_document(Path("old.yaml"), text)
    upgrade = upgraded(document)
    assert upgrade is not None
    assert document.root is not None
    new, lost = emit(upgrade.document, document.root)
    notes = [f"{place.line}:{place.column}: {note}" for place, note in upgrade.notes]
    return new, [comment.text for comment in lost], notes


def load(text: str) -> RunSettings:
    return resolve(parse_document(Path("old.yaml"), textwrap.dedent(text)))


@pytest.mark.parametrize("name", CASES)
def test_old_file_becomes_the_new_one_with_its_comments(name: str) -> None:
    old, new, told = CASES[name]
    text, lost, notes = upgrade_text(old)
    assert text == new
    assert lost == []
    assert len(notes) == len(told)
    for note, beginning in zip(notes, told, strict=True):
        assert note.startswith(beginning)


@pytest.mark.parametrize("name", CASES)
def test_upgraded_file_is_in_todays_format(name: str) -> None:
    assert upgraded(parse_document(Path("new.yaml"), CASES[name][1])) is None


@pytest.mark.parametrize("name", ["0.16", "samplers", "lessons"])
def test_old_file_loads_like_the_new_one(name: str) -> None:
    old, new, _ = CASES[name]
    assert load(old) == load(new)


def test_old_file_is_read_with_a_warning_that_shows_the_new_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load(FLAT)
    (told, gone) = [record.getMessage() for record in caplog.records]
    head, *lines = told.splitlines()
    assert head == (
        "old.yaml: is in the format of ML-Agents 0.16 and older; read as these lines. Write them "
        "with: ppo-train upgrade old.yaml -o new.yaml"
    )
    assert "\n".join(lines) == textwrap.indent(FLAT_UPGRADED.rstrip(), "    ")
    assert gone.startswith("old.yaml:23:3: summary_path is left out: ")


def test_mistake_in_an_old_file_is_told_with_the_old_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load(FLAT.replace("num_layers: 3", "num_layers: three").replace("2e6", "often"))
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "old.yaml:20:3: behaviors.Walker.max_steps is 'often'",
        "old.yaml:22:3: behaviors.Walker.network_settings.num_layers is 'three'",
    ]


@pytest.mark.parametrize(
    ("default", "own", "memory"),
    [
        ("use_recurrent: true, memory_size: 32", "use_recurrent: false", "memory: null"),
        (
            "use_recurrent: false, memory_size: 32, sequence_length: 8",
            "use_recurrent: true, memory_size: 64",
            "memory:\n        sequence_length: 8\n        memory_size: 64\n",
        ),
    ],
)
def test_memory_is_made_of_the_behaviours_keys_and_those_of_default(
    default: str, own: str, memory: str
) -> None:
    text, _, _ = upgrade_text(f"default: {{trainer: ppo, {default}}}\nA: {{{own}}}\n")
    assert memory in text.split("behaviors:")[1]


def test_schedules_of_an_old_behaviour_follow_its_learning_rate_as_they_did() -> None:
    text = """
        default: {trainer: ppo, batch_size: 5}
        A: {learning_rate_schedule: constant}
        """
    found = load(text).behaviors["A"].hyperparameters
    assert isinstance(found, PPOHyperparameters)
    assert (found.beta_schedule, found.epsilon_schedule) == ("constant", "constant")


def test_reward_signals_that_were_replaced_stay_silent() -> None:
    text = """
        default: {trainer: ppo, batch_size: 5, reward_signals: {extrinsic: {strength: 1.0}}}
        A: {reward_signals: {}}
        B: {max_steps: 7}
        """
    settings = load(text)
    assert settings.behaviors["A"].reward_signals["extrinsic"].strength == 0
    assert settings.behaviors["B"].reward_signals["extrinsic"].strength == 1


def test_behaviour_that_names_another_gets_a_copy() -> None:
    settings = load("A: {trainer: ppo, batch_size: 5}\nB: A\nC: B\n")
    assert settings.behaviors["C"] == settings.behaviors["A"]


def test_comments_that_lose_their_key_are_listed() -> None:
    text = "A:\n  trainer: ppo\n  # where to\n  output_path: x  # here\n"
    _, lost, _ = upgrade_text(text)
    assert lost == ["# where to", "# here"]


def test_hash_in_quotes_is_no_comment() -> None:
    text = "A:\n  trainer: ppo\n  init_path: 'it''s # here'  # the best\n"
    new, lost, _ = upgrade_text(text)
    assert new.splitlines()[-1] == "    init_path: 'it''s # here'  # the best"
    assert lost == []


def test_odd_texts_and_anchors_survive() -> None:
    text = """\
A: &a
  trainer: ppo
  hidden_units: !!int "64"
  init_path: 'it''s # no comment'
B:
  <<: *a
  num_layers: 1
"""
    new, _, _ = upgrade_text(text)
    values = parse_document(Path("new.yaml"), new).values
    b = {
        "trainer_type": "ppo",
        "network_settings": {"hidden_units": 64, "num_layers": 1},
        "init_path": "it's # no comment",
    }
    a = {**b, "network_settings": {"hidden_units": 64}}
    assert values == {"behaviors": {"A": a, "B": b}}


def test_todays_behaviour_without_the_line_above_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"^old.yaml:1:1: Walker stands at the top level"):
        load("Walker:\n  trainer_type: ppo\n  hyperparameters: {batch_size: 5}\n")


def comments_of(text: str) -> list[str]:
    """Gives what stands behind the first # of each line; no text of our files holds one."""
    return [found for line in text.splitlines() if (found := line.partition("#")[2].strip())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_the_repository_is_written_with_all_its_comments(path: Path) -> None:
    document = parse_document(path, path.read_text(encoding="utf-8"))
    assert document.root is not None
    text, lost = emit(document, document.root)
    assert lost == []
    assert parse_document(path, text).values == document.values
    assert comments_of(text) == comments_of(document.text)
