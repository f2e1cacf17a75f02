"""What a behaviour observes, told from its first agent, for every kind of sensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from png_files import numbered, png

from envs.bridge.proto.communicator_pb2 import (
    GOAL_SIGNAL,
    PNG,
    BrainParametersProto,
    ObservationProto,
    SpaceTypeProto,
    UnityRLOutputProto,
    continuous,
    discrete,
)
from envs.bridge.wire_spec import WireSpec, build_spec
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.spec import (
    VARIABLE_LENGTH,
    VECTOR,
    VISUAL,
    ActionSpec,
    ObservationSpec,
    ObservationType,
)

NO_ACTIONS = BrainParametersProto(brain_name="B")


def agents(*observations: ObservationProto) -> bytes:
    found = UnityRLOutputProto.ListAgentInfoProto()
    found.value.add(observations=observations, id=7)
    return found.SerializeToString()


def numbers(shape: Sequence[int], properties: Sequence[int], name: str = "") -> ObservationProto:
    observation = ObservationProto(shape=shape, dimension_properties=properties, name=name)
    observation.float_data.data.extend([0.0] * int(np.prod(shape)))
    return observation


def camera(
    shape: Sequence[int], properties: Sequence[int], height: int, width: int
) -> ObservationProto:
    return ObservationProto(
        shape=shape,
        dimension_properties=properties,
        name="Camera",
        compression_type=PNG,
        compressed_data=png(numbered(height, width, 3)),
    )


def spec_of(*observations: ObservationProto, has_dimension_properties: bool = True) -> WireSpec:
    found = build_spec(
        NO_ACTIONS, agents(*observations), has_dimension_properties=has_dimension_properties
    )
    assert found is not None
    return found


def test_spec_comes_from_brain_and_first_agent() -> None:
    brain = BrainParametersProto(brain_name="B?team=0")
    brain.action_spec.num_continuous_actions = 2
    brain.action_spec.num_discrete_actions = 2
    brain.action_spec.discrete_branch_sizes.extend([3, 2])
    goal = numbers([4], [])
    goal.observation_type = GOAL_SIGNAL

    found = build_spec(brain, agents(numbers([3], [1], "Rays"), goal, numbers([9, 5], [4, 1])))

    assert found is not None
    assert found.spec.action_spec == ActionSpec(2, (3, 2))
    assert found.spec.observation_specs == [
        ObservationSpec((3,), VECTOR, ObservationType.DEFAULT, "Rays", "float32"),
        ObservationSpec((4,), VECTOR, ObservationType.GOAL_SIGNAL, "obs_1", "float32"),
        ObservationSpec((9, 5), VARIABLE_LENGTH, ObservationType.DEFAULT, "obs_2", "float32"),
    ]
    assert found.channels_last == frozenset()


def test_there_is_no_spec_before_there_is_an_agent() -> None:
    assert build_spec(NO_ACTIONS, b"") is None


@pytest.mark.parametrize(
    ("observation", "is_last"),
    [
        (numbers([3, 20, 30], [1, 2, 2]), False),
        (numbers([20, 30, 3], [2, 2, 1]), True),
        (numbers([3, 20, 30], []), False),  # as ML-Agents 1.1 takes it
        (numbers([3, 20, 30], [0, 0, 0]), False),
        (camera([3, 20, 30], [1, 2, 2], 20, 30), False),
        (camera([20, 30, 3], [2, 2, 1], 20, 30), True),
        (camera([3, 20, 30], [], 20, 30), False),  # by the image's size
        (camera([20, 30, 3], [], 20, 30), True),
        (camera([20, 30, 3], [0, 0, 0], 20, 30), True),
    ],
)
def test_images_are_channels_first_behind_the_bridge(
    observation: ObservationProto, is_last: bool
) -> None:
    spec, channels_last = spec_of(numbers([2], [1]), observation)
    sensor = spec.observation_specs[1]
    assert sensor.shape == (3, 20, 30)
    assert sensor.dimension_property == VISUAL
    assert sensor.dtype == ("uint8" if observation.HasField("compressed_data") else "float32")
    assert channels_last == ({1} if is_last else set())


def test_image_that_fits_both_ways_goes_by_the_age_of_the_protocol() -> None:
    cube = camera([5, 5, 5], [], 5, 5)
    assert spec_of(cube).channels_last == set()
    assert spec_of(cube, has_dimension_properties=False).channels_last == {0}


def test_raw_image_of_a_protocol_without_dimension_properties_has_channels_last() -> None:
    old = numbers([20, 30, 3], [])
    spec, channels_last = spec_of(old, has_dimension_properties=False)
    assert spec.observation_specs[0].shape == (3, 20, 30)
    assert channels_last == {0}


def test_image_that_fits_no_way_is_bad_data() -> None:
    with pytest.raises(BadDataError, match=r"'B', sensor 'Camera': a PNG of 21 x 30 .*neither"):
        spec_of(camera([3, 20, 30], [], 21, 30))
    broken = camera([3, 20, 30], [], 20, 30)
    broken.compressed_data = broken.compressed_data[:50]
    with pytest.raises(BadDataError, match=r"sensor 'Camera': a truncated PNG"):
        spec_of(broken)


def goal_of_an_unknown_type() -> ObservationProto:
    observation = numbers([2], [1], "Eye")
    observation.observation_type = 2  # type: ignore[assignment]  # a number that is no member
    return observation


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (numbers([4, 4], [1, 1], "Eye"), r"shape \(4, 4\) with the dimension properties none, no"),
        (numbers([4, 4], [], "Eye"), "unspecified, unspecified"),
        (numbers([4], [2], "Eye"), "translational"),
        (numbers([4, 2], [4, 4], "Eye"), "variable, variable"),
        (numbers([4, 2, 2], [1, 1, 1], "Eye"), "none, none, none"),
        (numbers([4], [1, 1], "Eye"), "none, none"),
        (numbers([2, 2, 2, 2], [], "Eye"), r"\(2, 2, 2, 2\)"),
        (numbers([], [], "Eye"), r"shape \(\)"),
        (numbers([0], [1], "Eye"), r"shape \(0,\)"),
        (numbers([4], [9], "Eye"), "properties 9"),
        (goal_of_an_unknown_type(), "the type 2"),
        (ObservationProto(shape=[9], name="Eye", compressed_data=b"x"), "PNG as data"),
    ],
)
def test_sensor_of_an_unknown_kind_is_named_with_what_is_supported(
    observation: ObservationProto, words: str
) -> None:
    with pytest.raises(UnsupportedSpaceError, match=words) as caught:
        spec_of(observation)
    message = str(caught.value)
    assert message.startswith("behaviour 'B', sensor 'Eye': ")
    assert "Supported are vectors (n,)" in message
    assert "variable-length observations" in message


@pytest.mark.parametrize(
    ("space", "sizes", "expected"),
    [
        (continuous, [6], ActionSpec(6, ())),
        (discrete, [3, 3, 2], ActionSpec(0, (3, 3, 2))),
    ],
)
def test_spec_of_an_old_peer_uses_the_deprecated_fields(
    space: SpaceTypeProto, sizes: list[int], expected: ActionSpec
) -> None:
    brain = BrainParametersProto(brain_name="B", vector_action_size_deprecated=sizes)
    brain.vector_action_space_type_deprecated = space
    found = build_spec(brain, agents(numbers([3], [])))
    assert found is not None
    assert found.spec.action_spec == expected
