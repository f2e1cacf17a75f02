"""Which checkpoints stay, and what a full disk does to them: nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainer.atomic_file import StorageError
from trainer.checkpoint import CheckpointStore, load_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "Walker"


def state_of(step: int) -> dict[str, object]:
    return {"step": step, "weights": torch.arange(4.0) + 100 * step}


def export(path: Path) -> None:
    path.write_bytes(path.name.encode())
    path.with_name(path.name + ".json").write_bytes(b"{}")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def steps(store: CheckpointStore) -> list[int]:
    return [saved.step for saved in store.checkpoints]


def test_best_stays_beside_those_to_keep_until_there_is_a_better_one(folder: Path) -> None:
    store = CheckpointStore(folder, 2)
    for step, score in ((1, None), (2, 5.0), (3, -1.0), (4, None), (5, 4.9)):
        store.save(state_of(step), step, None, export, score=score)
    assert steps(store) == [2, 4, 5]
    assert load_file(folder / "best.pt")["step"] == 2
    assert (folder / "best.onnx").read_bytes() == (folder / "Walker-2.onnx").read_bytes()
    assert json.loads((folder / "manifest.json").read_text())["best"] == 2
    store.save(state_of(6), 6, None, score=5.0)  # without an export; of equals the later counts
    assert steps(store) == [4, 5, 6]
    assert load_file(folder / "best.pt")["step"] == 6
    assert not (folder / "best.onnx").exists()
    assert not (folder / "Walker-2.pt").exists()
    store.clear()
    assert names(folder) == set()


def test_negative_scores_have_a_best_too(folder: Path) -> None:
    store = CheckpointStore(folder, 1)
    for step, score in ((1, -9.0), (2, -3.0), (3, -5.0), (4, 0.0), (5, -1.0)):
        store.save(state_of(step), step, None, score=score)
    assert steps(store) == [4, 5]


def test_milestones_stay_for_good(folder: Path) -> None:
    store = CheckpointStore(folder, 2)
    for step in range(1, 9):
        store.save(state_of(step), step, None, export, is_milestone=step in (2, 5))
    assert steps(store) == [2, 5, 7, 8]
    assert {"Walker-2.onnx", "Walker-5.onnx.json"} <= names(folder)


def test_nothing_is_deleted_before_prune_is_asked_for(folder: Path) -> None:
    store = CheckpointStore(folder, 1)
    store.save(state_of(1), 1, None, export)
    store.save(state_of(2), 2, None, export, prune=False)
    assert steps(store) == [1, 2]
    assert store.load(1)[0]["step"] == 1
    store.prune()
    assert steps(store) == [2]
    assert names(folder) == {
        "Walker-2.pt",
        "Walker-2.onnx",
        "Walker-2.onnx.json",
        "checkpoint.pt",
        "manifest.json",
    }


def test_manifest_of_an_earlier_version_has_neither_scores_nor_milestones(folder: Path) -> None:
    store = CheckpointStore(folder, 2)
    store.save(state_of(1), 1, 7.5, score=3.0, is_milestone=True)
    document = json.loads((folder / "manifest.json").read_text())
    for key in ("score", "is_milestone"):
        del document["checkpoints"][0][key]
    del document["best"]
    (folder / "manifest.json").write_text(json.dumps(document))
    (saved,) = store.checkpoints
    assert (saved.reward, saved.score, saved.is_milestone) == (7.5, None, False)
    assert store.load()[0]["step"] == 1


def test_full_disk_is_noticed_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(folder, 2)
    store.save(state_of(100), 100, None, export)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    with pytest.raises(
        StorageError, match=r"has 3\.0 MB free, but the checkpoint of step 200 need"
    ):
        store.save(state_of(200), 200, None, export)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert StorageError.exit_code == 4


@pytest.mark.parametrize("failing", range(1, 12))
def test_disk_that_fills_up_in_the_middle_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Unlike a crash the program lives on: it must not tidy away what is good either."""
    store = CheckpointStore(folder, 1)
    store.save(state_of(100), 100, None, export)
    count = 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        store.save(state_of(200), 200, None, export)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    monkeypatch.undo()
    state, saved = CheckpointStore(folder, 1).load()
    assert state["step"] == saved.step
    assert saved.step in (100, 200)
    for saved in store.checkpoints:
        assert store.load(saved.step)[0]["step"] == saved.step
    assert not list(folder.glob(".*partial"))
    store.save(state_of(300), 300, None, export)
    assert steps(store) == [300]
