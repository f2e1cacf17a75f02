"""One trainer per run: two that write into one folder would delete each other's checkpoints."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.config.errors import ConfigError

_logger = logging.getLogger(__name__)

LOCK = "trainer.lock"
LOCKED_BYTE = 1 << 20  # behind the text: on Windows nobody may read what is locked


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other trainers out of a run while the block runs, also if this process is killed.

    Args:
        folder: `<results>/<run>/run_logs`; it must be there.

    Raises:
        ConfigError: another process trains the run.
    """
    path = folder / LOCK
    file = _locked(path)
    try:
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        # Before the lock goes: whoever gets it behind us must not get a file without a name.
        with suppress(OSError):  # Windows deletes no open files; the next run uses it again
            path.unlink()
        os.close(file)


def _locked(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not take_lock(file):
            owner = os.read(file, 32).decode(errors="replace").strip()
            os.close(file)
            raise ConfigError(
                f"{path.parent.parent} is being trained by another process"
                f"{f' ({owner})' if owner else ''}. Two trainers in one folder would delete each "
                f"other's checkpoints: end it or wait for it, or choose another name (--run-id)."
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # its owner has taken the name away meanwhile


def take_lock(file: int) -> bool:
    """Takes the lock of an open file, which ends with the process; False: somebody has it.

    Where the file system has no locks nobody has it, and a warning says so.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems have no locks
        _logger.warning(
            f"This file system takes no locks ({error.strerror}): nothing keeps a second trainer "
            f"out of this run. Start it once only, or let --results-dir be on another file system."
        )
    return True
