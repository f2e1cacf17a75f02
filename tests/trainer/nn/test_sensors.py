from __future__ import annotations

import pytest
import torch
from sensor_specs import NONE, VARIABLE, behavior, entities, image, vector

from envs.spec import DimensionProperty, ObservationSpec, ObservationType
from trainer.config.errors import UserError
from trainer.nn.sensors import SensorKind, UnsupportedBehaviorError, in_pieces, sensors_of

DEFAULT = ObservationType.DEFAULT


def test_every_kind_is_known_by_its_axes() -> None:
    spec = behavior(
        image(3, 20, 30),
        vector(4, is_goal=True),
        entities(7, 2),
        ObservationSpec((5,), (DimensionProperty.UNSPECIFIED,), DEFAULT, "unspecified"),
        image(1, 9, 9, dtype="float32"),
    )
    found = sensors_of(spec, "Crab")
    kinds = [SensorKind.IMAGE, SensorKind.VECTOR, SensorKind.ENTITIES]
    assert [sensor.kind for sensor in found.all] == [*kinds, SensorKind.VECTOR, SensorKind.IMAGE]
    assert [sensor.is_goal for sensor in found.all] == [False, True, False, False, False]
    assert [sensor.is_bytes for sensor in found.all] == [True, False, False, False, False]
    assert found.vector_sizes == (4, 5)
    columns = [torch.full((1, *sensor.shape), float(i)) for i, sensor in enumerate(spec[0])]
    joined = found.vectors(columns)
    assert joined is not None
    assert joined.tolist() == [[1.0] * 4 + [3.0] * 5]
    assert [column.mean().item() for column in found.others(columns)] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "sensor",
    [
        ObservationSpec((20, 6), (NONE, NONE), DEFAULT, "eyes"),
        ObservationSpec((20, 6), (NONE, VARIABLE), DEFAULT, "eyes"),
        ObservationSpec((3, 8, 8), (VARIABLE, NONE, NONE), DEFAULT, "eyes"),
        ObservationSpec((2, 3, 8, 8), (NONE,) * 4, DEFAULT, "eyes"),
        ObservationSpec((), (), DEFAULT, "eyes"),
        ObservationSpec((0,), (NONE,), DEFAULT, "eyes"),
        ObservationSpec((4,), (NONE,), DEFAULT, "eyes", "uint8"),
        ObservationSpec((4, 2), (VARIABLE, NONE), DEFAULT, "eyes", "uint8"),
    ],
    ids=lambda sensor: f"{sensor.shape} {sensor.dtype}",
)
def test_anything_else_is_refused_by_name(sensor: ObservationSpec) -> None:
    with pytest.raises(UnsupportedBehaviorError) as error:
        sensors_of(behavior(vector(4), sensor), "Crab")
    message = str(error.value)
    assert isinstance(error.value, UserError)
    for words in ("Behavior 'Crab'", "sensor 'eyes'", str(sensor.shape), "VARIABLE_SIZE, NONE"):
        assert words in message


def test_behavior_without_observations_is_refused() -> None:
    with pytest.raises(UnsupportedBehaviorError, match="Behavior 'Crab' observes nothing"):
        sensors_of(behavior(), "Crab")


def test_pieces_are_all_rows_in_order() -> None:
    inputs = (torch.arange(7).unsqueeze(1), 100 + torch.arange(7).reshape(7, 1, 1, 1))
    pieces = list(in_pieces(inputs, 3))
    assert [len(vectors) for vectors, _ in pieces] == [3, 3, 1]
    for column, whole in zip(zip(*pieces, strict=True), inputs, strict=True):
        assert torch.equal(torch.cat(column), whole)
