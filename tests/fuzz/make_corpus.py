"""Writes the corpus: what real simulators really send, recorded at the trainer's door.

    python tests/fuzz/make_corpus.py            # needs .venv-referee, see tests/compliance

Our scripted and tiny simulators, a Gymnasium agent, and ML-Agents' own messages over grpcio's own
client dial a fleet. Kept are, per simulator, its first messages (0 the greeting, 1 the request for
the first reset, then agents), the first bytes of its connection, and of these messages the side
channels and the images. The YAML corpus is the repository's own settings files (fuzz_corpus.py).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np

from envs.batch import Actions
from envs.bridge.http2_server import Cancelled, Request, ServerConnection
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import UnityMessageProto
from envs.bridge.session import Session
from envs.fleet import Fleet, FleetPlan, LaunchPlan, SimulatorLoss
from envs.spec import BehaviorSpec, parse_behavior_id

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
COMPLIANCE = HERE.parent / "compliance"
REFEREE = HERE.parent.parent / ".venv-referee" / "bin" / "python"
SCRIPTED = [sys.executable, "-m", "envs.testing.scripted", "--at", "2", "--script"]
TINY = [sys.executable, "-m", "envs.testing.tiny", "--seed", "1", "--step-size", "0.5"]
SIMULATORS: dict[str, list[str]] = {
    "healthy": [*SCRIPTED, "healthy"],
    "episodes": [*SCRIPTED, "terminal-with-decision"],
    "unsynchronised": [*SCRIPTED, "unsynchronised"],
    "late": [*SCRIPTED, "late-behavior"],
    "cameras": [*SCRIPTED, "cameras"],
    "hybrid": [*TINY, *shlex.split("--actions 2,2 --vectors 2 --goal 1")],
    "entities": [*TINY, *shlex.split("--entities 1 --images 1 --image-shape 3,4,5")],
    "png": [*TINY, *shlex.split("--vectors 0 --images 2 --image-shape 4,5,6 --image-format png")],
    "gym": [sys.executable, "-m", "envs.gym", "--env", "CartPole-v1"],
    "mlagents": [str(REFEREE), str(COMPLIANCE / "referee_unity.py"), "--output", "x.json"],
    "mlagents-cameras": [str(REFEREE), str(COMPLIANCE / "referee_cameras.py"), "--output", "x.npz"],
}
NUM_MESSAGES = 6  # per simulator, after the greeting and the request for a reset
LONGEST_MESSAGE = 1_000  # longer ones only at the first two places
LONGEST_STREAM = 6_000


@contextmanager
def recorded() -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Records messages and received bytes while it is open."""
    messages: list[bytes] = []
    received: list[bytes] = []
    parse, receive = Session.parse, ServerConnection.receive

    def recording_parse(self: Session, data: bytes) -> columns_pb2.Message:
        messages.append(data)
        return parse(self, data)

    def recording_receive(self: ServerConnection, data: bytes) -> list[Request | Cancelled]:
        received.append(data)
        return receive(self, data)

    with (
        mock.patch.object(Session, "parse", recording_parse),
        mock.patch.object(ServerConnection, "receive", recording_receive),
    ):
        yield messages, received


def play(words: list[str], folder: Path) -> tuple[list[bytes], bytes]:
    """Serves a simulator for some messages; gives them, and what came over its connection."""
    command = tuple(str(folder / word) if word.startswith("x.") else word for word in words)
    specs: dict[str, BehaviorSpec] = {}
    launch = LaunchPlan(command=command, kind="gym")
    with recorded() as (messages, received):
        with Fleet(FleetPlan(launch=launch, logs_dir=folder, seed=1)) as fleet:
            for _ in range(NUM_MESSAGES):
                (item,) = fleet.recv(timeout_s=60.0)
                if isinstance(item, SimulatorLoss):
                    raise item.error
                for behavior_id, spec in item.new_behaviors.items():
                    specs[parse_behavior_id(behavior_id).name] = spec
                answers = {}
                for behavior_id, asked in item.decisions.items():
                    action_spec = specs[parse_behavior_id(behavior_id).name].action_spec
                    answers[behavior_id] = Actions(
                        np.full((len(asked), action_spec.continuous_size), 0.5, np.float32),
                        np.ones((len(asked), action_spec.discrete_size), np.int32),
                    )
                fleet.send(item.simulator, answers)
        return messages[: NUM_MESSAGES + 2], b"".join(received)[:LONGEST_STREAM]


def write(folder: str, name: str, data: bytes, seen: set[bytes]) -> None:
    """Writes one entry, unless the same bytes are there already."""
    if data and data not in seen:
        seen.add(data)
        path = CORPUS / folder / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main() -> None:
    """Plays all simulators."""
    for old in CORPUS.glob("*/*.bin"):
        if old.parent.name != "found":  # inputs that once broke something stay
            old.unlink()
    side_channels: set[bytes] = set()
    files: set[bytes] = set()
    for name, command in SIMULATORS.items():
        with TemporaryDirectory() as folder:
            messages, stream = play(command, Path(folder))
        print(f"{name}: {len(messages)} messages of {[len(data) for data in messages]} bytes")
        write("http2", name, stream, set())
        kept: set[bytes] = set()
        for number, data in enumerate(messages):
            if len(data) > LONGEST_MESSAGE and number > 3:
                continue
            write("messages", f"{name}-{number}", data, kept)
            output = UnityMessageProto.FromString(data).unity_output.rl_output
            write("side_channel", f"{name}-{number}", output.side_channel, side_channels)
            for infos in output.agentInfos.values():
                for observation in infos.value[0].observations if number == 2 else []:
                    label = f"{name}-{observation.name.replace(' ', '-')}"
                    write("images", label, observation.compressed_data, files)


if __name__ == "__main__":
    main()
