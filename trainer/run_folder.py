"""Where the files of a run lie: ML-Agents' layout of `<results_dir>/<run_id>/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.atomic_file import atomic_copy, atomic_write
from trainer.checkpoint import MANIFEST, NEWEST, CheckpointStore, SavedCheckpoint


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of a run's files, and how the ones that belong to no part of it are written."""

    path: Path  # `<results_dir>/<run_id>`, relative if results_dir is

    @property
    def logs(self) -> Path:
        """Folder of simulator logs, `training_status.json` and `timers.json`."""
        return self.path / "run_logs"

    @property
    def configuration(self) -> Path:
        """The complete resolved settings."""
        return self.path / "configuration.yaml"

    @property
    def training_status(self) -> Path:
        """See `TrainingStatus`."""
        return self.logs / "training_status.json"

    @property
    def timers(self) -> Path:
        """Where the time went."""
        return self.logs / "timers.json"

    def own_logs(self, is_training: bool) -> Path:
        """Folder of what this start writes down; acting alone leaves that of training alone."""
        return self.logs if is_training else self.logs / "inference"

    def behavior(self, name: str) -> Path:
        """Folder of one behaviour: checkpoints and TensorBoard's events."""
        return self.path / name

    def onnx(self, name: str) -> Path:
        """The policy that a run ended with."""
        return self.path / f"{name}.onnx"

    def store(self, name: str, keep: int) -> CheckpointStore:
        """Gives the checkpoints of one behaviour."""
        return CheckpointStore(self.behavior(name), keep)

    def holds_run(self) -> bool:
        """Whether a run of this id has got as far as a behaviour; else nothing is worth keeping."""
        if not self.path.is_dir():
            return False
        others = (self.configuration.name, self.logs.name)
        return any(entry.name not in others for entry in self.path.iterdir())

    def saved_behaviors(self) -> list[str]:
        """Gives the behaviours that have a checkpoint of ours."""
        return self._folders_with(MANIFEST)

    def behaviors_in_the_way(self) -> list[str]:
        """Gives the behaviours that have a checkpoint, of ours or of ML-Agents."""
        return sorted({*self._folders_with(MANIFEST), *self._folders_with(NEWEST)})

    def _folders_with(self, name: str) -> list[str]:
        found = self.path.rglob(name)
        return sorted(path.parent.relative_to(self.path).as_posix() for path in found)

    def clear(self, name: str) -> None:
        """Deletes what an earlier run has saved and drawn of a behaviour."""
        self.store(name, keep=0).clear()
        for events in self.behavior(name).glob("events.out.tfevents.*"):
            events.unlink()
        self.onnx(name).unlink(missing_ok=True)

    def clear_logs(self, is_training: bool) -> None:
        """Deletes simulator logs of an earlier start: a tail tells no lies."""
        for old in self.own_logs(is_training).glob("Player-*"):
            old.unlink()

    def write_configuration(self, yaml_text: str) -> None:
        """Writes the resolved settings; at the start of the run, so that a kill loses nothing."""
        _write(self.configuration, yaml_text)

    def write_timers(self, json_text: str, *, is_training: bool) -> None:
        """Writes `timers.json`."""
        _write(self.own_logs(is_training) / self.timers.name, json_text)

    def publish_onnx(self, name: str, saved: SavedCheckpoint) -> Path | None:
        """Copies a checkpoint's policy to `<Behaviour>.onnx`; None if it was not exported."""
        if saved.onnx_path is None:
            return None
        atomic_copy(saved.onnx_path, self.onnx(name))
        return self.onnx(name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode())
