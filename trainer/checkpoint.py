"""The checkpoints of one behaviour: written so that a crash at any moment leaves a complete one.

A folder holds, for the newest `keep` checkpoints, `<Behaviour>-<step>.pt` and what was exported
beside it; `checkpoint.pt`, another name of the newest; `best.pt` and `best.onnx`, other names of
the best; and `manifest.json`, which alone decides what a checkpoint is. One save goes:

1. manifest: the same checkpoints as before, plus what is about to be written (`pending`)
2. `<Behaviour>-<step>.pt`, `checkpoint.pt`, the export
3. manifest: with the new checkpoint, without those beyond `keep` (`deleting`)
4. deletes the files of those, and names the best

Every file is replaced in one piece (`trainer.atomic_file`), so between any two steps the manifest
names checkpoints that are there. What a killed save has left is deleted by the next one.
"""

from __future__ import annotations

import filecmp
import hashlib
import io
import re
import time
import zipfile
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.atomic_file import atomic_link, atomic_write, remove_partial_files, require_space
from trainer.checkpoint_manifest import (
    FORMAT,
    MANIFEST,
    NEWEST,
    CheckpointError,
    CheckpointFile,
    Manifest,
    SavedCheckpoint,
    described,
    first_line,
    parsed,
)

__all__ = [
    "DIVERGED",
    "MANIFEST",
    "NEWEST",
    "CheckpointError",
    "CheckpointStore",
    "SavedCheckpoint",
]

DIVERGED = "diverged-"  # begins the name of a rollout that broke the weights
MARK = "ppo_train_checkpoint"  # key of our .pt files; its value is FORMAT
BEST, BEST_ONNX = "best.pt", "best.onnx"

State = dict[str, Any]
Export = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """Saves and loads the checkpoints in `<results>/<run>/<Behaviour>/`; one writer at a time.

    Attributes:
        folder: its name is the behaviour's; made when first saved to.
        keep: how many checkpoints to keep, 0 or less for all. The newest and the last final one
            always stay; the best and the milestones stay beside those.
    """

    folder: Path
    keep: int

    @property
    def checkpoints(self) -> tuple[SavedCheckpoint, ...]:
        """What can be loaded, in the order it was saved; empty in a new folder."""
        return self._read_manifest().checkpoints

    @property
    def best(self) -> SavedCheckpoint | None:
        """The checkpoint with the highest score."""
        return self._read_manifest().best

    def save(
        self,
        state: Mapping[str, object],
        step: int,
        reward: float | None,
        onnx: Export | None = None,
        *,
        is_final: bool = False,
        score: float | None = None,
        is_milestone: bool = False,
        prune: bool = True,
        held: Set[int] = frozenset(),
    ) -> SavedCheckpoint:
        """Writes a checkpoint, then deletes those beyond `keep`. Slow: waits for the disk.

        If the export raises, the state is saved all the same, and then the error goes on.

        Args:
            state: tensors, numbers, strings, booleans, None, and dicts, lists and tuples of them.
            step: part of the file name; saving a step again replaces it.
            reward: mean return of recent episodes, for people to choose by.
            onnx: writes the path it is given, `<Behaviour>-<step>.onnx`; every file whose name
                begins with that belongs to the checkpoint.
            is_final: this is how the run ended.
            score: the checkpoint with the highest one is the best; None: unknown.
            is_milestone: it is kept for good.
            prune: False: nothing is deleted before `prune` is called.
            held: steps that stay too.

        Raises:
            TypeError: `state` holds something else; the text names the key.
            StorageError: the disk has not enough room; nothing was written.
        """
        name = f"{self.folder.name}-{step}"
        content = _to_bytes(state, step)
        file = described(f"{name}.pt", content)
        self.folder.mkdir(parents=True, exist_ok=True)
        # The export is smaller than the state: it has no critic and no optimiser.
        require_space(self.folder, 2 * len(content), f"the checkpoint of step {step}")
        before = self._without_leftovers(self._read_manifest())
        self._write_manifest(replace(before, pending=file))

        atomic_write(self.folder / file.name, content)
        atomic_link(self.folder / file.name, self.folder / NEWEST)
        export_error, exported = None, []
        if onnx is not None:
            try:
                onnx(self.folder / f"{name}.onnx")
                exported = self._files_beginning_with(f"{name}.onnx")
            except Exception as error:  # raised below, once the state is safe
                export_error = error
        files = (file, *exported)
        num_evaluated = 0
        if score is None:  # what was learnt has not changed, and may have been rated already
            for old in before.checkpoints:
                if old.step == step:
                    score, num_evaluated = old.score, old.evaluation_episodes
        saved = SavedCheckpoint(
            self.folder,
            step,
            time.time(),
            reward,
            is_final,
            files,
            score,
            is_milestone,
            num_evaluated,
        )
        others = tuple(other for other in before.checkpoints if other.step != saved.step)
        after = Manifest((*others, saved))
        self._replace(before, after.retained(self.keep, held) if prune else after)
        if export_error is not None:
            raise export_error
        return saved

    def prune(self, held: Set[int] = frozenset()) -> None:
        """Deletes the checkpoints beyond `keep`; see `save`."""
        before = self._read_manifest()
        after = before.retained(self.keep, held)
        if after != before:
            self._replace(before, after)

    def rate(
        self, step: int, score: float, num_episodes: int, held: Set[int] = frozenset()
    ) -> bool:
        """Gives a checkpoint its score, then deletes those beyond `keep`; says if it is the best.

        Args:
            step: of the checkpoint; when it is no more, False comes back.
            score: mean return of `num_episodes` episodes of its own.
            num_episodes: compared with scores of as many only.
            held: steps that stay too.
        """
        before = self._without_leftovers(self._read_manifest())
        rated = [
            replace(saved, score=score, evaluation_episodes=num_episodes)
            if saved.step == step
            else saved
            for saved in before.checkpoints
        ]
        after = Manifest(tuple(rated)).retained(self.keep, held)
        self._replace(before, after)
        return after.best is not None and after.best.step == step

    def load(self, step: int | None = None) -> tuple[State, SavedCheckpoint]:
        """Reads a checkpoint whose checksum is right.

        Args:
            step: which one, or None for the newest.

        Returns:
            Its state, tensors on the CPU, and what the manifest says of it.

        Raises:
            CheckpointError: it is missing or damaged; the text names the newest complete one.
        """
        checkpoints = self.checkpoints
        if not checkpoints:
            raise CheckpointError(self._nothing_here())
        found = [i for i, saved in enumerate(checkpoints) if step is None or saved.step == step]
        if not found:
            raise CheckpointError(
                f"Checkpoint of step {step} is not in {self.folder / MANIFEST}, which has the "
                f"steps {', '.join(str(saved.step) for saved in checkpoints)}. Choose one of them "
                f"with --from-step, or leave it out for the newest."
            )
        saved = checkpoints[found[-1]]
        try:
            content = _read_checked(saved)
        except CheckpointError as error:
            raise CheckpointError(f"{error}\n  {self._way_out(found[-1])}") from error
        return state_of(_document(content, saved.path), saved.path), saved

    def clear(self) -> None:
        """Deletes all checkpoints, the manifest, and what a killed save has left behind."""
        if not self.folder.is_dir():
            return
        # First: a manifest must not name what is not there.
        (self.folder / MANIFEST).unlink(missing_ok=True)
        remove_partial_files(self.folder)
        names = "|".join(re.escape(name) for name in (NEWEST, BEST, BEST_ONNX))
        ours = re.compile(rf"{re.escape(self.folder.name)}-\d+\.(pt|onnx.*)|{names}")
        for path in list(self.folder.iterdir()):
            if ours.fullmatch(path.name):
                path.unlink()

    def _way_out(self, broken: int) -> str:
        """Names the newest complete checkpoint before this one, or else after it."""
        checkpoints = self.checkpoints
        others = [*range(broken - 1, -1, -1), *range(len(checkpoints) - 1, broken, -1)]
        for i in others:
            try:
                _read_checked(checkpoints[i])
            except CheckpointError:
                continue
            which = "The one before it" if i == broken - 1 else "Another one"
            step = checkpoints[i].step
            return f"{which} (step {step}) is complete: choose it with --from-step {step}."
        return (
            f"No other checkpoint in {self.folder} is complete: restore the folder from a copy, "
            f"or train again (--force)."
        )

    def _nothing_here(self) -> str:
        newest = self.folder / NEWEST
        if newest.is_file():
            load_file(newest)  # says so if it is damaged, or of another program
            return (
                f"{self.folder} has a {NEWEST}, but no {MANIFEST} that lists it: the run was "
                f"stopped while it saved for the first time, or the file was copied here. To start "
                f"from its weights set init_path: {newest}; to train again use --force."
            )
        return (
            f"{self.folder} has no checkpoint (no {MANIFEST}). Expected a run that has saved at "
            f"least once: check --run-id and --results-dir."
        )

    def _without_leftovers(self, manifest: Manifest) -> Manifest:
        """Deletes what a save that was killed has left behind."""
        # The loop may be writing the rollout that broke an update, while a thread saves.
        remove_partial_files(self.folder, but=DIVERGED)
        names = {*manifest.deleting}
        if manifest.pending is not None:
            stem = manifest.pending.name.removesuffix("pt")
            names |= {path.name for path in self.folder.iterdir() if path.name.startswith(stem)}
        for name in names - manifest.file_names():
            (self.folder / name).unlink(missing_ok=True)
        return Manifest(manifest.checkpoints)

    def _replace(self, before: Manifest, after: Manifest) -> None:
        deleting = before.file_names() - after.file_names()
        self._write_manifest(replace(after, deleting=tuple(sorted(deleting))))
        for name in deleting:
            (self.folder / name).unlink(missing_ok=True)
        self._name_best(after.best)

    def _name_best(self, best: SavedCheckpoint | None) -> None:
        """Makes `best.pt` and `best.onnx` other names of the best checkpoint's files."""
        files = {
            BEST: None if best is None else best.path,
            BEST_ONNX: None if best is None else best.onnx_path,
        }
        for name, path in files.items():
            own = self.folder / name
            if path is None:
                if own.exists():
                    own.unlink()
            elif not own.exists() or not filecmp.cmp(path, own, shallow=False):
                atomic_link(path, own)

    def _files_beginning_with(self, prefix: str) -> list[CheckpointFile]:
        paths = sorted(path for path in self.folder.iterdir() if path.name.startswith(prefix))
        return [described(path.name, path.read_bytes()) for path in paths]

    def _write_manifest(self, manifest: Manifest) -> None:
        manifest.write(self.folder / MANIFEST)

    def _read_manifest(self) -> Manifest:
        path = self.folder / MANIFEST
        return parsed(path) if path.is_file() else Manifest()


def load_file(path: Path) -> State:
    """Reads the state in one of our `.pt` files, wherever it lies (`init_path`).

    Raises:
        CheckpointError: it is missing, damaged, or another program's.
    """
    return state_of(read_document(path), path)


def read_document(path: Path) -> object:
    """Reads what is in a `.pt` file of any program; runs no code that may be in it.

    Raises:
        CheckpointError: it is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"Checkpoint {path} cannot be read: {error.strerror}. Expected a .pt file that "
            f"ppo-train has saved, such as results/<run-id>/<Behaviour>/{NEWEST}."
        ) from error
    return _document(content, path)


def plain(value: object, where: str = "state") -> Any:
    """Gives `value` as what `torch.load(weights_only=True)` reads back, tensors on the CPU.

    Raises:
        TypeError: something inside is neither tensor, number, string, boolean, None, dict, list
            nor tuple of exactly Python's own type.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        # A view into something larger would drag all of it into the file.
        is_view = tensor.untyped_storage().nbytes() != tensor.nbytes
        return tensor.clone() if is_view else tensor
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{where} has the key {key!r}; expected a string or an integer")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        items = [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if value is None or type(value) in (bool, int, float, str):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(
        f"{where} is a {kind}. A checkpoint holds tensors, numbers, strings, booleans, None, and "
        f"dicts, lists and tuples of them: convert it in the part's state_dict()."
    )


def _to_bytes(state: Mapping[str, object], step: int) -> bytes:
    buffer = io.BytesIO()
    torch.save({MARK: FORMAT, "step": step, "state": plain(dict(state))}, buffer)
    return buffer.getvalue()


def _document(content: bytes, path: Path) -> object:
    """Unpacks a .pt file's bytes; runs no code that may be in them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()  # torch does not check the tensors' checksums
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no list of what it raises
        raise CheckpointError(
            f"Checkpoint {path} cannot be read ({first_line(error)}). Expected a .pt file of "
            f"tensors and plain values that ppo-train or ML-Agents has saved; code in it is never "
            f"run. Choose another one, or restore it from a copy."
        ) from error


def state_of(document: object, path: Path) -> State:
    """Takes the state out of what one of our .pt files holds.

    Raises:
        CheckpointError: it is another program's, or another version's.
    """
    if isinstance(document, dict) and "Policy" in document:
        raise CheckpointError(
            f"Checkpoint {path} was written by ML-Agents (it has the key 'Policy'); expected one "
            f"of ppo-train's. Only training can start from it: with --resume in its run's folder, "
            f"with --initialize-from, or with init_path."
        )
    if not isinstance(document, dict) or MARK not in document:
        held = sorted(str(key) for key in document) if isinstance(document, dict) else document
        raise CheckpointError(
            f"Checkpoint {path} is a PyTorch file of another program (it holds "
            f"{str(held)[:80]}). Expected a .pt file that ppo-train has saved."
        )
    if document[MARK] != FORMAT:
        raise CheckpointError(
            f"Checkpoint {path} has format {document[MARK]}; this version of ppo-train reads "
            f"format {FORMAT}. Use the version that wrote it."
        )
    state: State = document["state"]
    return state


def _read_checked(saved: SavedCheckpoint) -> bytes:
    """Reads a checkpoint's .pt file and compares it with the manifest."""
    file = saved.files[0]
    try:
        content = saved.path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"Checkpoint {saved.path} cannot be read ({error.strerror}); the manifest says it has "
            f"{file.num_bytes} bytes."
        ) from error
    if len(content) != file.num_bytes:
        raise CheckpointError(
            f"Checkpoint {saved.path} is damaged ({len(content)} bytes, manifest says "
            f"{file.num_bytes})."
        )
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != file.sha256:
        raise CheckpointError(
            f"Checkpoint {saved.path} is damaged (checksum {checksum[:8]}, manifest says "
            f"{file.sha256[:8]})."
        )
    return content
