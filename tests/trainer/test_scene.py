from __future__ import annotations

import sys
from pathlib import Path

import pytest

from envs.errors import SimulatorError
from envs.fleet import FleetPlan, LaunchPlan
from envs.spec import DimensionProperty, ObservationSpec, ObservationType
from trainer.scene import kind_of, watch

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


def test_behaviour_that_appears_late_is_seen(tmp_path: Path) -> None:
    program = Path(__file__).parent / "late_simulator.py"
    launch = LaunchPlan(command=(sys.executable, str(program)), kind="gym")
    scene = watch(FleetPlan(launch=launch, logs_dir=tmp_path))
    assert list(scene.behaviors) == ["Early?team=0", "Late?team=3"]
    assert scene.names == ["Early", "Late"]


def test_simulator_that_is_lost_ends_the_look(tmp_path: Path) -> None:
    launch = LaunchPlan(command=(sys.executable, "-c", "print('nothing here')"), kind="gym")
    with pytest.raises(SimulatorError, match="ended before it dialled"):
        watch(FleetPlan(launch=launch, logs_dir=tmp_path))
