"""A Gymnasium agent that acts for itself and spoils what it has played; its first life is good.

    python tests/fuzz/spoilt_player.py --lives FOLDER --env hybrid_env:HybridEnv --mlagents-port P

Every life takes the next number, and spoils its messages with it as seed, from the second on.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

from fuzz_mutations import spoil_played

from envs.bridge.assignments import Assignment
from envs.gym.__main__ import main
from envs.gym.agent import GymSimulator


def claimed(folder: Path) -> int:
    """Gives a number that no other life has."""
    for number in count():
        with suppress(FileExistsError):
            (folder / str(number)).mkdir()
            return number
    raise AssertionError("numbers do not end")


def spoil_messages(life: int) -> None:
    """Lets every agent of this process spoil the messages of what it has played."""
    play, choose = GymSimulator.play, random.Random(life)

    def play_and_spoil(self: GymSimulator, assignment: Assignment) -> bytes:
        return spoil_played(play(self, assignment), choose)

    GymSimulator.play = play_and_spoil  # type: ignore[method-assign]  # that is what it is for


if __name__ == "__main__":
    at = sys.argv.index("--lives")
    life = claimed(Path(sys.argv[at + 1]))
    del sys.argv[at : at + 2]
    print(f"life {life}", flush=True)
    if life:
        spoil_messages(life)
    sys.exit(main())
