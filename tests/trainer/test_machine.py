"""What the system tells of cores, processes and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import machine
from trainer.available_memory import Available

PROC_STAT = """cpu  100 0 100 9000 50 0 0 0 0 0
cpu0 50 0 50 4000 20 0 0 0 0 0
cpu1 50 0 50 5000 30 0 0 0 0 0
cpu10 0 0 0 70000 0 0 0 0 0 0
intr 5
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two usable cores, made of files."""
    monkeypatch.setattr("trainer.machine.PROC", tmp_path)
    monkeypatch.setattr("trainer.machine.CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr("trainer.machine.usable_cores", lambda: frozenset({0, 1}))
    monkeypatch.setattr("trainer.machine._tick_s", lambda: 0.01)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "stat").write_text(PROC_STAT)
    return tmp_path


def process(folder: Path, pid: int, ticks: str, pages: int, children: str = "") -> None:
    """A process whose name is made to confuse."""
    home = folder / str(pid)
    (home / "task" / str(pid)).mkdir(parents=True)
    (home / "stat").write_text(f"{pid} (a b) c) S 1 2 3 4 5 6 7 8 9 10 {ticks} 20 0")
    (home / "statm").write_text(f"9999 {pages} 1 1 0 1 0")
    (home / "task" / str(pid) / "children").write_text(children)


def test_idle_time_is_of_the_cores_that_the_run_may_use(system: Path) -> None:
    reading = machine.read([])
    assert reading.idle_s == pytest.approx(90.5)  # 4000 + 20 + 5000 + 30 ticks
    assert reading.cores == 2
    (system / "stat").unlink()
    assert machine.read([]).idle_s is None


def test_processor_time_counts_children_and_those_waited_for(system: Path) -> None:
    process(system, 7, "100 20 3 4", pages=10, children="8 ")
    process(system, 8, "1000 0 0 0", pages=5)
    assert machine.read([7, 99]).process_s == {7: pytest.approx(11.27)}
    page = os.sysconf("SC_PAGE_SIZE")
    assert machine.resident_bytes(7) == 15 * page
    assert machine.resident_bytes(99) is None


def test_a_containers_quota_limits_cores(system: Path) -> None:
    assert machine.num_cores() == 2.0
    (system / "cgroup" / "cpu.max").write_text("150000 100000\n")
    assert machine.num_cores() == 1.5
    (system / "cgroup" / "cpu.max").write_text("max 100000\n")
    assert machine.num_cores() == 2.0
    (system / "cgroup" / "cpu.max").unlink()
    (system / "cgroup" / "cpu").mkdir()
    (system / "cgroup" / "cpu" / "cpu.cfs_quota_us").write_text("50000")
    (system / "cgroup" / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert machine.num_cores() == 0.5


def test_room_is_for_what_is_like_the_largest_process(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_pages(number: int) -> int | None:
        free = Available(number * page, "test")
        monkeypatch.setattr("trainer.machine.available_memory", lambda: free)
        return machine.room_for_more([7, 8], spare=0.2)

    page = os.sysconf("SC_PAGE_SIZE")
    process(system, 7, "1 1 1 1", pages=10)
    process(system, 8, "1 1 1 1", pages=4)
    assert with_pages(100) == 8  # 80 pages of 100, 10 each
    assert with_pages(50) == 4
    assert machine.room_for_more([], spare=0.2) is None
    monkeypatch.setattr("trainer.machine.available_memory", lambda: None)
    assert machine.room_for_more([7, 8], spare=0.2) is None


def test_this_machine_tells_of_a_process_that_works() -> None:
    words = [sys.executable, "-c", "sum(range(6_000_000)); print(1, flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        reading = machine.read([worker.pid])
        size = machine.resident_bytes(worker.pid)
        worker.communicate(b"\n")
    assert reading.process_s[worker.pid] > 0.0
    assert size is not None and size > 1_000_000
    assert reading.own_s > 0.0
    assert 0 < machine.num_cores() <= (os.cpu_count() or 1)
