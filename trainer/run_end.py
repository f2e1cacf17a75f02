"""How a run ends: its exit code, and in words why.

| Exit code | |
|---|---|
| 0 | finished, or the Editor was stopped |
| 1 | a defect of ours, with a trace |
| 2 | a mistake that the message explains |
| 3 | no simulator is left |
| 4 | the disk does not take what has to be stored |
| 5 | learning has broken the weights twice |
| 6 | out of memory |
| 128 + n | signal n |
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import torch

from envs.errors import SimulatorError
from trainer.atomic_file import storage_error
from trainer.config.errors import UserError

EXIT_DEFECT = 1
EXIT_USER_ERROR = 2
EXIT_NO_SIMULATORS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    exit_code: int
    reason: str


class OutOfMemoryError(UserError):
    """The machine, or the device, has no memory left for what the run wants to do."""

    exit_code = 6


def in_words(error: BaseException, folder: Path) -> BaseException:
    """Gives the error to end with: for disk and memory one that says what to do, else `error`."""
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM  # for a process
    if isinstance(error, OSError) and not no_memory:
        return storage_error(error, folder) or error
    # On the CPU torch raises a plain RuntimeError.
    is_full_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    if no_memory or is_full_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError):
        said = one_line(error)
        return OutOfMemoryError(
            f"There is not enough memory ({said[:200]}). Checkpoints that were saved before are "
            f"untouched. Lower buffer_size, batch_size, num_envs or the size of the network, or "
            f"give the run more memory; then go on with --resume-or-start."
        )
    return error


def outcome_of(error: BaseException) -> Outcome:
    """Gives the outcome of a run that ends with an exception."""
    code = EXIT_DEFECT
    if isinstance(error, UserError):
        code = error.exit_code
    elif isinstance(error, SimulatorError):
        code = EXIT_USER_ERROR
    return Outcome(code, one_line(error))


def one_line(error: BaseException) -> str:
    """Says in one line why a run ended with an exception."""
    return " ".join(str(error).split()) or type(error).__name__
