from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from envs.errors import BadDataError, UnsupportedSpaceError
from envs.gym.spaces import ActionLayout, ObservationLayout
from envs.spec import CHANNELS_LAST, VISUAL, ObservationType

Space = Any  # gymnasium's types are not known to mypy here


def boxes() -> st.SearchStrategy[Space]:
    shapes = st.sampled_from([(), (1,), (4,), (2, 3)])
    types = st.sampled_from([np.float32, np.float64, np.int32])
    bounds = st.sampled_from([(-1, 1), (0, 7), (-3, 5), (-np.inf, np.inf), (0, np.inf)])

    def build(shape: tuple[int, ...], dtype: Any, low_high: tuple[float, float]) -> Space:
        low, high = low_high
        if dtype is np.int32 and not np.isfinite([low, high]).all():
            low, high = -4, 4
        return spaces.Box(low, high, shape, dtype)

    return st.builds(build, shapes, types, bounds)


def simple_spaces() -> st.SearchStrategy[Space]:
    return st.one_of(
        boxes(),
        st.builds(
            lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 6), st.integers(-3, 3)
        ),
        st.builds(spaces.MultiDiscrete, st.sampled_from([[2], [3, 4], [[2, 3], [4, 1]]])),
        st.builds(spaces.MultiBinary, st.sampled_from([3, [2, 2]])),
    )


def nested_spaces() -> st.SearchStrategy[Space]:
    return st.recursive(
        simple_spaces(),
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from("abcz"), inner, min_size=1, max_size=3).map(
                spaces.Dict
            ),
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        ),
        max_leaves=5,
    )


def read(space: Space, obs: Any) -> list[NDArray[Any]]:
    layout = ObservationLayout(space)
    rows = [
        np.full(sensor.shape, np.nan if sensor.dtype == "float32" else 77, sensor.dtype)
        for sensor in layout.sensors
    ]
    layout.write(obs, rows)
    return rows


def actions_for(
    space: Space, continuous: list[list[float]], discrete: list[list[int]]
) -> list[Any]:
    num_agents = max(len(continuous), len(discrete))
    numbers = np.array(continuous or [[]] * num_agents, np.float32)
    branches = np.array(discrete or [[]] * num_agents, np.int32)
    return list(ActionLayout(space).decode(numbers, branches))


@settings(deadline=None)
@given(space=simple_spaces(), seed=st.integers(0, 1000))
def test_single_sensor_equals_gymnasiums_own_flattening(space: Space, seed: int) -> None:
    space.seed(seed)
    obs = space.sample()
    (row,) = read(space, obs)
    np.testing.assert_array_equal(row, flatten(space, obs).astype(np.float32))


@settings(deadline=None)
@given(space=nested_spaces(), seed=st.integers(0, 1000))
def test_nested_observation_is_spread_over_sensors_sorted_by_name(space: Space, seed: int) -> None:
    space.seed(seed)
    obs = space.sample()
    layout = ObservationLayout(space)
    names = [sensor.name for sensor in layout.sensors]
    assert names == sorted(names)
    for sensor, row in zip(layout.sensors, read(space, obs), strict=True):
        part_space, part = space, obs
        for key in sensor.path:
            part_space, part = part_space[key], part[key]
        np.testing.assert_array_equal(row, flatten(part_space, part).astype(np.float32))
        assert sensor.name == "/".join(["obs", *(str(key) for key in sensor.path)])


@settings(deadline=None)
@given(space=nested_spaces(), data=st.data())
def test_any_decoded_action_belongs_to_its_space(space: Space, data: st.DataObject) -> None:
    layout = ActionLayout(space)
    numbers = st.floats(-1.5, 1.5, width=32)
    continuous = [[data.draw(numbers) for _ in range(layout.num_continuous)] for _ in range(2)]
    discrete = [[data.draw(st.integers(0, size - 1)) for size in layout.branches] for _ in range(2)]
    decoded = layout.decode(
        np.array(continuous, np.float32).reshape(2, -1),
        np.array(discrete, np.int32).reshape(2, -1),
    )
    assert len(decoded) == 2
    for action in decoded:
        assert space.contains(action), action


def test_every_value_of_a_branch_gives_another_action() -> None:
    space = spaces.MultiDiscrete([[2, 3]], start=[[5, -1]])
    actions = {
        tuple(actions_for(space, [], [[first, second]])[0].reshape(-1).tolist())
        for first in range(2)
        for second in range(3)
    }
    assert actions == {(first, second) for first in (5, 6) for second in (-1, 0, 1)}


def test_dict_of_goal_environments_becomes_three_named_sensors() -> None:
    space = spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (10,)),
            "desired_goal": spaces.Box(-1, 1, (3,)),
            "achieved_goal": spaces.Box(-1, 1, (3,)),
        }
    )
    sensors = ObservationLayout(space).sensors
    assert [(sensor.name, sensor.shape) for sensor in sensors] == [
        ("obs/achieved_goal", (3,)),
        ("obs/desired_goal", (3,)),
        ("obs/observation", (10,)),
    ]


def test_sensors_are_sorted_by_their_whole_name_not_by_the_spaces_order() -> None:
    flag = spaces.MultiBinary(1)
    space = spaces.Dict({"a": spaces.Tuple((flag,) * 11), "a-b": flag})
    names = [sensor.name for sensor in ObservationLayout(space).sensors]
    assert names[:4] == ["obs/a-b", "obs/a/0", "obs/a/1", "obs/a/10"]


def test_discrete_observation_is_one_hot_counted_from_its_start() -> None:
    (row,) = read(spaces.Discrete(4, start=10), np.int64(12))
    assert row.tolist() == [0, 0, 1, 0]


def test_bounded_actions_are_stretched_from_minus_one_and_one_to_the_bounds() -> None:
    space = spaces.Box(np.array([-2.0, 10.0]), np.array([2.0, 30.0]), dtype=np.float64)
    low, middle, high, outside = actions_for(space, [[-1, -1], [0, 0], [1, 1], [-7, 7]], [])
    assert low.tolist() == [-2, 10]
    assert middle.tolist() == [0, 20]
    assert high.tolist() == [2, 30]
    assert outside.tolist() == [-2, 30]
    assert low.dtype == np.float64


def test_actions_without_bounds_pass_unscaled() -> None:
    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    (action,) = actions_for(space, [[0.25, -3.0]], [])
    assert action.tolist() == [0.25, -3.0]
    largest = np.finfo(np.float32).max  # means "no bound" in some environments
    (action,) = actions_for(spaces.Box(-largest, largest, (2,), np.float32), [[0.25, -3.0]], [])
    assert action.tolist() == [0.25, -3.0]


def test_actions_bounded_on_one_side_are_only_cut_there() -> None:
    space = spaces.Box(0.0, np.inf, (2,), np.float32)
    (action,) = actions_for(space, [[0.75, -0.5]], [])
    assert action.tolist() == [0.75, 0.0]


def test_whole_number_actions_are_rounded() -> None:
    (action,) = actions_for(spaces.Box(0, 10, (3,), np.int32), [[-1.0, 0.1, 1.0]], [])
    assert action.tolist() == [0, 6, 10]  # 5.5 rounds to the even 6
    assert action.dtype == np.int32


def test_hybrid_tuple_takes_numbers_and_branches_in_order() -> None:
    space = spaces.Tuple(
        (
            spaces.Discrete(3),
            spaces.Box(-1, 1, (2,)),
            spaces.MultiBinary(2),
            spaces.Box(0, 2, (1,)),
        )
    )
    layout = ActionLayout(space)
    assert (layout.num_continuous, layout.branches) == (3, (3, 2, 2))
    first, second = actions_for(space, [[0.5, -0.5, 1.0], [0, 0, 0]], [[2, 1, 0], [0, 0, 1]])
    assert first[0] == 2
    assert first[1].tolist() == [0.5, -0.5]
    assert first[2].tolist() == [1, 0]
    assert first[3].tolist() == [2.0]
    assert (second[0], second[2].tolist(), second[3].tolist()) == (0, [0, 1], [1.0])


def bytes_box(*shape: int) -> Space:
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "shape", "channels_first"),
    [
        (bytes_box(84, 80, 3), (84, 80, 3), (3, 84, 80)),
        (bytes_box(3, 84, 80), (84, 80, 3), (3, 84, 80)),
        (bytes_box(4, 84, 80), (84, 80, 4), (4, 84, 80)),  # grey frames, stacked
        (bytes_box(84, 80, 1), (84, 80, 1), (1, 84, 80)),
        (bytes_box(84, 80), (84, 80, 1), (1, 84, 80)),
        (bytes_box(4, 84, 80, 3), (84, 80, 12), (12, 84, 80)),  # colour frames, stacked
        (bytes_box(4, 3, 84, 80), (84, 80, 12), (12, 84, 80)),
        (bytes_box(5, 5, 5), (5, 5, 5), (5, 5, 5)),
    ],
)
def test_boxes_of_bytes_are_images(
    space: Space, shape: tuple[int, ...], channels_first: tuple[int, ...]
) -> None:
    (sensor,) = ObservationLayout(space).sensors
    assert (sensor.shape, sensor.dtype) == (shape, "uint8")
    spec = sensor.spec(has_channels_last=False)
    assert (spec.shape, spec.dimension_property, spec.dtype) == (channels_first, VISUAL, "uint8")
    old = sensor.spec(has_channels_last=True)
    assert (old.shape, old.dimension_property) == (shape, CHANNELS_LAST)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (6, 5, 2), np.float32),
        spaces.Box(0, 1, (6, 5, 2), np.uint8),  # planes of bits: value / 255 would drown them
        spaces.Box(0, 255, (6, 5, 2), np.int32),
    ],
)
def test_other_boxes_of_rank_three_are_images_of_floats(space: Space) -> None:
    (sensor,) = ObservationLayout(space).sensors
    spec = sensor.spec(has_channels_last=False)
    assert (spec.shape, spec.dimension_property, spec.dtype) == ((2, 6, 5), VISUAL, "float32")
    space.seed(3)
    obs = space.sample()
    np.testing.assert_array_equal(read(space, obs)[0], obs.astype(np.float32))


def test_pixels_of_a_stack_of_frames_go_frame_by_frame_channel_by_channel() -> None:
    # frame f, row y, column x, channel c is 64 f + 16 y + 4 x + c
    stack = (np.indices((4, 4, 4, 3)) * np.array([64, 16, 4, 1]).reshape(4, 1, 1, 1, 1)).sum(0)
    stack = stack.astype(np.uint8)
    for obs in (stack, stack.transpose(0, 3, 1, 2)):  # the same, (H, W, C) and (C, H, W)
        (image,) = read(bytes_box(*obs.shape), obs)
        assert image.shape == (4, 4, 12)
        expected = [64 * f + 16 * 2 + 4 * 3 + c for f in range(4) for c in range(3)]
        assert image[2, 3].tolist() == expected
    grey = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    (image,) = read(bytes_box(3, 4, 5), grey)
    assert image[1, 2].tolist() == [7, 27, 47]  # 20 frame + 5 row + column


def test_desired_goal_is_a_goal_signal() -> None:
    box = spaces.Box(-1, 1, (3,))
    space = spaces.Dict({"achieved_goal": box, "desired_goal": box, "observation": box})
    kinds = [
        sensor.spec(has_channels_last=False).observation_type
        for sensor in ObservationLayout(space).sensors
    ]
    assert kinds == [ObservationType.DEFAULT, ObservationType.GOAL_SIGNAL, ObservationType.DEFAULT]


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (2, 2, 2, 2)), bytes_box(2, 2, 2, 2, 2), bytes_box(2, 2, 0)]
)
def test_larger_arrays_are_refused_with_the_space_and_what_is_supported(space: Space) -> None:
    nested = spaces.Dict({"camera": space, "state": spaces.Box(-1, 1, (3,))})
    with pytest.raises(UnsupportedSpaceError) as caught:
        ObservationLayout(nested)
    message = str(caught.value)
    assert "obs/camera" in message
    assert str(space.shape) in message
    assert "Supported are Box of rank 0 to 3" in message or "without a single element" in message


def test_image_of_another_type_or_shape_than_its_space_is_an_error() -> None:
    space = bytes_box(4, 4, 3)
    with pytest.raises(BadDataError, match=r"has shape \(4, 4, 3\) and type float64.*uint8"):
        read(space, np.zeros((4, 4, 3)))
    with pytest.raises(BadDataError, match=r"has shape \(3, 4, 4\)"):
        read(space, np.zeros((3, 4, 4), np.uint8))


def test_other_spaces_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedSpaceError, match="Observation obs/0 is a Text"):
        ObservationLayout(spaces.Tuple((spaces.Text(5),)))
    with pytest.raises(UnsupportedSpaceError, match="Action action is a Sequence"):
        ActionLayout(spaces.Sequence(spaces.Discrete(2)))
    with pytest.raises(UnsupportedSpaceError, match="without a single element"):
        ObservationLayout(spaces.Box(-1, 1, (0,)))
    with pytest.raises(UnsupportedSpaceError, match="two parts named 'obs/a/b'"):
        box = spaces.Box(-1, 1, (1,))
        ObservationLayout(spaces.Dict({"a/b": box, "a": spaces.Dict({"b": box})}))


def test_observation_unlike_its_space_is_an_error_not_a_broadcast() -> None:
    with pytest.raises(BadDataError, match=r"has shape \(1,\).*says \(3,\)"):
        read(spaces.Box(-1, 1, (3,)), np.zeros(1))
    with pytest.raises(BadDataError, match="Observation obs is 4"):
        read(spaces.Discrete(4), 4)
    with pytest.raises(BadDataError, match="Observation obs is -1"):
        read(spaces.Discrete(4), -1)


def test_action_that_is_no_action_is_an_error() -> None:
    with pytest.raises(BadDataError, match="nan"):
        actions_for(spaces.Box(-1, 1, (2,)), [[0.0, float("nan")]], [])
    with pytest.raises(BadDataError, match="branches have"):
        actions_for(spaces.Discrete(3), [], [[3]])
