"""`environment_parameters` that the simulator draws anew for every episode.

Kinds, keys and defaults are ML-Agents'. Numbers travel as float32 and seeds as int32, so that is
what they are checked against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from trainer.config.model import Settings
from trainer.config.values import (
    LARGEST_FLOAT32,
    LARGEST_INT32,
    Range,
    Reader,
    contradiction,
    finite_number,
    wrong,
)

Number = Annotated[float, Range(at_least=-LARGEST_FLOAT32, at_most=LARGEST_FLOAT32)]
Seed = Annotated[int, Range(at_least=-1, at_most=LARGEST_INT32)]


@dataclass(frozen=True)
class Intervals(Reader):
    """A list of pairs, each a smallest and a largest number."""

    def expected(self, target: type) -> str:
        """Says what may stand in the list."""
        del target
        return "a list of [smallest, largest] pairs, such as [[0.5, 1], [2, 3]]"

    def read(self, value: object, target: type) -> object:
        """Gives the pairs as tuples of float."""
        pairs = [self._pair(item) for item in value] if isinstance(value, list | tuple) else []
        read = [pair for pair in pairs if pair is not None]
        if not read or len(read) < len(pairs):
            raise wrong(value, self.expected(target))
        return tuple(read)

    def schema(self, target: type) -> dict[str, Any]:
        """Gives a list of pairs."""
        del target
        number = {"type": "number", "minimum": -LARGEST_FLOAT32, "maximum": LARGEST_FLOAT32}
        pair = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
        return {"type": "array", "items": pair, "minItems": 1}

    def _pair(self, item: object) -> tuple[float, float] | None:
        if not isinstance(item, list | tuple) or len(item) != 2:
            return None
        low, high = (finite_number(number) for number in item)
        if low is None or high is None or not -LARGEST_FLOAT32 <= low <= high <= LARGEST_FLOAT32:
            return None
        return low, high


class ConstantParameters(Settings):
    """One number for the whole run; the same as the number by itself."""

    value: Number = 0.0
    """The number."""

    seed: Seed = -1
    """No effect; with -1 the sampler takes one from the run's row of seeds all the same."""


class UniformParameters(Settings):
    """Every number between two is equally likely."""

    min_value: Number = 0.0
    """Smallest number."""

    max_value: Number = 1.0
    """Largest number."""

    seed: Seed = -1
    """Seed of the draws; -1: the run's seed, plus 1 for every sampler before that has none."""

    @model_validator(mode="after")
    def _in_order(self) -> UniformParameters:
        if self.min_value > self.max_value:
            raise contradiction(
                f"min_value is {self.min_value:g}, above max_value {self.max_value:g}. Nothing "
                "lies between them: exchange them",
                "min_value",
                "max_value",
            )
        return self


class GaussianParameters(Settings):
    """Numbers around a mean, as a normal distribution has them."""

    mean: Number = 1.0
    """Middle."""

    st_dev: Annotated[float, Range(at_least=0, at_most=LARGEST_FLOAT32)] = 1.0
    """Standard deviation."""

    seed: Seed = -1
    """Seed of the draws; see uniform."""


class MultiRangeParameters(Settings):
    """Several ranges, each as likely as it is wide, and every number within equally likely."""

    intervals: Annotated[tuple[tuple[float, float], ...], Intervals()] = ((0.0, 1.0),)
    """The ranges, each `[smallest, largest]`."""

    seed: Seed = -1
    """Seed of the draws; see uniform."""


class ConstantSampler(Settings):
    """A constant in the form of a sampler."""

    sampler_type: Literal["constant"] = "constant"
    """How values are drawn."""

    sampler_parameters: ConstantParameters = Field(default_factory=ConstantParameters)
    """Its number."""


class UniformSampler(Settings):
    """A parameter drawn from one range."""

    sampler_type: Literal["uniform"] = "uniform"
    """How values are drawn."""

    sampler_parameters: UniformParameters = Field(default_factory=UniformParameters)
    """Its range."""


class GaussianSampler(Settings):
    """A parameter drawn around a mean."""

    sampler_type: Literal["gaussian"] = "gaussian"
    """How values are drawn."""

    sampler_parameters: GaussianParameters = Field(default_factory=GaussianParameters)
    """Its distribution."""


class MultiRangeSampler(Settings):
    """A parameter drawn from several ranges."""

    sampler_type: Literal["multirangeuniform"] = "multirangeuniform"
    """How values are drawn."""

    sampler_parameters: MultiRangeParameters = Field(default_factory=MultiRangeParameters)
    """Its ranges."""


SamplerSettings: TypeAlias = ConstantSampler | UniformSampler | GaussianSampler | MultiRangeSampler
Parameter: TypeAlias = float | SamplerSettings

SAMPLERS: Mapping[str, type[SamplerSettings]] = {
    "constant": ConstantSampler,
    "uniform": UniformSampler,
    "gaussian": GaussianSampler,
    "multirangeuniform": MultiRangeSampler,
}


@dataclass(frozen=True)
class ParameterValue(Reader):
    """A number, or a sampler that has been read already."""

    _range = Range(at_least=-LARGEST_FLOAT32, at_most=LARGEST_FLOAT32)

    def expected(self, target: type) -> str:
        """Says what may stand behind the name."""
        del target
        return "a number, or a mapping with sampler_type and sampler_parameters"

    def read(self, value: object, target: type) -> object:
        """Gives a float, or the sampler unchanged."""
        if isinstance(value, SamplerSettings):
            return value
        if finite_number(value) is None:
            raise wrong(value, self.expected(target))
        return self._range.read(value, float)

    def schema(self, target: type) -> dict[str, Any]:
        """Gives the number; samplers have schemas of their own."""
        return self._range.schema(target)


def derived_seed(parameter: Parameter, run_seed: int, num_before: int) -> int | None:
    """Gives the seed of a parameter that leaves it to the run; None when it has its own.

    Args:
        parameter: a constant takes its place in the row too, as in ML-Agents.
        run_seed: of the run.
        num_before: how many parameters before it left theirs to the run.
    """
    own = -1 if isinstance(parameter, float) else parameter.sampler_parameters.seed
    return None if own >= 0 else (run_seed + num_before) % (LARGEST_INT32 + 1)
