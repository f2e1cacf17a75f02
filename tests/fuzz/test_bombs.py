"""Small inputs that ask for a lot cost little, and get their error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bombs import BOMBS

MEMORY_BYTES, MEMORY_MULTIPLE = 32 << 20, 50


@pytest.fixture(scope="module")
def costs() -> dict[str, tuple[str, int, int]]:
    """By name: what came of it, bytes of the input, bytes of memory."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("how much memory a process has taken is known on Linux only")
    program = Path(__file__).parent / "bombs.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[str, int, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_gets_its_error_and_little_memory(
    name: str, costs: dict[str, tuple[str, int, int]]
) -> None:
    outcome, num_bytes, memory_bytes = costs[name]
    assert outcome == BOMBS[name][2]
    assert memory_bytes <= MEMORY_BYTES + MEMORY_MULTIPLE * num_bytes
