from __future__ import annotations

import pytest

from envs.spec import DimensionProperty, ObservationSpec, ObservationType
from trainer.scene import kind_of

NONE, FIXED, VARIABLE = (
    DimensionProperty.NONE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    DimensionProperty.VARIABLE_SIZE,
)


@pytest.mark.parametrize(
    ("shape", "properties", "kind"),
    [
        ((8,), (NONE,), "vector"),
        ((3, 84, 84), (NONE, FIXED, FIXED), "visual"),
        ((20, 5), (VARIABLE, NONE), "variable-length"),
        ((4, 4), (NONE, NONE), "rank 2"),
    ],
)
def test_kind_of_observation_is_named(
    shape: tuple[int, ...], properties: tuple[DimensionProperty, ...], kind: str
) -> None:
    plain = ObservationSpec(shape, properties, ObservationType.DEFAULT, "sensor")
    assert kind_of(plain) == kind
    goal = ObservationSpec(shape, properties, ObservationType.GOAL_SIGNAL, "sensor")
    assert kind_of(goal) == f"{kind}, goal signal"
