"""A simulator whose second behaviour appears after some steps, as behind a door of a scene."""

from __future__ import annotations

import sys

from envs.bridge.client import TrainerClosedError, TrainerConnection, brain, step_message
from envs.bridge.proto.communicator_pb2 import AgentInfoProto, UnityRLOutputProto

EARLY, LATE = "Early?team=0", "Late?team=3"
LATE_STEP = 12


def agents() -> bytes:
    """Gives the only agent of a behaviour, which always waits for a decision."""
    info = AgentInfoProto(id=1)
    observation = info.observations.add(shape=[2], dimension_properties=[1], name="vector")
    observation.float_data.data.extend([1.0, 2.0])
    return UnityRLOutputProto.ListAgentInfoProto(value=[info]).SerializeToString()


def play(connection: TrainerConnection) -> None:
    """Plays until the trainer closes, which raises TrainerClosedError."""
    connection.hello()
    connection.first_request()
    for step in range(sys.maxsize):
        known = [EARLY, LATE] if step >= LATE_STEP else [EARLY]
        new = {0: [EARLY], LATE_STEP: [LATE]}.get(step, [])
        connection.request(
            step_message({name: agents() for name in known}, brains=[brain(n, 1, []) for n in new])
        )


if __name__ == "__main__":
    with TrainerConnection(int(sys.argv[sys.argv.index("--mlagents-port") + 1])) as connection:
        try:
            play(connection)
        except TrainerClosedError:
            sys.exit(0)
