"""Free memory between used memory goes back to the operating system."""

from __future__ import annotations

import subprocess
import sys

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


def test_gaps_between_used_blocks_are_given_back() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)
    full, gaps, returned = map(float, printed.stdout.split())
    assert full - gaps < 40, "the allocator gave them back by itself: this shows nothing"
    assert gaps - returned > 100
