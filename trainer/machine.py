"""How busy this machine and some of its processes are, as far as the system tells.

Linux tells all of it in /proc. Elsewhere the machine's load of the last minute stands for what is
busy (not on Windows, which has none), and nothing is known of other processes or of memory.

Source: proc(5); cgroups(7), version 2 and 1.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trainer.available_memory import available_memory

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
LOAD_S = 60.0  # the load is a mean over so long


@dataclass(frozen=True, slots=True)
class Reading:
    """What was known at one moment. Processor seconds count from some moment before the run."""

    moment_s: float  # by time.perf_counter
    own_s: float  # processor seconds of this process
    process_s: Mapping[int, float] = field(default_factory=dict)  # of others and their children
    idle_s: float | None = None  # that `cores` were idle, all together; None: not told
    cores: int = 0  # that this process may run on
    load: float | None = None  # running processes, a mean over the last minute; None: not told


def usable_cores() -> frozenset[int] | None:
    """Gives the cores this process may run on; None: the system does not tell which."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return frozenset(os.sched_getaffinity(0))
    return None


def num_cores() -> float:
    """Gives how many cores this process may keep busy; a container may have a part of one."""
    cores = usable_cores()
    found = float(os.cpu_count() or 1) if cores is None else float(len(cores))
    quota = _quota()
    return found if quota is None else min(found, quota)


def _quota() -> float | None:
    """Gives the cores that a container may use on the average; None: no limit."""
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else float(quota) / float(period)
    with suppress(OSError, ValueError):
        quota = (CGROUP / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (CGROUP / "cpu" / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else None
    return None


def read(pids: Iterable[int]) -> Reading:
    """Reads how busy the machine, this process and others have been.

    Args:
        pids: of the others; those that have ended are left out.
    """
    times = {pid: seconds for pid in pids if (seconds := _seconds_of(pid)) is not None}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores = usable_cores() or ()
    return Reading(
        time.perf_counter(), time.process_time(), times, _idle_s(cores), len(cores), load
    )


def _tick_s() -> float:
    return 1.0 / os.sysconf("SC_CLK_TCK")


def _idle_s(cores: Collection[int]) -> float | None:
    """Gives how long these cores have been idle, all together; None: the system does not tell."""
    try:
        lines = (PROC / "stat").read_text().splitlines()
    except OSError:
        return None
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in lines:
        words = line.split()
        if words and words[0] in names:
            ticks += int(words[4]) + int(words[5])  # idle, and idle while a disk is waited for
    return ticks * _tick_s() if cores else None


def _seconds_of(pid: int) -> float | None:
    """Gives processor seconds of a process, its children and those that it has waited for."""
    ticks = [words for member in _family(pid) if (words := _stat(member)) is not None]
    if not ticks:
        return None
    # Fields 14 to 17 of proc(5), counted behind the name: utime, stime, cutime, cstime.
    return sum(int(word) for words in ticks for word in words[11:15]) * _tick_s()


def _stat(pid: int) -> list[str] | None:
    """Gives the words of a process's line behind its name, which may hold blanks."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _family(pid: int) -> Iterator[int]:
    """Yields a process and all that it has started: a build may be a script around a program."""
    yield pid
    with suppress(OSError):  # a kernel that does not tell children, or the process has ended
        for child in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split():
            yield from _family(int(child))


def resident_bytes(pid: int) -> int | None:
    """Gives the memory that a process and its children hold; None: not told, or it has ended.

    What they share with others counts for each, so it is rather too much than too little.
    """
    try:
        pages = [
            int((PROC / str(member) / "statm").read_text().split()[1]) for member in _family(pid)
        ]
    except (OSError, IndexError):
        return None
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def room_for_more(pids: Iterable[int], spare: float) -> int | None:
    """Gives how many more processes like the largest of these there is memory for.

    Args:
        pids: of processes that run.
        spare: share of the available memory that is to stay free.

    Returns:
        None: the system does not tell.
    """
    sizes = [size for pid in pids if (size := resident_bytes(pid))]
    available = available_memory()
    if available is None or not sizes:
        return None
    return int(available.num_bytes * (1.0 - spare) / max(sizes))


def identity() -> dict[str, str | float]:
    """Gives what tells this machine from another one, for what was measured on it."""
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": num_cores(),
    }


def _processor() -> str:
    with suppress(OSError):
        for line in (PROC / "cpuinfo").read_text().splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name":
                return model.strip()
    return platform.processor()
