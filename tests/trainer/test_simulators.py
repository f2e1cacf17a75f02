from __future__ import annotations

from pathlib import Path

import pytest
from trainer_process import tiny_build

from envs.fleet import Sampler, SamplerKind
from trainer.config.document import parse_document
from trainer.config.load import resolve
from trainer.config.settings import RunSettings
from trainer.simulators import parameter_lines, plan_fleet


@pytest.mark.parametrize(
    ("has_build", "base_port", "found"),
    [(False, None, 5004), (False, 6000, 6000), (True, None, None), (True, 6000, 6000)],
)
def test_simulators_are_waited_for_on_the_chosen_port(
    tmp_path: Path, has_build: bool, base_port: int | None, found: int | None
) -> None:
    env_path = str(tiny_build(tmp_path)) if has_build else None
    settings = RunSettings.model_validate(
        {"behaviors": {"1D": {}}, "env_settings": {"env_path": env_path, "base_port": base_port}}
    )
    assert plan_fleet(settings, tmp_path, seed=0).base_port == found


PARAMETERS = """
behaviors: {A: {}}
environment_parameters:
  first: {sampler_type: uniform, sampler_parameters: {min_value: 1, max_value: 2}}
  constant: 5
  own: {sampler_type: gaussian, sampler_parameters: {mean: 3, st_dev: 4, seed: 9}}
  own_constant: {sampler_type: constant, sampler_parameters: {value: 6, seed: 2}}
  last: {sampler_type: multirangeuniform, sampler_parameters: {intervals: [[1, 2], [3, 4]]}}
"""


def test_samplers_get_seeds_in_a_row_as_in_ml_agents(tmp_path: Path) -> None:
    settings = resolve(parse_document(Path("run.yaml"), PARAMETERS))
    # The reference, 4.6: run seed + offset; only samplers without a seed count, constants too.
    assert plan_fleet(settings, tmp_path, seed=1337).environment_parameters == {
        "first": Sampler(1337, SamplerKind.UNIFORM, (1.0, 2.0)),
        "constant": 5.0,
        "own": Sampler(9, SamplerKind.GAUSSIAN, (3.0, 4.0)),
        "own_constant": 6.0,
        "last": Sampler(1339, SamplerKind.MULTI_RANGE_UNIFORM, (1.0, 2.0, 3.0, 4.0)),
    }


def test_seed_beyond_int32_begins_again_at_zero(tmp_path: Path) -> None:
    sampler = {"sampler_type": "uniform", "sampler_parameters": {}}
    settings = resolve(
        parse_document(
            Path("run.yaml"),
            f"behaviors: {{A: {{}}}}\nenvironment_parameters: {{a: {sampler}, b: {sampler}}}",
        )
    )
    found = plan_fleet(settings, tmp_path, seed=2**31 - 1).environment_parameters
    assert [value.seed for value in found.values() if isinstance(value, Sampler)] == [2**31 - 1, 0]


def test_parameters_are_told_in_the_words_of_ml_agents() -> None:
    # The reference on outputs, section 5.
    settings = resolve(parse_document(Path("run.yaml"), PARAMETERS))
    lines = list(parameter_lines(settings.environment_parameters))
    assert lines[0] == (
        "Parameter 'first' is in lesson 'first' and has value 'Uniform sampler: min=1.0, max=2.0'."
    )
    assert [line.partition("value '")[2] for line in lines[1:]] == [
        "Float: value=5.0'.",
        "Gaussian sampler: mean=3.0, stddev=4.0'.",
        "Float: value=6.0'.",
        "MultiRangeUniform sampler: intervals=[[1.0, 2.0], [3.0, 4.0]]'.",
    ]
