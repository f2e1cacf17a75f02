"""`run_logs/training_status.json`: the checkpoints of a run, in ML-Agents' layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trainer.atomic_file import atomic_write
from trainer.checkpoint import SavedCheckpoint
from trainer.config.errors import UserError

LAYOUT_VERSION = "0.3.0"  # ML-Agents' stats_format_version


class TrainingStatus:
    """What tools for ML-Agents read about a run; complete after every `write`.

    Only a report: `--resume` goes by each behaviour's `manifest.json`.
    """

    def __init__(self, path: Path, *, goes_on: bool, parameters: Iterable[str] = ()) -> None:
        """Goes on from the file if there is one, so that no behaviour or lesson is forgotten.

        Args:
            path: of the file.
            goes_on: False: another run's file may be there; it is written over.
            parameters: environment parameters; each is in its first lesson, unless the file knows.

        Raises:
            UserError: the file is there, but is no JSON object.
        """
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        if goes_on and path.is_file():
            self._entries = _read(path)
        self._entries.pop("metadata", None)
        for name in parameters:
            self._entries.setdefault(name, {}).setdefault("lesson_num", 0)

    def set_checkpoints(self, behavior: str, checkpoints: Sequence[SavedCheckpoint]) -> None:
        """Replaces the list of a behaviour's checkpoints, oldest first.

        Those that ML-Agents had listed stay, before ours, as long as their files are there.
        """
        entry = self._entries.setdefault(behavior, {})
        ours = [_layout(saved, saved.onnx_path) for saved in checkpoints]
        files = {layout["file_path"] for layout in ours}
        entry["checkpoints"] = [*_others(entry.get("checkpoints"), files), *ours]

    def set_final(self, behavior: str, saved: SavedCheckpoint, onnx_path: Path | None) -> None:
        """Names the checkpoint a behaviour ended with, and `<run>/<Behaviour>.onnx`."""
        entry = self._entries.setdefault(behavior, {})
        entry["final_checkpoint"] = _layout(saved, onnx_path)

    def write(self) -> None:
        """Writes the file in one piece, and makes its folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "stats_format_version": LAYOUT_VERSION,
            "mlagents_version": f"ppo-train {version('ppo-train')}",
            "torch_version": str(torch.__version__),
        }
        document = {**self._entries, "metadata": metadata}
        atomic_write(self.path, json.dumps(document, indent=4).encode())


def _others(listed: object, own_files: Set[object]) -> list[Mapping[str, object]]:
    """Gives entries of a list that are not ours, and whose file is still there."""
    entries = listed if isinstance(listed, list) else []
    return [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and entry.get("file_path") not in own_files
        and Path(str(entry.get("file_path"))).is_file()
    ]


def _layout(saved: SavedCheckpoint, onnx_path: Path | None) -> Mapping[str, object]:
    return {
        "steps": saved.step,
        "file_path": str(onnx_path or saved.path),
        "reward": saved.reward,
        "creation_time": saved.created,
        "auxillary_file_paths": [str(saved.path)],  # ML-Agents' spelling
    }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError(f"it holds a {type(document).__name__}")
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read ({error}). Expected a JSON object with one entry per "
            f"behaviour: delete the file, it is written again at the next checkpoint."
        ) from error
    return document
