"""How much one simulator may be: what goes beyond has a message, and costs that simulator alone.

Every behaviour is a network of its own, and its sizes come from the simulator: without limits a
few bytes would ask for more memory than there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from envs.bridge.proto.communicator_pb2 import (
    BrainParametersProto,
    UnityRLInitializationOutputProto,
)
from envs.errors import BadDataError, UnsupportedSpaceError
from envs.folder_names import objection_to_behavior_id
from envs.spec import BehaviorSpec

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
                f"behaviour {_shortened(behavior_id)} cannot be used: {objection}. Give it another "
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
    return sorted(lists)


def require_usable_spec(behavior_id: str, spec: BehaviorSpec) -> None:
    """Raises UnsupportedSpaceError when no network for a behaviour would fit into a machine."""
    sensors, actions = spec.observation_specs, spec.action_spec
    branches = actions.discrete_branches
    numbers = sum(prod(sensor.shape) for sensor in sensors if len(sensor.shape) < 3)
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


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."
