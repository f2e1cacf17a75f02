"""`manifest.json`: which checkpoints of a behaviour there are, and which of them stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from trainer.atomic_file import atomic_write
from trainer.config.errors import UserError

FORMAT = 2
MANIFEST = "manifest.json"
NEWEST = "checkpoint.pt"


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the text says which one can."""


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file of a checkpoint as the manifest knows it."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """One checkpoint of the manifest."""

    folder: Path
    step: int
    created: float  # seconds since 1970
    reward: float | None  # mean return of recent episodes; None: no episode was completed
    is_final: bool
    files: tuple[CheckpointFile, ...]  # the .pt first
    score: float | None = None  # by which the best is chosen; None: too few episodes to say
    is_milestone: bool = False
    evaluation_episodes: int = 0  # whose mean return the score is; 0: those of training, see there

    @property
    def path(self) -> Path:
        """The state's file, `<Behaviour>-<step>.pt`."""
        return self.folder / self.files[0].name

    @property
    def onnx_path(self) -> Path | None:
        """The exported policy beside it, if there is one."""
        names = [file.name for file in self.files if file.name.endswith(".onnx")]
        return self.folder / names[0] if names else None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says."""

    checkpoints: tuple[SavedCheckpoint, ...] = ()  # in the order they were saved
    pending: CheckpointFile | None = None  # the .pt of a save that has begun and not ended
    deleting: tuple[str, ...] = ()

    def file_names(self) -> set[str]:
        """Gives the names of all checkpoints' files."""
        return {file.name for saved in self.checkpoints for file in saved.files}

    @property
    def best(self) -> SavedCheckpoint | None:
        """The checkpoint with the highest score, of equals the later; it always stays.

        Only scores of the newest kind are compared: a run may be resumed with another one.
        """
        scored = [saved for saved in self.checkpoints if saved.score is not None]
        scored = [s for s in scored if s.evaluation_episodes == scored[-1].evaluation_episodes]
        return max(reversed(scored), key=lambda saved: saved.score or 0.0, default=None)

    def retained(self, keep: int, held: Set[int] = frozenset()) -> Manifest:
        """Gives what is left when only the newest `keep` stay, 0 or less for all.

        The best, the milestones and the steps in `held` stay beside those; the newest and the last
        final one are among them, however old.
        """
        best = self.best
        ordinary = [
            saved
            for saved in self.checkpoints
            if saved != best and not saved.is_milestone and saved.step not in held
        ]
        finals = [saved for saved in self.checkpoints if saved.is_final]
        excess = max(len(ordinary) - keep, 0) if keep > 0 else 0
        always = (*finals[-1:], *self.checkpoints[-1:])
        gone = [saved for saved in ordinary if saved not in always][:excess]
        return Manifest(tuple(saved for saved in self.checkpoints if saved not in gone))

    def write(self, path: Path) -> None:
        """Replaces the file in one piece."""
        document = {
            "format": FORMAT,
            "checkpoints": [
                {
                    "step": saved.step,
                    "created": saved.created,
                    "reward": saved.reward,
                    "is_final": saved.is_final,
                    "score": saved.score,
                    "is_milestone": saved.is_milestone,
                    "evaluation_episodes": saved.evaluation_episodes,
                    "files": [asdict(file) for file in saved.files],
                }
                for saved in self.checkpoints
            ],
            "best": None if self.best is None else self.best.step,
            "pending": asdict(self.pending) if self.pending else None,
            "deleting": list(self.deleting),
        }
        atomic_write(path, json.dumps(document, indent=2).encode())


def parsed(path: Path) -> Manifest:
    """Reads the file.

    Raises:
        CheckpointError: it is damaged, or of another version.
    """
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, expected {FORMAT}")
        checkpoints = tuple(
            SavedCheckpoint(
                path.parent,
                entry["step"],
                entry["created"],
                entry["reward"],
                entry["is_final"],
                tuple(CheckpointFile(**file) for file in entry["files"]),
                entry.get("score"),  # a manifest of an earlier version has none
                entry.get("is_milestone", False),
                entry.get("evaluation_episodes", 0),
            )
            for entry in document["checkpoints"]
        )
        pending = CheckpointFile(**document["pending"]) if document["pending"] else None
        deleting = tuple(document["deleting"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({first_line(error)}). Expected the list of checkpoints that "
            f"ppo-train writes: restore the file from a copy, or start a new run from the newest "
            f"weights with init_path: {path.parent / NEWEST}."
        ) from error
    if pending is not None:
        checkpoints = tuple(_settled(saved, pending) for saved in checkpoints)
    return Manifest(checkpoints, pending, deleting)


def _settled(saved: SavedCheckpoint, pending: CheckpointFile) -> SavedCheckpoint:
    """Decides whether a killed save that was replacing `saved` got as far as its .pt file."""
    if saved.files[0].name != pending.name or not saved.path.is_file():
        return saved
    if described(pending.name, saved.path.read_bytes()) != pending:
        return saved
    return replace(saved, files=(pending, *saved.files[1:]))


def described(name: str, content: bytes) -> CheckpointFile:
    """Gives what the manifest says of a file."""
    return CheckpointFile(name, len(content), hashlib.sha256(content).hexdigest())


def first_line(error: Exception) -> str:
    """Says in a few words what an exception is about."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
