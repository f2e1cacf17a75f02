"""How a conversation begins: the trainer's own words, and whose it can understand."""

from __future__ import annotations

import re

from envs.bridge import limits
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import (
    UnityRLInitializationInputProto,
    UnityRLInitializationOutputProto,
)
from envs.bridge.protocol import COMMUNICATION_VERSION, PACKAGE_VERSION, STATUS_OK
from envs.errors import WrongProtocolError

CAPABILITIES = {
    "baseRLCapabilities": True,
    # Without these two Unity sends cameras of more than three channels as plain floats.
    "concatenatedPngObservations": True,
    "compressedChannelMapping": True,
    "hybridActions": True,
    "trainingAnalytics": False,  # Unity then neither sends nor expects any
    "variableLengthObservation": True,
    "multiAgentGroups": True,
}


def greeting(seed: int, num_areas: int) -> bytes:
    """Gives the answer to a simulator's first call."""
    words = UnityRLInitializationInputProto(
        seed=seed,
        communication_version=COMMUNICATION_VERSION,
        package_version=PACKAGE_VERSION,
        capabilities=CAPABILITIES,
        num_areas=num_areas,
    )
    return columns_pb2.Message(
        header={"status": STATUS_OK},
        unity_input=columns_pb2.Input(rl_initialization_input=words),
    ).SerializeToString()


def require_compatible(output: UnityRLInitializationOutputProto) -> int:
    """Gives the minor version of a simulator's protocol; WrongProtocolError for another major."""
    limits.require_short_words(output)
    found = output.communication_version
    parts = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?((?:a|b)\d+)?", found, re.ASCII)
    expected = COMMUNICATION_VERSION.split(".")
    if parts is None or parts[1] != expected[0]:
        raise WrongProtocolError(
            f"speaks protocol {found!r} (package {output.package_version!r}), this trainer speaks "
            f"{COMMUNICATION_VERSION}; the first numbers must agree. Install a "
            "com.unity.ml-agents package of release 1.0 or newer in Unity and build again."
        )
    return int(parts[2])
