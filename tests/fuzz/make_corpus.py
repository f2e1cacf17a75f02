"""Writes the corpus: what real simulators really send, recorded at the trainer's door.

    python tests/fuzz/make_corpus.py            # needs .venv-referee, see tests/compliance
    python tests/fuzz/make_corpus.py acting-hybrid    # one simulator's part of it anew

Our scripted and tiny simulators, a Gymnasium agent, and ML-Agents' own messages over grpcio's own
client dial a fleet. Kept are, per simulator, its first messages (0 the greeting, 1 the request for
the first reset, then agents), the first bytes of its connection, and of these messages the side
channels and the images. Agents that act for themselves are in `played`: their messages after the
first hold several env_steps each. The YAML corpus is the repository's own settings files.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch

from envs.batch import Actions
from envs.bridge.http2_server import Cancelled, Request, ServerConnection
from envs.bridge.proto import columns_pb2
from envs.bridge.proto.communicator_pb2 import UnityMessageProto
from envs.bridge.session import Session
from envs.fleet import Assignment, Fleet, FleetPlan, LaunchPlan, SimulatorLoss, SimulatorMessage
from envs.spec import BehaviorSpec, parse_behavior_id
from trainer.compiled_policy import graph_of
from trainer.config.settings import NetworkSettings
from trainer.nn.actor_critic import ActorCritic

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
GYM = [sys.executable, "-m", "envs.gym", "--num-areas", "2", "--env"]
ACTING: dict[str, list[str]] = {  # they play by themselves; their modules lie in tests/
    "acting-hybrid": [*GYM, "hybrid_env:HybridEnv"],
    "acting-cameras": [*GYM, "camera_env:CameraEnv"],
    "acting-masked": [*GYM, "masked_env:MaskedEnv"],
}
MODULES = (".", "tests/compliance", "tests/harness", "tests/envs/gym")
NUM_STEPS = (3, 1, 4)  # of the assignments, one after the other
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


def next_item(fleet: Fleet) -> SimulatorMessage:
    """Waits for the next message of the only simulator."""
    (item,) = fleet.recv(timeout_s=60.0)
    if isinstance(item, SimulatorLoss):
        raise item.error
    return item


def play_assigned(words: list[str], folder: Path) -> list[bytes]:
    """Lets a simulator that acts make some env_steps by itself; gives its messages."""
    torch.manual_seed(1)
    launch = LaunchPlan(command=tuple(words), kind="gym")
    with recorded() as (messages, _):
        with Fleet(FleetPlan(launch=launch, logs_dir=folder, seed=1)) as fleet:
            ((behavior_id, spec),) = next_item(fleet).new_behaviors.items()
            network = NetworkSettings(hidden_units=8, vis_encode_type="fully_connected")
            policy = ActorCritic("Crab", spec, network, 1, False)
            for num_steps in NUM_STEPS:
                fleet.assign(0, Assignment(num_steps, {behavior_id: graph_of(policy)}))
                next_item(fleet)
        return messages[: len(NUM_STEPS) + 3]


def play(words: list[str], folder: Path) -> tuple[list[bytes], bytes]:
    """Serves a simulator for some messages; gives them, and what came over its connection."""
    command = tuple(str(folder / word) if word.startswith("x.") else word for word in words)
    specs: dict[str, BehaviorSpec] = {}
    launch = LaunchPlan(command=command, kind="gym")
    with recorded() as (messages, received):
        with Fleet(FleetPlan(launch=launch, logs_dir=folder, seed=1)) as fleet:
            for _ in range(NUM_MESSAGES):
                item = next_item(fleet)
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


def main(names: Sequence[str]) -> None:
    """Plays all simulators, or those that are named."""
    unknown = set(names) - SIMULATORS.keys() - ACTING.keys()
    if unknown:
        sys.exit(f"unknown: {sorted(unknown)}; expected some of {[*SIMULATORS, *ACTING]}")
    if not names:
        for old in CORPUS.glob("*/*.bin"):
            if old.parent.name != "found":  # inputs that once broke something stay
                old.unlink()
    side_channels: set[bytes] = set()
    files: set[bytes] = set()
    for name in [name for name in SIMULATORS if name in names or not names]:
        command = SIMULATORS[name]
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
    os.environ["PYTHONPATH"] = os.pathsep.join(str(HERE.parents[1] / at) for at in MODULES)
    for name in [name for name in ACTING if name in names or not names]:
        with TemporaryDirectory() as folder:
            messages = play_assigned(ACTING[name], Path(folder))
        print(f"{name}: {len(messages)} messages of {[len(data) for data in messages]} bytes")
        for number, data in enumerate(messages):
            write("played", f"{name}-{number}", data, set())


if __name__ == "__main__":
    main(sys.argv[1:])
