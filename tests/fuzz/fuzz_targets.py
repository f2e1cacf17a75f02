"""What is fuzzed: every place where bytes from outside come in, as a function of bytes.

Each target either returns or raises one of the errors that its module documents; `Target.check`
lets those pass, everything else is a defect. The first bytes of an input choose the context, so
that an input is one string of bytes, as atheris wants it.

Letters: N agents of a message, L sum of branch sizes.
"""

from __future__ import annotations

import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.batch import Actions, Choices
from envs.bridge import images
from envs.bridge.assignments import Assignment
from envs.bridge.codec import AgentDecoder, AgentTable
from envs.bridge.http2 import RECEIVE_BYTES
from envs.bridge.http2_server import Cancelled, Http2Error, ServerConnection, Status
from envs.bridge.images import CompressedImage, ImageError
from envs.bridge.proto import columns_pb2
from envs.bridge.protocol import EXCHANGE
from envs.bridge.session import Phase, Session
from envs.bridge.side_channels import Inbox
from envs.bridge.simulator_message import SimulatorMessage
from envs.bridge.wire_spec import build_spec
from envs.errors import BadDataError, SimulatorError
from envs.lanes import LaneTable
from envs.spec import BehaviorSpec, sum_of_branches
from trainer.config.document import read_document
from trainer.config.errors import ConfigError
from trainer.config.load import resolve

CORPUS = Path(__file__).parent / "corpus"
ROOT = CORPUS.parents[2]


class DefectError(AssertionError):
    """An input did what no input may do, without an exception of its own."""


@dataclass(frozen=True)
class Target:
    """One way in."""

    name: str
    run: Callable[[bytes], object]
    documented: tuple[type[Exception], ...]

    def check(self, data: bytes, cpu_s: float) -> str:
        """Runs an input; gives "works" or the name of the documented error.

        Raises:
            DefectError: it takes more than `cpu_s` of processor time, or a result is wrong.
            Exception: any other that the input causes.
        """
        try:
            with at_most(cpu_s):
                self.run(data)
        except self.documented as error:
            if len(str(error)) > LONGEST_WORDS:
                raise DefectError(f"an error of {len(str(error))} characters") from error
            return type(error).__name__
        return "works"


LONGEST_WORDS = 6_000  # of an error; a simulator must not flood the log either


@contextmanager
def at_most(cpu_s: float) -> Iterator[None]:
    """Raises DefectError when the block takes more processor time; a stopped process does not."""

    def over(number: int, frame: FrameType | None) -> None:
        raise DefectError(f"more than {cpu_s:g} s of processor time")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


# ---- conversations ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conversation:
    """What one simulator of the corpus said."""

    name: str
    greeting: bytes
    first: bytes  # with brains and agents
    later: tuple[bytes, ...]

    @cached_property
    def introductions(self) -> tuple[bytes, ...]:
        """Gives the messages that show a behaviour."""
        return tuple(
            data
            for data in (self.first, *self.later)
            if columns_pb2.Message.FromString(
                data
            ).unity_output.rl_initialization_output.brain_parameters
        )


@cache
def conversations(folder: str = "messages") -> tuple[Conversation, ...]:
    """Gives all recorded conversations, by name; those of simulators that act are in `played`."""
    found: dict[str, dict[int, bytes]] = {}
    for path in sorted((CORPUS / folder).glob("*.bin")):
        name, _, number = path.stem.rpartition("-")
        found.setdefault(name, {})[int(number)] = path.read_bytes()
    return tuple(
        Conversation(
            name, messages[0], messages[2], tuple(messages[n] for n in sorted(messages) if n > 2)
        )
        for name, messages in found.items()
    )


class Peer:
    """A session, and the trainer's part in it."""

    def __init__(self) -> None:
        self._lanes = LaneTable()
        self.session = Session(0, self._lanes, max_bad_episodes=-1)
        self.specs: dict[str, BehaviorSpec] = {}
        self._asked: dict[str, int] = {}  # by behaviour id: how many of its agents wait

    def hear(self, data: bytes) -> None:
        """Takes one message and answers it, as Simulator.take and deliver do."""
        was_stepping = self.session.phase is Phase.STEPPING
        self.listen(data)
        if was_stepping:
            self.answer()

    def play(self, data: bytes, num_steps: int) -> None:
        """Assigns env_steps (0: answers instead), then takes the message that brings them."""
        if num_steps:
            self.session.assign(Assignment(num_steps, {}), b"")
        else:
            self.answer()
        self.listen(data)

    def listen(self, data: bytes) -> None:
        """Takes one message, and leaves the agents of an env_step waiting."""
        self._lanes.recycle()
        session = self.session
        ahead = session.decode_ahead(data)
        message = session.parse(data)
        if session.phase is Phase.GREETING:
            session.greet(message, 1, 1)
        elif session.phase is Phase.OPENING:
            session.reset(b"")
        else:
            heard = session.step(message, ahead)
            for env_step in (*heard.earlier, heard):
                self._note(env_step)

    def _note(self, heard: SimulatorMessage) -> None:
        self.specs |= heard.new_behaviors
        for behavior_id, choices in heard.choices.items():
            require_choices_like(self.specs[behavior_id], choices, self._asked.get(behavior_id, 0))
        self._asked = {behavior_id: len(asked) for behavior_id, asked in heard.decisions.items()}
        for behavior_id, rows in [*heard.decisions.items(), *heard.terminals.items()]:
            spec = self.specs[behavior_id]
            require_rows_like(spec, rows.obs, len(rows))
        for behavior_id, asked in heard.decisions.items():
            branches = sum_of_branches(self.specs[behavior_id])
            if branches and (asked.action_mask is None or asked.action_mask.shape[1] != branches):
                raise DefectError(f"a mask of the wrong length for {branches} actions")

    def answer(self) -> None:
        """Gives actions to all that wait."""
        actions = {}
        for behavior_id, num_rows in self._asked.items():
            action_spec = self.specs[behavior_id].action_spec
            actions[behavior_id] = Actions(
                np.zeros((num_rows, action_spec.continuous_size), np.float32),
                np.zeros((num_rows, action_spec.discrete_size), np.int32),
            )
        self.session.answer(actions, b"")


def require_choices_like(spec: BehaviorSpec, choices: Choices, num_rows: int) -> None:
    """Raises DefectError unless they can be written into the rows of the agents that asked."""
    sizes = spec.action_spec.continuous_size, spec.action_spec.discrete_size
    columns: list[NDArray[Any]] = [choices.continuous, choices.discrete, choices.log_probs]
    for column, size in zip(columns, (*sizes, sum(sizes)), strict=True):
        if column.shape != (num_rows, size) or not np.isfinite(column).all():
            raise DefectError(f"choices {column.shape} for {num_rows} agents, or not finite")
    branches = np.array(spec.action_spec.discrete_branches, np.int64)
    if not ((choices.discrete >= 0) & (choices.discrete < branches)).all():
        raise DefectError("a branch index that there is not")


def require_rows_like(spec: BehaviorSpec, obs: Sequence[NDArray[Any]], num_rows: int) -> None:
    """Raises DefectError unless the columns are what the spec says, and finite."""
    if len(obs) != len(spec.observation_specs):
        raise DefectError(f"{len(obs)} columns for {len(spec.observation_specs)} sensors")
    for column, sensor in zip(obs, spec.observation_specs, strict=True):
        if column.shape != (num_rows, *sensor.shape) or str(column.dtype) != sensor.dtype:
            raise DefectError(f"{sensor} came as {column.dtype} {column.shape}")
        if not np.isfinite(column).all():
            raise DefectError(f"{sensor} reached the trainer with NaN or infinite numbers")


def greeting(data: bytes) -> None:
    """A simulator's first message."""
    peer = Peer()
    peer.hear(data)
    chosen = conversations()[0]
    for message in (b"", chosen.first, *chosen.later):
        if peer.session.phase is Phase.OPENING:
            peer.session.reset(b"")
        if message:
            peer.hear(message)


def _chosen(data: bytes) -> Conversation:
    everyone = conversations()
    return everyone[data[0] % len(everyone)]


def _opened(conversation: Conversation) -> Peer:
    peer = Peer()
    peer.hear(conversation.greeting)
    peer.session.reset(b"")
    return peer


def first(data: bytes) -> None:
    """The message that shows what behaviours there are, then two ordinary ones."""
    if not data:
        return
    peer = _opened(_chosen(data))
    peer.hear(data[1:])
    for message in _chosen(data).later[:2]:
        peer.hear(message)


def later(data: bytes) -> None:
    """A message in the middle, before an ordinary one."""
    if not data:
        return
    conversation = _chosen(data)
    peer = _opened(conversation)
    for message in (*conversation.introductions, data[1:], conversation.later[-1]):
        peer.hear(message)


def played(data: bytes) -> None:
    """A message of assigned env_steps, up to 15 as the second byte says, before others."""
    if len(data) < 2:
        return
    everyone = conversations("played")
    conversation = everyone[data[0] % len(everyone)]
    peer = _opened(conversation)
    peer.listen(conversation.first)
    peer.play(data[2:], data[1] % 16)
    peer.play(conversation.later[-1], num_played(conversation.later[-1]))
    peer.answer()


def num_played(data: bytes) -> int:
    """Gives how many env_steps a recorded message holds."""
    return len(columns_pb2.Message.FromString(data).unity_output.played) + 1


# ---- parts of a message -------------------------------------------------------------------------


@cache
def lists() -> tuple[tuple[str, bytes, bytes, tuple[bytes, ...]], ...]:
    """Gives behaviour id, brain, and agent lists of each conversation's first behaviour."""
    found = []
    for conversation in conversations():
        output = columns_pb2.Message.FromString(conversation.first).unity_output
        behavior_id = min(output.rl_output.agent_infos)
        (brain,) = (
            b for b in output.rl_initialization_output.brain_parameters
            if b.brain_name == behavior_id
        )  # fmt: skip
        listed = []
        for data in (conversation.first, *conversation.later):
            infos = columns_pb2.Message.FromString(data).unity_output.rl_output.agent_infos
            if infos.get(behavior_id):
                listed.append(infos[behavior_id])
        found.append((behavior_id, brain.SerializeToString(), listed[0], tuple(listed)))
    return tuple(found)


def agents(data: bytes) -> None:
    """A list of agents: columns and ordinary parsing must agree about it."""
    if not data:
        return
    behavior_id, raw_brain, first_list, _ = lists()[data[0] % len(lists())]
    brain = columns_pb2.Message().unity_output.rl_initialization_output.brain_parameters.add()
    brain.MergeFromString(raw_brain)
    found = build_spec(brain, first_list)
    assert found is not None
    decoder = AgentDecoder(behavior_id, *found)
    decoder.decode(first_list)
    for _ in range(3):  # learns the layout, makes a plan for it, uses the plan
        table = decoder.decode(data[1:])
    plain = decoder._decode_ordinarily(data[1:])
    if (table is None) != (plain is None):
        raise DefectError("columns and ordinary parsing disagree about whether anybody is there")
    if table is not None and plain is not None:
        require_equal(table, plain)
        require_rows_like(
            found.spec, tuple(np.nan_to_num(column) for column in table.obs), len(table.reward)
        )
    decoder.decode(first_list)


def require_equal(table: AgentTable, plain: AgentTable) -> None:
    """Raises DefectError unless both tables say the same; None stands for nobody."""
    num_rows = len(plain.reward)
    for name in AgentTable._fields:
        left: Any = getattr(table, name)
        right: Any = getattr(plain, name)
        if name == "obs":
            same = all(
                np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
                for a, b in zip(left, right, strict=True)
            )
        elif name in ("done", "max_step_reached", "bad"):
            nobody = np.zeros(num_rows, np.bool_)
            same = np.array_equal(
                nobody if left is None else left, nobody if right is None else right
            )
        elif left is None or right is None:
            same = left is right
        else:
            same = np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
        if not same:
            raise DefectError(f"{name} is {left} by columns, {right} by ordinary parsing")


def side_channel(data: bytes) -> None:
    """The side channel bytes of a message."""
    inbox = Inbox()
    inbox.read(data)
    inbox.read(data)


def image(data: bytes) -> None:
    """A visual observation: C, H, W and the mapping's length in a byte each, mapping, files."""
    if len(data) < 4:
        return
    channels, height, width, num_mapped = (byte % 32 for byte in data[:4])
    mapping = np.frombuffer(data[4 : 4 + num_mapped], np.int8).tolist()
    out = np.full((channels + 1, height + 1, width + 1), 7, np.uint8)
    images.decode(CompressedImage(data[4 + num_mapped :], mapping, out))


def http2(data: bytes) -> None:
    """What a dialler sends, in pieces whose size the first byte chooses; calls are answered."""
    if not data:
        return
    piece = 1 + data[0] * 8
    connection = ServerConnection(EXCHANGE)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for start in range(1, len(data), piece):
            theirs.sendall(data[start : start + piece])
            for event in connection.receive(ours.recv(RECEIVE_BYTES)):
                if isinstance(event, Cancelled):
                    continue
                if len(event.message) % 3 == 0:
                    connection.refuse(event.stream, Status.FAILED_PRECONDITION, "No.")
                else:
                    connection.answer(event.stream, event.message)
            if len(connection.outgoing) > 100 * (len(data) + 1000):
                raise DefectError(f"{len(connection.outgoing)} bytes of answers to {len(data)}")


def yaml(data: bytes) -> None:
    """A settings file."""
    with tempfile.NamedTemporaryFile(dir=_fast_folder(), suffix=".yaml") as file:
        file.write(data)
        file.flush()
        resolve(read_document(Path(file.name)))


@cache
def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


TARGETS = {
    target.name: target
    for target in (
        Target("greeting", greeting, (SimulatorError,)),
        Target("first", first, (SimulatorError,)),
        Target("later", later, (SimulatorError,)),
        Target("played", played, (SimulatorError,)),
        Target("agents", agents, (BadDataError,)),
        Target("side_channel", side_channel, (BadDataError,)),
        Target("image", image, (ImageError,)),
        Target("http2", http2, (Http2Error,)),
        Target("yaml", yaml, (ConfigError,)),
    )
}


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    """Gives the inputs that a target begins with."""
    said = conversations()
    match name:
        case "greeting":
            found = [c.greeting for c in said]
        case "first":
            found = [bytes([i]) + c.first for i, c in enumerate(said)]
        case "later":
            found = [bytes([i]) + data for i, c in enumerate(said) for data in c.later]
        case "played":
            found = [
                bytes([i, num_played(data)]) + data
                for i, c in enumerate(conversations("played"))
                for data in c.later
            ]
        case "agents":
            found = [bytes([i]) + data for i, (*_, each) in enumerate(lists()) for data in each]
        case "image":
            found = [
                bytes([2, *size, 0]) + path.read_bytes()
                for path, size in zip(sorted((CORPUS / "images").glob("*")), _sizes(), strict=True)
            ]
        case "http2":
            found = [b"\xff" + path.read_bytes() for path in sorted((CORPUS / "http2").glob("*"))]
        case "yaml":
            files = [*(ROOT / "configs").rglob("*.yaml"), ROOT / "behaviors.yaml"]
            files += (ROOT / "tests/trainer/config").rglob("*.yaml")
            found = [path.read_bytes() for path in sorted(files)]
        case _:
            found = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    broke = sorted((CORPUS / "found" / name).glob("*.bin"))
    return (*dict.fromkeys(found), *(path.read_bytes() for path in broke))


def _sizes() -> list[tuple[int, int]]:
    sizes = []
    for path in sorted((CORPUS / "images").glob("*")):
        height, width = images.png_size(images.split(path.read_bytes())[0])
        sizes.append((height - 1, width - 1))
    return sizes
