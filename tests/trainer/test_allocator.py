"""Free memory between used memory goes back to the operating system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainer import allocator

# In a process of its own: the allocator of this one has a past.
PROGRAM = """
from pathlib import Path
from trainer.allocator import return_free_memory

def resident_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

blocks = [bytes(8192) for _ in range(20_000)]  # 160 MB
full = resident_mb()
blocks = blocks[::100]  # gaps, which keep the heap from shrinking by itself
gaps = resident_mb()
return_free_memory()
print(full, gaps, resident_mb())
"""

# Two blocks of a rollout's size, one after the other; the second is freed below blocks in use.
LARGE = """
import sys
from pathlib import Path
from trainer.allocator import keep_large_blocks_apart

def resident_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

if sys.argv[1] == "apart":
    keep_large_blocks_apart()
first = bytes(bytearray(30 << 20))
del first
second = b"\1" * (28 << 20)
above = [bytes(bytearray(8192)) for _ in range(20_000)]
full = resident_mb()
del second
print(full, resident_mb())
"""


def given_back_mb(how: str) -> float:
    words = [sys.executable, "-c", LARGE, how]
    printed = subprocess.run(words, check=True, capture_output=True, text=True)
    full, rest = map(float, printed.stdout.split())
    return full - rest


def test_large_blocks_are_given_back_as_soon_as_they_are_freed() -> None:
    assert given_back_mb("together") < 5, "glibc does so by itself: this shows nothing"
    assert given_back_mb("apart") > 25


def test_gaps_between_used_blocks_are_given_back() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)
    full, gaps, returned = map(float, printed.stdout.split())
    assert full - gaps < 40, "the allocator gave them back by itself: this shows nothing"
    assert gaps - returned > 100


def test_behind_updates_memory_is_given_back_but_not_behind_every_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, returned_at = [100.0], []
    monkeypatch.setattr("trainer.allocator.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(allocator, "return_free_memory", lambda: returned_at.append(clock[0]))
    memory_return = allocator.MemoryReturn(interval_s=5.0)
    for clock[0] in (100.0, 101.0, 104.9, 105.0, 106.0, 200.0):
        memory_return.after_update()
    assert returned_at == [100.0, 105.0, 200.0]
