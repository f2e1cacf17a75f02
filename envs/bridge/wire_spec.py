"""What a behaviour observes, told from how its first agent's observations look on the wire.

Behind the bridge there are three kinds of sensors, whatever a simulator's version calls them:
vectors (n,), images (C, H, W), and variable-length observations (most entities, entity size).

Letters: C channels, H height, W width.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from google.protobuf.message import DecodeError

from envs.bridge import images, limits
from envs.bridge.images import ImageError
from envs.bridge.layout import IrregularError, record_starts
from envs.bridge.outline import AGENT_LIST, UNREADABLE, require_few_fields
from envs.bridge.proto import communicator_pb2
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.spec import (
    VARIABLE_LENGTH,
    VECTOR,
    VISUAL,
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)

SUPPORTED = (
    "vectors (n,) with the property none; images (channels, height, width) with none, "
    "translational, translational, or (height, width, channels) with translational, translational, "
    "none, as numbers or as PNG; and variable-length observations (entities, size) with variable, "
    "none. A property may also be unspecified, but for variable-length observations; each of these "
    "may be an ordinary observation or a goal signal"
)


class Layout(Enum):
    """How a sensor's numbers lie on the wire."""

    VECTOR = auto()
    VARIABLE_LENGTH = auto()
    CHANNELS_FIRST = auto()
    CHANNELS_LAST = auto()
    SOME_IMAGE = auto()  # the simulator does not say where the channels are


# By what ML-Agents' sensors write into dimension_properties; 0 = unspecified.
LAYOUTS = {
    (0,): Layout.VECTOR,
    (1,): Layout.VECTOR,
    (4, 1): Layout.VARIABLE_LENGTH,
    (1, 2, 2): Layout.CHANNELS_FIRST,
    (2, 2, 1): Layout.CHANNELS_LAST,
    (0, 0, 0): Layout.SOME_IMAGE,
}
PROPERTY_WORDS = {0: "unspecified", 1: "none", 2: "translational", 4: "variable"}


class WireSpec(NamedTuple):
    """A behaviour's spec, and what of it is otherwise on the wire."""

    spec: BehaviorSpec
    channels_last: frozenset[int]  # sensors whose images are (H, W, C) on the wire


def build_spec(
    brain: communicator_pb2.BrainParametersProto,
    agent_infos: bytes,
    *,
    has_dimension_properties: bool = True,
) -> WireSpec | None:
    """Gives what a behaviour observes and does; None while no agent of it has been seen.

    Args:
        brain: the behaviour's own words; they tell of actions only.
        agent_infos: the list of agents that came with them; its first one shows the observations.
        has_dimension_properties: whether the simulator's protocol knows them (1.5 and newer).

    Raises:
        BadDataError: unreadable, or of too many fields.
        UnsupportedSpaceError: a sensor of a kind that this trainer cannot read.
    """
    first = _first_record(agent_infos)
    require_few_fields(first, AGENT_LIST)
    try:
        agents = communicator_pb2.UnityRLOutputProto.ListAgentInfoProto.FromString(first)
    except DecodeError as error:
        raise BadDataError(f"behaviour {brain.brain_name!r}: {UNREADABLE}") from error
    if not agents.value:
        return None
    specs, channels_last = [], set()
    for index, observation in enumerate(agents.value[0].observations):
        name = observation.name or f"obs_{index}"
        where = f"behaviour {brain.brain_name!r}, sensor {limits.shown(name)}"
        layout = _layout(where, observation, has_dimension_properties)
        specs.append(_observation_spec(name, observation, layout))
        if specs[-1].dtype == "uint8":
            limits.require_usable_image(where, specs[-1])
        if layout is Layout.CHANNELS_LAST:
            channels_last.add(index)
    return WireSpec(BehaviorSpec(specs, _action_spec(brain)), frozenset(channels_last))


def _first_record(agent_infos: bytes) -> bytes:
    """Gives a list of the first agent alone, where it is an ordinary list: it may be a long one."""
    try:
        return agent_infos[: record_starts(agent_infos)[:2][-1]]
    except IrregularError:
        return agent_infos


def _layout(
    where: str, observation: communicator_pb2.ObservationProto, has_dimension_properties: bool
) -> Layout:
    """Finds out what a sensor is; never SOME_IMAGE."""
    shape = limits.dimensions(where, observation.shape)
    properties = limits.dimensions(where, observation.dimension_properties) or (0,) * len(shape)
    layout = LAYOUTS.get(properties)
    is_png = observation.HasField("compressed_data")
    is_image = len(shape) == 3
    types = {kind.value for kind in ObservationType}
    if (
        layout is None
        or len(properties) != len(shape)
        or min(shape) < 1
        or (is_png and not is_image)
        or observation.observation_type not in types
    ):
        few = properties[: limits.LONGEST_SHOWN]
        words = ", ".join(PROPERTY_WORDS.get(bits, str(bits)) for bits in few) or "none"
        kind = "PNG" if is_png else "numbers"
        raise UnsupportedSpaceError(
            f"{where}: an observation of shape {limits.shown_numbers(shape)} with the "
            f"dimension properties {words}, the type {observation.observation_type} and {kind} as "
            f"data found. Supported are {SUPPORTED}. Give the agents such a sensor instead."
        )
    if layout is not Layout.SOME_IMAGE:
        return layout
    # Whoever speaks an older protocol than the one that brought dimension properties is a package
    # from before 3.0, whose images are (H, W, C). Of the others ML-Agents 1.1 takes an image
    # without properties as (C, H, W), and so do we, unless it is a PNG whose size says otherwise.
    if not is_png:
        return Layout.CHANNELS_FIRST if has_dimension_properties else Layout.CHANNELS_LAST
    try:
        size = images.png_size(images.split(observation.compressed_data)[0])
    except ImageError as error:
        raise BadDataError(f"{where}: {error}.") from error
    fits = [
        candidate
        for candidate, found in (
            (Layout.CHANNELS_FIRST, shape[1:]),
            (Layout.CHANNELS_LAST, shape[:2]),
        )
        if found == size
    ]
    if not fits:
        raise BadDataError(
            f"{where}: a PNG of {size[0]} x {size[1]} pixels (height x width) found, which fits "
            f"its shape {shape} neither as (channels, height, width) nor as (height, width, "
            "channels). The sensor must write the shape of the image that it sends."
        )
    return fits[0] if has_dimension_properties else fits[-1]


def _observation_spec(
    name: str, observation: communicator_pb2.ObservationProto, layout: Layout
) -> ObservationSpec:
    shape = tuple(observation.shape)
    properties: tuple[DimensionProperty, ...] = VISUAL
    if layout is Layout.VECTOR:
        properties = VECTOR
    elif layout is Layout.VARIABLE_LENGTH:
        properties = VARIABLE_LENGTH
    elif layout is Layout.CHANNELS_LAST:
        shape = (shape[2], *shape[:2])
    return ObservationSpec(
        shape,
        properties,
        ObservationType(observation.observation_type),
        name,
        "uint8" if observation.HasField("compressed_data") else "float32",
    )


def _action_spec(brain: communicator_pb2.BrainParametersProto) -> ActionSpec:
    typed = brain.action_spec
    if typed.num_continuous_actions or typed.num_discrete_actions:
        return ActionSpec(typed.num_continuous_actions, tuple(typed.discrete_branch_sizes))
    sizes = tuple(brain.vector_action_size_deprecated)  # from a peer older than protocol 1.3
    if brain.vector_action_space_type_deprecated == communicator_pb2.continuous:
        return ActionSpec(sizes[0] if sizes else 0, ())
    return ActionSpec(0, sizes)
