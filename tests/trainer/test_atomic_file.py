from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from trainer.atomic_file import atomic_copy, atomic_link, atomic_write, remove_partial_files


def test_content_reaches_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content"
        size = "" if kind == "folder" else f" of {os.fstat(descriptor).st_size} bytes"
        events.append(kind + size)
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        events.append(f"name {Path(target).name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    atomic_write(tmp_path / "a.json", b"12345")
    assert events == ["content of 5 bytes", "name a.json", "folder"]


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_link_copies_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = tmp_path / "a-1.pt", tmp_path / "checkpoint.pt"
    source.write_bytes(b"one")
    atomic_link(source, path)
    assert path.samefile(source)

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    atomic_link(source, path)
    assert not path.samefile(source)
    assert path.read_bytes() == b"one"


def test_copy_is_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    atomic_copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "a").samefile(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"one"


def test_remove_partial_files_leaves_everything_else(tmp_path: Path) -> None:
    for name in (".a.pt.partial", ".hidden", "a.partial", "a.pt"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {".hidden", "a.partial", "a.pt"}


def test_remove_partial_files_leaves_what_may_be_growing(tmp_path: Path) -> None:
    for name in (".a.pt.partial", ".b-1.pt.partial"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path, but="b-")
    assert [entry.name for entry in tmp_path.iterdir()] == [".b-1.pt.partial"]
