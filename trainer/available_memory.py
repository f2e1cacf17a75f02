"""How much memory this process may still take: what the machine has, or what its cgroup allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
KIB = 1024
# cgroup version 1 says "no limit" with the largest number of pages.
NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Available:
    """Bytes that can be had, and who says so."""

    num_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class _Files:
    """How one version of cgroups names what we read."""

    mount: str
    limit: str
    usage: str
    reclaimable: str
    """A line of memory.stat: pages of files, which the kernel takes back before it kills."""


_VERSION_2 = _Files("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)


def available_memory(root: Path = ROOT) -> Available | None:
    """Gives the least of MemAvailable and what each cgroup above this process leaves.

    Args:
        root: of the file system, for tests.

    Returns:
        None where the system does not tell, as outside Linux.
    """
    found = [*_of_machine(root), *_of_cgroups(root)]
    return min(found, key=lambda one: one.num_bytes, default=None)


def _of_machine(root: Path) -> Iterator[Available]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield Available(int(line.split()[1]) * KIB, "MemAvailable")


def _of_cgroups(root: Path) -> Iterator[Available]:
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, own = line.split(":", 2)
        if not controllers:
            files = _VERSION_2
        elif "memory" in controllers.split(","):
            files = _VERSION_1
        else:
            continue
        path = PurePosixPath(own.lstrip("/"))
        # In a container its own cgroup is the root of what is mounted, whatever it is called.
        for folder in (path, *path.parents):
            yield from _of_cgroup(root / files.mount / folder, files)


def _of_cgroup(folder: Path, files: _Files) -> Iterator[Available]:
    limit, usage = (" ".join(_lines(folder / name)) for name in (files.limit, files.usage))
    if not limit.isdigit() or not usage.isdigit() or int(limit) >= NO_LIMIT:
        return
    used = int(usage)
    for line in _lines(folder / "memory.stat"):
        name, _, number = line.partition(" ")
        if name == files.reclaimable:
            used -= int(number)
    yield Available(max(0, int(limit) - used), f"{files.limit} of the cgroup")


def _lines(path: Path) -> list[str]:
    """Reads a file of the kernel; [] where it has none of this name."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
