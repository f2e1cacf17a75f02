"""A simulator whose second behaviour appears after some steps, as doors open in a scene."""

from __future__ import annotations

import sys

from envs.bridge.client import TrainerClosedError, TrainerConnection, step_message
from envs.testing.tiny import STEP_SIZE, TinyAgent, TinyEnv

LATE_STEP = 12


def play(connection: TrainerConnection) -> None:
    """Plays until the trainer closes, which raises TrainerClosedError."""
    connection.hello()
    early, late = (
        TinyAgent(TinyEnv(1, 0, STEP_SIZE, name), name) for name in ("Early?team=0", "Late?team=3")
    )
    request = connection.first_request()
    lists = {early.behavior_id: early.reset()}
    brains = [early.brain_parameters()]
    for step in range(sys.maxsize):
        data = {name: agents.SerializeToString() for name, agents in lists.items()}
        request = connection.request(step_message(data, brains=brains))
        brains = []
        lists = {early.behavior_id: early.step(request)}
        if step == LATE_STEP:
            brains = [late.brain_parameters()]
        if step >= LATE_STEP:
            is_first = step == LATE_STEP
            lists[late.behavior_id] = late.reset() if is_first else late.step(request)


if __name__ == "__main__":
    with TrainerConnection(int(sys.argv[sys.argv.index("--mlagents-port") + 1])) as connection:
        try:
            play(connection)
        except TrainerClosedError:
            sys.exit(0)
