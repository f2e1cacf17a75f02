"""How much one simulator may send and be: what goes beyond has a message, and costs it alone.

No scene comes near these numbers. Without them a few bytes could make the trainer ask for all the
memory of its machine: every behaviour is a network of its own, a PNG of 10 kB may hold gigabytes of
pixels, and agents without an action mask get one. They are looked at where a behaviour is met, and
on totals of a message. How many fields a message may have is in outline.py.

Letters: N agents of a list, C channels, H height, W width, L sum of branch sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from envs.bridge.proto.communicator_pb2 import (
    BrainParametersProto,
    UnityRLInitializationOutputProto,
)
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.folder_names import objection_to_behavior_id
from envs.spec import ActionSpec, BehaviorSpec, ObservationSpec

# 100 agents with a camera of 256 x 256 x 3 floats send 79 MB, and 158 MB when all end at once.
LARGEST_MESSAGE_BYTES = 192 << 20
# An eighth of it is left for side channels when env_steps are assigned.
LARGEST_ASSIGNED_BYTES = LARGEST_MESSAGE_BYTES // 8 * 7
MOST_STEPS = 10_000  # of one assignment
MOST_DIMENSIONS = 16  # of an observation; those that are supported have up to 3
LARGEST_BRAIN = 1 << 20  # bytes of a behaviour's words about its actions
MOST_PIXELS = 1 << 24  # H x W of an image that comes as PNG; 4096 x 4096
MOST_CHANNELS = 1024  # of such an image
LARGEST_IMAGES = 1 << 29  # bytes of all images of a list; 512 MiB
LARGEST_MASKS = 1 << 26  # bytes of all action masks of a list; 64 MiB

# What `largest_row_bytes` counts beside numbers and pixels.
AGENT_BYTES, SENSOR_BYTES, STEP_BYTES, FLOAT_BYTES = 48, 48, 512, 4
PNG_BYTES, PNG_OVERHEAD = 256, 500  # of a file: its frame, and one byte of so many for its chunks

MOST_BEHAVIORS = 256  # ids, teams counted apart
LONGEST_NAME = 256  # characters: sensors, versions
LONGEST_STATISTIC = 1024  # characters of its key
MOST_STATISTICS = 10_000  # keys of one simulator
MOST_UNKNOWN_CHANNELS = 32  # of which each gets a warning
MOST_SENSORS = 1024
MOST_NUMBERS = 1 << 21  # of all sensors that are no images, per agent
MOST_CONTINUOUS = 1 << 16
MOST_BRANCHES = 1 << 12
MOST_CHOICES = 1 << 18  # of all branches together

LONGEST_SHOWN = 80  # characters, or numbers of a list, in a message


def shown(text: str) -> str:
    """Gives a text of a simulator in quotes, shortened when long."""
    return repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}..."


def shown_numbers(numbers: Sequence[int], brackets: str = "()") -> str:
    """Gives numbers of a simulator as a tuple or a list, shortened when many."""
    words = ", ".join(map(str, numbers[:LONGEST_SHOWN]))
    if len(numbers) > LONGEST_SHOWN:
        words += f", ... {len(numbers)} in all"
    elif len(numbers) == 1 and brackets == "()":
        words += ","
    return f"{brackets[0]}{words}{brackets[1]}"


def dimensions(where: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Gives the shape of an observation, or its properties; BadDataError when there are many."""
    if len(sizes) > MOST_DIMENSIONS:
        raise BadDataError(
            f"{where}: an observation of {len(sizes)} dimensions found, at most "
            f"{MOST_DIMENSIONS} expected. The simulator does not follow the protocol."
        )
    return tuple(sizes)


# ---- what a simulator is -------------------------------------------------------------------------


def require_short_words(output: UnityRLInitializationOutputProto) -> None:
    """Raises BadDataError when a simulator introduces itself with words without end."""
    for what, text in (
        ("name", output.name),
        ("package version", output.package_version),
        ("protocol version", output.communication_version),
    ):
        if len(text) > LONGEST_NAME:
            raise BadDataError(
                f"its {what} has {len(text)} characters, at most {LONGEST_NAME} are expected; it "
                f"begins with {text[:40]!r}. Is this a simulator?"
            )


def require_usable_brains(
    brains: Sequence[BrainParametersProto], known: Mapping[str, object]
) -> None:
    """Raises BadDataError for behaviours that cannot be stored, or are too many.

    Args:
        brains: that a message announces.
        known: those announced before, by id.
    """
    for brain in brains:
        behavior_id = brain.brain_name
        objection = objection_to_behavior_id(behavior_id)
        if objection is not None:
            raise BadDataError(
                f"behaviour {shown(behavior_id)} cannot be used: {objection}. Give it another "
                "Behavior Name in Unity (Behavior Parameters), or --behavior of envs.gym."
            )
    num_behaviors = len(known) + len({b.brain_name for b in brains if b.brain_name not in known})
    if num_behaviors > MOST_BEHAVIORS:
        raise BadDataError(
            f"it announces {num_behaviors} behaviours, at most {MOST_BEHAVIORS} are expected: each "
            "is a network of its own. Agents that shall learn the same share a Behavior Name."
        )


def behavior_ids(lists: Mapping[str, object]) -> list[str]:
    """Gives the ids of something of one env_step, in order; protobuf's own is random.

    Raises:
        BadDataError: there are more behaviours than a simulator may have.
    """
    if len(lists) > MOST_BEHAVIORS:
        raise BadDataError(
            f"agents or choices of {len(lists)} behaviours found in one env_step, at most "
            f"{MOST_BEHAVIORS} expected. The simulator does not follow the protocol."
        )
    return sorted(lists) if len(lists) > 1 else [*lists]


def require_usable_spec(behavior_id: str, spec: BehaviorSpec) -> None:
    """Raises UnsupportedSpaceError when no network for a behaviour would fit into a machine."""
    sensors, actions = spec.observation_specs, spec.action_spec
    branches = actions.discrete_branches
    numbers = sum(math.prod(sensor.shape) for sensor in sensors if len(sensor.shape) < 3)
    longest = max((len(sensor.name) for sensor in sensors), default=0)
    for what, found, most in (
        ("sensors", len(sensors), MOST_SENSORS),
        ("characters in a sensor's name", longest, LONGEST_NAME),
        ("numbers in vectors and variable-length observations", numbers, MOST_NUMBERS),
        ("continuous actions", actions.continuous_size, MOST_CONTINUOUS),
        ("discrete branches", len(branches), MOST_BRANCHES),
        ("choices in all branches", sum(branches), MOST_CHOICES),
    ):
        if found > most:
            raise UnsupportedSpaceError(
                f"behaviour {behavior_id!r} has {found} {what}, at most {most} are supported. Make "
                "its observations or actions smaller."
            )
    if actions.continuous_size < 0 or min(branches, default=1) < 1:
        raise UnsupportedSpaceError(
            f"behaviour {behavior_id!r} has {actions.continuous_size} continuous actions and "
            f"branches of sizes {branches[:8]}; expected none or more, of at least 1. The "
            "simulator does not follow the protocol."
        )


# ---- how large a message is ----------------------------------------------------------------------


def copy_of_brain(brain: BrainParametersProto) -> BrainParametersProto:
    """Copies a behaviour's words about its actions; BadDataError when they are too many.

    The original would keep its whole message, agents and all, in memory.
    """
    if brain.ByteSize() > LARGEST_BRAIN:
        raise BadDataError(
            f"brain parameters of {brain.ByteSize()} bytes found for behaviour "
            f"{shown(brain.brain_name)}, at most {LARGEST_BRAIN} expected. Does a list of action "
            "descriptions grow?"
        )
    copy = BrainParametersProto()
    copy.CopyFrom(brain)
    return copy


def require_usable_image(where: str, sensor: ObservationSpec) -> None:
    """Raises UnsupportedSpaceError for images that come as PNG and hold too many pixels."""
    channels, height, width = sensor.shape
    if channels > MOST_CHANNELS or height * width > MOST_PIXELS:
        raise UnsupportedSpaceError(
            f"{where}: images of {height} x {width} pixels (height x width) with {channels} "
            f"channels found, at most {MOST_PIXELS} pixels and {MOST_CHANNELS} channels expected. "
            "Give the agents a smaller camera."
        )


def most_rows(sensors: Sequence[ObservationSpec], num_branches: int) -> int:
    """Gives how many agents one list may have, so that its columns stay within limits.

    Columns of floats are as large as the message itself; images and masks may be much larger.
    """
    image_bytes = sum(math.prod(sensor.shape) for sensor in sensors if sensor.dtype == "uint8")
    return min(LARGEST_IMAGES // max(1, image_bytes), LARGEST_MASKS // max(1, num_branches))


def largest_row_bytes(sensors: Sequence[ObservationSpec], action_spec: ActionSpec) -> int:
    """Gives how many bytes an agent may take in a message of our own simulators, choices included.

    Images that nothing compresses are a little longer as PNG.
    """
    num_branches = sum(action_spec.discrete_branches)
    num_chosen = action_spec.continuous_size + action_spec.discrete_size
    size: int = AGENT_BYTES + num_branches + 2 * FLOAT_BYTES * num_chosen
    for sensor in sensors:
        size += SENSOR_BYTES + len(sensor.name.encode()) + 10 * len(sensor.shape)
        if sensor.dtype == "uint8":
            channels, height, width = sensor.shape
            num_files = math.ceil(channels / 3)
            file_bytes = height * (3 * width + 1)
            size += num_files * (file_bytes + file_bytes // PNG_OVERHEAD + PNG_BYTES) + channels + 3
        else:
            size += FLOAT_BYTES * math.prod(sensor.shape)
    return size


def most_steps(row_bytes: int, num_rows: int, most_rows: int) -> int:
    """Gives how many env_steps may be assigned, so that the message stays within all limits.

    Args:
        row_bytes: from `largest_row_bytes`.
        num_rows: of an env_step at most.
        most_rows: of a message.
    """
    step_bytes = num_rows * row_bytes + STEP_BYTES
    return min(MOST_STEPS, most_rows // num_rows, LARGEST_ASSIGNED_BYTES // step_bytes)


def too_many_rows(behavior_id: str, num_rows: int, most: int) -> BadDataError:
    """Says that a list has more agents than `most_rows` allows."""
    return BadDataError(
        f"behaviour {behavior_id!r}: {num_rows} agents found in one message, at most {most} "
        f"expected of this behaviour, as images may take {LARGEST_IMAGES} bytes and action masks "
        f"{LARGEST_MASKS}. Spread the agents over more simulators, or give them smaller cameras."
    )
