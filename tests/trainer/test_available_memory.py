from __future__ import annotations

from pathlib import Path

import pytest

from trainer.available_memory import Available, available_memory

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MACHINE = {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:   {8 * 1024} kB\n"}  # 8 MiB


def test_without_a_limit_the_machine_has_what_it_says(tmp_path: Path) -> None:
    root = write(tmp_path, {**MACHINE, "proc/self/cgroup": "0::/user.slice\n"})
    assert available_memory(root) == Available(8 * MIB, "MemAvailable")


@pytest.mark.parametrize("own", ["/", "/system/job", "/not/mounted/here"])
def test_limit_of_any_cgroup_above_counts_and_pages_of_files_are_free(
    tmp_path: Path, own: str
) -> None:
    files = {
        **MACHINE,
        "proc/self/cgroup": f"1:name=systemd:/\n0::{own}\n",
        "sys/fs/cgroup/memory.max": f"{6 * MIB}\n",
        "sys/fs/cgroup/memory.current": f"{5 * MIB}\n",
        "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2 * MIB}\n",
        "sys/fs/cgroup/system/job/memory.max": "max\n",
        "sys/fs/cgroup/system/job/memory.current": "5\n",
    }
    found = available_memory(write(tmp_path, files))
    assert found == Available(3 * MIB, "memory.max of the cgroup")  # 6 - (5 - 2)


def test_limit_of_version_1_counts_and_the_largest_number_is_none(tmp_path: Path) -> None:
    files = {
        **MACHINE,
        "proc/self/cgroup": "4:memory:/job\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{4 * MIB}\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{5 * MIB}\n",
    }
    found = available_memory(write(tmp_path, files))
    assert found == Available(0, "memory.limit_in_bytes of the cgroup")


def test_nobody_knows_where_the_kernel_has_no_such_files(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_this_machine_has_some() -> None:
    found = available_memory()
    assert found is not None
    assert 2**20 < found.num_bytes < 2**50
