"""Environment parameters: constants, samplers, and the one-lesson form of ML-Agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config.document import parse_document
from trainer.config.errors import ConfigError
from trainer.config.load import resolve
from trainer.config.samplers import (
    ConstantParameters,
    ConstantSampler,
    GaussianParameters,
    GaussianSampler,
    MultiRangeParameters,
    MultiRangeSampler,
    Parameter,
    UniformParameters,
    UniformSampler,
)
from trainer.config.settings import RunSettings
from trainer.config.write import dump


def load(parameters: str) -> RunSettings:
    text = f"behaviors: {{A: {{}}}}\nenvironment_parameters: {parameters}\n"
    return resolve(parse_document(Path("run.yaml"), text))


def read(written: str) -> Parameter:
    return load(f"{{p: {written}}}").environment_parameters["p"]


FORMS: list[tuple[str, Parameter]] = [
    ("2", 2.0),
    ("'1e1'", 10.0),
    (
        "{sampler_type: constant, sampler_parameters: {value: 3, seed: 1}}",
        ConstantSampler(sampler_parameters=ConstantParameters(value=3, seed=1)),
    ),
    ("{sampler_type: constant, sampler_parameters: {}}", ConstantSampler()),
    (
        "{sampler_type: uniform, sampler_parameters: {min_value: 0.5, max_value: '1e1'}}",
        UniformSampler(sampler_parameters=UniformParameters(min_value=0.5, max_value=10)),
    ),
    ("{sampler_type: uniform, sampler_parameters: {}}", UniformSampler()),
    (
        "{sampler_type: gaussian, sampler_parameters: {mean: 4, st_dev: 0, seed: 7}}",
        GaussianSampler(sampler_parameters=GaussianParameters(mean=4, st_dev=0, seed=7)),
    ),
    (
        "{sampler_type: multirangeuniform, sampler_parameters: {intervals: [[-1, 2], [3, 3]]}}",
        MultiRangeSampler(
            sampler_parameters=MultiRangeParameters(intervals=((-1.0, 2.0), (3.0, 3.0)))
        ),
    ),
    ("{curriculum: [{name: only, value: 4}]}", 4.0),
    (
        "{curriculum: [{name: p, completion_criteria: null, value: "
        "{sampler_type: gaussian, sampler_parameters: {seed: 7, mean: 4, st_dev: 1}}}]}",
        GaussianSampler(sampler_parameters=GaussianParameters(mean=4, st_dev=1, seed=7)),
    ),
]


@pytest.mark.parametrize(("written", "expected"), FORMS)
def test_parameter_is_read_in_every_form_of_ml_agents(written: str, expected: Parameter) -> None:
    assert read(written) == expected


def test_defaults_of_samplers_are_those_of_ml_agents() -> None:
    # reference/mlagents-config.md, 4.6
    assert UniformParameters().model_dump() == {"min_value": 0.0, "max_value": 1.0, "seed": -1}
    assert GaussianParameters().model_dump() == {"mean": 1.0, "st_dev": 1.0, "seed": -1}
    assert ConstantParameters().model_dump() == {"value": 0.0, "seed": -1}
    assert MultiRangeParameters().model_dump() == {"intervals": ((0.0, 1.0),), "seed": -1}


def test_written_samplers_load_again() -> None:
    settings = load("{" + ", ".join(f"p{i}: {form}" for i, (form, _) in enumerate(FORMS)) + "}")
    assert resolve(parse_document(Path("again.yaml"), dump(settings))) == settings


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "{sampler_type: beta, sampler_parameters: {}}",
            "2:30: environment_parameters.p.sampler_type is 'beta'; expected constant, uniform, "
            "gaussian or multirangeuniform.",
        ),
        (
            "{sampler_type: uniform, sampler_parameters: {min_value: 2, max_value: 1}}",
            "2:74: environment_parameters.p.sampler_parameters.min_value is 2, above max_value 1. "
            "Nothing lies between them: exchange them.",
        ),
        (
            "{sampler_type: multirangeuniform, sampler_parameters: {intervals: [[1, 2, 3]]}}",
            "2:84: environment_parameters.p.sampler_parameters.intervals is [[1, 2, 3]]; expected "
            "a list of [smallest, largest] pairs, such as [[0.5, 1], [2, 3]].",
        ),
        (
            "{sampler_type: multirangeuniform, sampler_parameters: {intervals: [[2, 1]]}}",
            "2:84: environment_parameters.p.sampler_parameters.intervals is [[2, 1]]; expected a "
            "list of [smallest, largest] pairs, such as [[0.5, 1], [2, 3]].",
        ),
        (
            "{sampler_type: uniform}",
            "2:26: environment_parameters.p.sampler_parameters is missing; expected a "
            "mapping of min_value, max_value or seed, or {} for the defaults.",
        ),
        (
            "{sampler_type: uniform, sampler_parameters: {}, max_value: 2}",
            "2:77: unknown key 'max_value' under environment_parameters.p. It belongs under "
            "environment_parameters.p.sampler_parameters.",
        ),
        (
            "{curriculum: [{name: a, value: 1}, {name: b, value: 2}]}",
            "2:30: environment_parameters.p.curriculum asks for a curriculum, not supported yet",
        ),
    ],
)
def test_wrong_parameter_is_refused(written: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(written)
    (problem,) = caught.value.problems
    assert problem.startswith(f"run.yaml:{message}")


def test_number_too_large_for_the_protocol_is_refused() -> None:
    assert read("3.4e38") == 3.4e38
    with pytest.raises(ConfigError, match=r"from -3\.40282e\+38 to 3\.40282e\+38"):
        read("3.5e38")


def test_criteria_of_the_last_lesson_are_told_to_be_useless(
    caplog: pytest.LogCaptureFixture,
) -> None:
    criteria = "{behavior: A, threshold: 1}"
    assert read(f"{{curriculum: [{{name: a, value: 1, completion_criteria: {criteria}}}]}}") == 1
    assert "curriculum[0].completion_criteria has no effect" in caplog.text
