"""Names the machine and the versions that a figure was measured with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = (
    "ppo-train",
    "mlagents",
    "stable-baselines3",
    "torch",
    "numpy",
    "grpcio",
    "protobuf",
    "gymnasium",
    "mujoco",
)

_VERSIONS = """
import importlib.metadata as m, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def cpu_model() -> str:
    """Gives the processor's name as the kernel knows it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_gib() -> float:
    """Gives the installed memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def versions(python: Path) -> dict[str, str]:
    """Lists the versions of the packages that matter, as the interpreter `python` sees them."""
    command = [str(python), "-c", _VERSIONS, *PACKAGES]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(found))


def describe(**peers: Path) -> dict[str, object]:
    """Describes the machine, the moment, and the versions here and in every peer's venv."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_gib(), 1),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {
            "ppo-train": versions(Path(sys.executable)),
            **{name: versions(python) for name, python in peers.items()},
        },
    }
