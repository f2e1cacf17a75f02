"""Files that are there completely or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.config.errors import UserError

PARTIAL = ".partial"
SPARE_BYTES = 16 << 20  # left free, for logs, curves, and the words that say why a run ended
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
FOLDER_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOTDIR}


class StorageError(UserError):
    """The disk does not take what has to be stored; what it holds already is untouched."""

    exit_code = 4


def storage_error(error: OSError, folder: Path) -> StorageError | None:
    """Says what a failed file operation of a run means; None: it is about something else."""
    is_about_file = error.filename is not None and error.errno in FOLDER_ERRORS
    if error.errno not in DISK_ERRORS and not is_about_file:
        return None
    where = error.filename if error.filename is not None else folder
    advice = {
        errno.ENOSPC: "Free space on that disk",
        errno.EDQUOT: "Free space, or raise the quota",
        errno.EROFS: "Make it writable, or choose another --results-dir",
    }.get(error.errno or 0, "Check the disk and the permissions")
    return StorageError(
        f"{where} cannot be written: {error.strerror}. Everything that was saved before is "
        f"untouched. {advice}, then go on with --resume."
    )


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raises StorageError unless the disk of `folder` has room for `num_bytes`, and some more."""
    free, needed = shutil.disk_usage(folder).free, num_bytes + SPARE_BYTES
    if free < needed:
        raise StorageError(
            f"{folder} has {free / 1e6:,.1f} MB free, but {what} needs {needed / 1e6:,.1f} MB. "
            f"Nothing of it was written, and everything that was saved before is untouched. Free "
            f"space on that disk, then go on with --resume."
        )


def partial_path(path: Path) -> Path:
    """Gives where `path` grows until it is complete: hidden, in the same folder."""
    return path.with_name(f".{path.name}{PARTIAL}")


def remove_partial_files(folder: Path, but: str | None = None) -> None:
    """Deletes what writers that were killed have left in `folder`.

    Args:
        folder: of the files.
        but: files whose names begin so may be growing right now, and stay.
    """
    for leftover in folder.glob(f".*{PARTIAL}"):
        if but is None or not leftover.name.startswith(f".{but}"):
            os.unlink(leftover)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a path to write to; what was written becomes `path` when the block ends well.

    The new content is on the disk before it takes the name, and the name before this returns:
    after a crash or a power cut `path` holds either all of the old or all of the new content.
    Slow (two fsyncs). One writer per path.
    """
    partial = partial_path(path)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def atomic_write(path: Path, content: bytes) -> None:
    """Writes `content` to `path` as `atomic_path` does."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def atomic_link(source: Path, path: Path) -> None:
    """Makes `path` a second name of `source`, or a copy where the file system has no links."""
    with atomic_path(path) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            partial.write_bytes(source.read_bytes())


def atomic_copy(source: Path, path: Path) -> None:
    """Copies a file; unlike `atomic_link`, changing one later leaves the other alone."""
    atomic_write(path, source.read_bytes())


def sync_folder(folder: Path) -> None:
    """Brings new and deleted names of `folder` to the disk; Windows does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
