"""Gymnasium spaces as ML-Agents sensors and actuators.

Letters: N agents in this batch, C continuous action size, K discrete branches.

An observation space becomes sensors, sorted by name as Unity sorts them; a Dict or Tuple becomes
several (`obs/achieved_goal`, `obs/desired_goal`, the latter being a goal signal). Most are flat
vectors of floats. A Box of rank 3 is an image, and one of bytes is an image from rank 2 on:

- Bytes are a uint8 Box with bounds 0 and 255; they travel as PNG, and the trainer sees value / 255.
  All other images travel and are seen as the floats that they are.
- The first or the last axis holds the channels, whichever is the shorter, the last if both are
  equal: (84, 84, 3), (3, 84, 84) and, for a stack of grey frames, (4, 84, 84).
- With rank 4 the first axis counts frames: their channels are put one after the other.

An action space becomes C continuous numbers in -1..1 and K branches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from envs.batch import Float32, Int32, Observations
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.spec import (
    CHANNELS_LAST,
    VECTOR,
    VISUAL,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)

# Some environments write the largest float where they mean "no bound".
AS_GOOD_AS_INFINITE = 1e30

SUPPORTED_OBSERVATIONS = (
    "Box of rank 0 to 3, where rank 3 is an image; Box of bytes 0 to 255 of rank 2 (a grey image), "
    "3 or 4 (a stack of images); Discrete, MultiDiscrete, MultiBinary; Dict and Tuple of these"
)
GOAL_KEY = "desired_goal"  # what Gymnasium's goal environments call it
SUPPORTED_ACTIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"

Write = Callable[[Any, Observations], None]


@dataclass(frozen=True, slots=True)
class Sensor:
    """One part of an observation, as a vector (n,) of floats or an image."""

    name: str
    shape: tuple[int, ...]  # (n,), or (H, W, channels)
    path: tuple[Any, ...]  # keys that lead from the whole observation to this part
    write: Write  # (part of the observation, destination of this shape)
    dtype: str = "float32"
    flat: tuple[int, ...] | None = None  # shape of a part that is only flattened; None: more

    def spec(self, *, has_channels_last: bool) -> ObservationSpec:
        """Describes the sensor; where an image's channels are to be depends on the trainer."""
        is_goal = bool(self.path) and self.path[-1] == GOAL_KEY
        shape = self.shape
        properties: tuple[DimensionProperty, ...] = VECTOR
        if len(shape) == 3:
            properties = CHANNELS_LAST
            if not has_channels_last:
                shape, properties = (shape[2], *shape[:2]), VISUAL
        kind = ObservationType.GOAL_SIGNAL if is_goal else ObservationType.DEFAULT
        return ObservationSpec(shape, properties, kind, self.name, self.dtype)


class ObservationLayout:
    """How an observation of one Gymnasium space is laid out in sensors."""

    def __init__(self, space: Space[Any]) -> None:
        sensors = sorted(_sensors(space, "obs", ()), key=lambda sensor: sensor.name)
        names = [sensor.name for sensor in sensors]
        for name, following in itertools.pairwise(names):
            if name == following:
                raise UnsupportedSpaceError(
                    f"Observation space {_short(space)} has two parts named {name!r}. "
                    f"Sensors are told apart by name: rename one of the keys."
                )
        self.sensors = tuple(sensors)

    def write(self, obs: Any, rows: Sequence[Observations]) -> None:
        """Writes one observation into `rows`, one destination per sensor, of the sensor's shape."""
        for sensor, row in zip(self.sensors, rows, strict=True):
            part = obs
            for key in sensor.path:
                part = part[key]
            sensor.write(part, row)

    def write_all(self, obs: Any, columns: Sequence[Observations], rows: Iterable[int]) -> None:
        """Writes observations of many environments, batched as Gymnasium's vector spaces are.

        Args:
            obs: of all environments, the leading axis of every part.
            columns: one destination per sensor, (environments, *shape) each.
            rows: which to write where a part needs more than being flattened.
        """
        for sensor, column in zip(self.sensors, columns, strict=True):
            part = obs
            for key in sensor.path:
                part = part[key]
            if sensor.flat is not None:
                array = np.asarray(part)
                if array.shape != (len(column), *sensor.flat):
                    raise BadDataError(
                        f"Observations {sensor.name} have shape {array.shape}, but the "
                        f"environments' observation space says {(len(column), *sensor.flat)}. "
                        f"Correct the space or the observations."
                    )
                column[...] = array.reshape(column.shape)
            else:
                for row in rows:
                    sensor.write(part[row], column[row])


def _sensors(space: Space[Any], name: str, path: tuple[Any, ...]) -> Iterator[Sensor]:
    match space:
        case spaces.Dict():
            for key, part in space.spaces.items():
                yield from _sensors(part, f"{name}/{key}", (*path, key))
        case spaces.Tuple():
            for index, part in enumerate(space.spaces):
                yield from _sensors(part, f"{name}/{index}", (*path, index))
        case spaces.Box():
            yield _box_sensor(space, name, path)
        case spaces.MultiBinary():
            yield _flat_sensor(tuple(space.shape), name, path)
        case spaces.Discrete():
            yield _one_hot_sensor(np.array([space.n]), np.array([space.start]), name, path)
        case spaces.MultiDiscrete():
            yield _one_hot_sensor(space.nvec.reshape(-1), space.start.reshape(-1), name, path)
        case _:
            raise UnsupportedSpaceError(
                f"Observation {name} is a {_short(space)}. Supported are {SUPPORTED_OBSERVATIONS}. "
                f"Wrap the environment so that this part becomes one of them."
            )


def _box_sensor(space: spaces.Box, name: str, path: tuple[Any, ...]) -> Sensor:
    rank = len(space.shape)
    is_bytes = bool(
        space.dtype == np.uint8 and (space.low == 0).all() and (space.high == 255).all()
    )
    if rank > 4 or (rank == 4 and not is_bytes):
        raise UnsupportedSpaceError(
            f"Observation {name} is a {_short(space)} of rank {rank}. Supported are "
            f"{SUPPORTED_OBSERVATIONS}. Use the environment's state observations, or flatten it "
            f"with gymnasium.wrappers.FlattenObservation."
        )
    if np.prod(space.shape) == 0:
        raise UnsupportedSpaceError(
            f"Observation {name} is a {_short(space)} without a single element. A sensor needs at "
            f"least one number: remove this part in a wrapper."
        )
    if rank > 2 or (rank == 2 and is_bytes):
        return _image_sensor(tuple(space.shape), name, path, "uint8" if is_bytes else "float32")
    return _flat_sensor(tuple(space.shape), name, path)


def _image_sensor(shape: tuple[int, ...], name: str, path: tuple[Any, ...], dtype: str) -> Sensor:
    frames = shape[:-3]  # (), or the number of frames
    frame = shape[-3:] if len(shape) > 2 else (*shape, 1)
    is_channels_first = frame[0] < frame[2]
    # Axes of (frames, *frame) in the order height, width, frames, channels.
    order = (2, 3, 0, 1) if is_channels_first else (1, 2, 0, 3)
    num_frames = math.prod(frames)
    height, width, channels = (frame[1], frame[2], frame[0]) if is_channels_first else frame
    image_shape = (height, width, num_frames * channels)

    def write(part: Any, row: Observations) -> None:
        array = np.asarray(part)
        if array.shape != shape or (dtype == "uint8" and array.dtype != np.uint8):
            raise BadDataError(
                f"Observation {name} has shape {array.shape} and type {array.dtype}, but the "
                f"environment's observation_space says {shape} and {dtype}. Correct the space or "
                f"the observation."
            )
        row[...] = array.reshape(num_frames, *frame).transpose(order).reshape(image_shape)

    return Sensor(name, image_shape, path, write, dtype)


def _flat_sensor(shape: tuple[int, ...], name: str, path: tuple[Any, ...]) -> Sensor:
    def write(part: Any, row: Observations) -> None:
        array = np.asarray(part)
        if array.shape != shape:
            raise BadDataError(
                f"Observation {name} has shape {array.shape}, but the environment's "
                f"observation_space says {shape}. Correct the space or the observation."
            )
        row[...] = array.reshape(-1)

    return Sensor(name, (math.prod(shape),), path, write, flat=shape)


def _one_hot_sensor(
    sizes: NDArray[np.integer[Any]],
    starts: NDArray[np.integer[Any]],
    name: str,
    path: tuple[Any, ...],
) -> Sensor:
    offsets = np.cumsum(sizes) - sizes

    def write(part: Any, row: Observations) -> None:
        index = np.asarray(part).reshape(-1) - starts
        if index.shape != sizes.shape or (index < 0).any() or (index >= sizes).any():
            raise BadDataError(
                f"Observation {name} is {_short(part)}, but the environment's observation_space "
                f"has {_short(sizes)} values from {_short(starts)}. Correct the space or the "
                f"observation."
            )
        row[...] = 0.0
        row[offsets + index] = 1.0

    return Sensor(name, (int(sizes.sum()),), path, write)


@dataclass(frozen=True, slots=True)
class Actuator:
    """One part of an action: how many numbers it takes and what it makes of them."""

    num_continuous: int
    branches: tuple[int, ...]
    decode: Callable[[Float32, Int32], Sequence[Any]]  # (N, C), (N, K) -> N actions


class ActionLayout:
    """How an action of one Gymnasium space is laid out in continuous numbers and branches."""

    def __init__(self, space: Space[Any]) -> None:
        self._actuator = _actuator(space, "action")
        self.num_continuous = self._actuator.num_continuous
        self.branches = self._actuator.branches
        self._branch_sizes = np.array(self.branches, np.int32)

    def decode(self, continuous: Float32, discrete: Int32) -> Sequence[Any]:
        """Turns the answers to N decisions into N actions of the space.

        Args:
            continuous: (N, C), in -1..1; what lies outside is cut where the space is bounded.
            discrete: (N, K), branch indices from 0.

        Raises:
            BadDataError: NaN or infinity, or an index outside its branch.
        """
        self._require_finite(continuous)
        if self.branches and ((discrete < 0) | (discrete >= self._branch_sizes)).any():
            raise BadDataError(
                f"The trainer sent the discrete action {_short(discrete)}; the branches have "
                f"{self.branches} values, counted from 0. Its policy belongs to another action "
                f"space."
            )
        return self._actuator.decode(continuous, discrete)

    def decode_own(self, continuous: Float32, discrete: Int32) -> Sequence[Any]:
        """Does the same for branch indices of this very process, which are inside their branches.

        Raises:
            BadDataError: NaN or infinity.
        """
        self._require_finite(continuous)
        return self._actuator.decode(continuous, discrete)

    def _require_finite(self, continuous: Float32) -> None:
        if continuous.size and not np.isfinite(continuous).all():
            raise BadDataError(
                f"The trainer sent the continuous action {_short(continuous)}; actions are finite "
                f"numbers in -1..1. The policy has diverged: lower learning_rate, or resume from "
                f"an earlier checkpoint."
            )


def _actuator(space: Space[Any], name: str) -> Actuator:
    match space:
        case spaces.Dict():
            keys = list(space.spaces)
            parts = [_actuator(part, f"{name}/{key}") for key, part in space.spaces.items()]
            return _joined(parts, lambda values: dict(zip(keys, values, strict=True)))
        case spaces.Tuple():
            parts = [_actuator(part, f"{name}/{i}") for i, part in enumerate(space.spaces)]
            return _joined(parts, lambda values: values)
        case spaces.Box():
            return _box_actuator(space, name)
        case spaces.Discrete():
            # np.int64 scalars, as Discrete.sample gives them.
            start = np.asarray(space.start, space.dtype)
            return Actuator(
                0,
                (int(space.n),),
                lambda _, discrete: list(discrete[:, 0].astype(start.dtype) + start),
            )
        case spaces.MultiDiscrete():
            return _branched(space, space.nvec.reshape(-1), space.start)
        case spaces.MultiBinary():
            size = int(np.prod(space.shape))
            return _branched(space, np.full(size, 2), np.zeros(space.shape, space.dtype))
        case _:
            raise UnsupportedSpaceError(
                f"Action {name} is a {_short(space)}. Supported are {SUPPORTED_ACTIONS}. "
                f"Wrap the environment so that it takes one of them."
            )


def _box_actuator(space: spaces.Box, name: str) -> Actuator:
    size = int(np.prod(space.shape))
    if size == 0:
        raise UnsupportedSpaceError(
            f"Action {name} is a {_short(space)} without a single element. "
            f"Remove it in a wrapper; an action needs at least one number."
        )
    low = space.low.reshape(-1).astype(np.float64)  # (C,)
    high = space.high.reshape(-1).astype(np.float64)
    low[low <= -AS_GOOD_AS_INFINITE] = -np.inf
    high[high >= AS_GOOD_AS_INFINITE] = np.inf
    bounded = np.isfinite(low) & np.isfinite(high)
    # What is open on a side stays unscaled: as if its bounds were -1 and 1.
    lower, upper = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    is_identity = bool((half == 1.0).all() and (middle == 0.0).all())
    is_integer = np.issubdtype(space.dtype, np.integer)
    shape, dtype = space.shape, space.dtype

    def decode(continuous: Float32, _: Int32) -> Sequence[Any]:
        scaled: NDArray[Any] = continuous
        if not is_identity:
            scaled = continuous.astype(np.float64) * half + middle
        scaled = np.minimum(np.maximum(scaled, low), high)
        if is_integer:
            scaled = np.rint(scaled)
        actions = scaled.astype(dtype)
        if not shape:  # rows would be scalars, and the space wants arrays
            return [np.asarray(action) for action in actions[:, 0]]
        return list(actions.reshape(-1, *shape))

    return Actuator(size, (), decode)


def _branched(
    space: spaces.MultiDiscrete | spaces.MultiBinary,
    sizes: NDArray[np.integer[Any]],
    start: NDArray[np.integer[Any]],
) -> Actuator:
    shape, dtype = space.shape, space.dtype

    def decode(_: Float32, discrete: Int32) -> Sequence[Any]:
        return list(discrete.reshape(-1, *shape).astype(dtype) + start)

    return Actuator(0, tuple(int(size) for size in sizes), decode)


def _joined(parts: Sequence[Actuator], build: Callable[[tuple[Any, ...]], Any]) -> Actuator:
    def decode(continuous: Float32, discrete: Int32) -> Sequence[Any]:
        columns = []
        first_number = first_branch = 0
        for part in parts:
            next_number = first_number + part.num_continuous
            next_branch = first_branch + len(part.branches)
            columns.append(
                part.decode(
                    continuous[:, first_number:next_number], discrete[:, first_branch:next_branch]
                )
            )
            first_number, first_branch = next_number, next_branch
        return [build(values) for values in zip(*columns, strict=True)]

    branches = tuple(size for part in parts for size in part.branches)
    return Actuator(sum(part.num_continuous for part in parts), branches, decode)


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
