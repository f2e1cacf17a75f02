"""Settings files in the shapes that users of ML-Agents have, one for each example scene and habit.

Each loads, or stops with exactly the messages that name later features: messages.json, "unity".
The files were written for this repository. With tests/trainer/config on PYTHONPATH,
`python tests/trainer/config/test_unity_corpus.py` writes the messages anew; read the diff.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from schema_check import complaints

from trainer.config.document import parse_document
from trainer.config.errors import ConfigError
from trainer.config.json_schema import render
from trainer.config.load import resolve
from trainer.config.problems import program
from trainer.config.samplers import MultiRangeSampler, UniformSampler
from trainer.config.settings import RunSettings
from trainer.config.write import dump

FOLDER = Path(__file__).parent / "unity"
MESSAGES = Path(__file__).parents[2] / "messages.json"
SECTION = "unity"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
OLD = {"trainer_config_016", "randomize_018"}


def load(name: str) -> RunSettings:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return resolve(parse_document(Path(f"{name}.yaml"), text))


def problems_of(name: str) -> list[str]:
    try:
        load(name)
    except ConfigError as error:
        return [problem.replace(program(), "ppo-train VERSION") for problem in error.problems]
    return []


def pinned() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(MESSAGES.read_text(encoding="utf-8"))[SECTION]
    return found


@pytest.mark.parametrize("name", FILES)
def test_file_loads_or_names_the_later_features(name: str) -> None:
    assert problems_of(name) == pinned()[name]


def test_nothing_but_later_features_is_refused() -> None:
    for name, problems in pinned().items():
        for problem in problems:
            assert "not supported yet by ppo-train VERSION" in problem, name


@pytest.mark.parametrize("name", [name for name in FILES if not problems_of(name)])
def test_file_that_loads_is_written_and_read_again(name: str) -> None:
    settings = load(name)
    assert resolve(parse_document(Path("again.yaml"), dump(settings))) == settings


# Editors learn today's format, and mark a number in quotes.
MARKED = OLD | {"3DBall", "3DBall_randomize"}


@pytest.mark.parametrize("name", [n for n in FILES if not problems_of(n) and n not in MARKED])
def test_file_that_loads_is_not_marked_by_editors(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    schema = json.loads(render())
    assert list(complaints(parse_document(Path("f"), text).values, schema, schema)) == []


def test_samplers_of_a_randomised_scene_are_read() -> None:
    parameters = load("3DBall_randomize").environment_parameters
    assert isinstance(parameters["mass"], UniformSampler)
    assert isinstance(parameters["scale"], MultiRangeSampler)
    assert parameters["gravity"] == 9.81
    assert parameters["scale"].sampler_parameters.intervals == ((0.5, 1), (4, 6))


def test_old_files_say_what_they_always_said() -> None:
    settings = load("trainer_config_016")
    ball, jump = settings.behaviors["3DBall"], settings.behaviors["WallJump"]
    assert (ball.hyperparameters.minibatch_size, ball.hyperparameters.buffer_size) == (64, 12000)
    assert (ball.network_settings.normalize, ball.network_settings.hidden_units) == (True, 128)
    assert (jump.max_steps, jump.network_settings.hidden_units) == (20_000_000, 256)
    assert jump.hyperparameters.minibatch_size == 1024
    mass = load("randomize_018").environment_parameters["mass"]
    assert isinstance(mass, UniformSampler)
    assert (mass.sampler_parameters.min_value, mass.sampler_parameters.max_value) == (0.5, 10)


def test_seeds_that_ml_agents_has_resolved_are_kept() -> None:
    mass = load("configuration_110").environment_parameters["mass"]
    assert isinstance(mass, UniformSampler)
    assert mass.sampler_parameters.seed == 4321


if __name__ == "__main__":
    messages = json.loads(MESSAGES.read_text(encoding="utf-8"))
    messages[SECTION] = {name: problems_of(name) for name in FILES}
    written = json.dumps(messages, indent=2, ensure_ascii=False) + "\n"
    MESSAGES.write_text(written, encoding="utf-8")
