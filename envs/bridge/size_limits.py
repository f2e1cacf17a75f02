"""How large what a simulator sends may be, and become.

No scene comes near these numbers; without them a few bytes could make the trainer ask for all the
memory of its machine: a PNG of 10 kB may hold gigabytes of pixels, and agents without an action
mask get one. They are looked at where a behaviour is met, and on totals of a message.
How many behaviours, sensors and actions there may be is in limits.py, how long a message may be in
http2_server.py.

Letters: N agents of a list, C channels, H height, W width, L sum of branch sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from envs.bridge.proto.communicator_pb2 import BrainParametersProto
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.spec import ObservationSpec

LARGEST_BRAIN = 1 << 20  # bytes of a behaviour's words about its actions
MOST_PIXELS = 1 << 24  # H x W of an image that comes as PNG; 4096 x 4096
MOST_CHANNELS = 1024  # of such an image
LARGEST_IMAGES = 1 << 29  # bytes of all images of a list; 512 MiB
LARGEST_MASKS = 1 << 26  # bytes of all action masks of a list; 64 MiB

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


def too_many_rows(behavior_id: str, num_rows: int, most: int) -> BadDataError:
    """Says that a list has more agents than `most_rows` allows."""
    return BadDataError(
        f"behaviour {behavior_id!r}: {num_rows} agents found in one message, at most {most} "
        f"expected of this behaviour, as images may take {LARGEST_IMAGES} bytes and action masks "
        f"{LARGEST_MASKS}. Spread the agents over more simulators, or give them smaller cameras."
    )
