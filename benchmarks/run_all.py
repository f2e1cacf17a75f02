"""Runs every benchmark, one after the other, and prints the README's table.

    python -m benchmarks.run_all                          all, about an hour and 40 minutes
    python -m benchmarks.run_all --only check gym_shaped  some
    python -m benchmarks.run_all --table                  only prints what was measured before

The machine must have nothing else to do meanwhile. benchmarks/make_peers.sh comes first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import report

BENCHMARKS = ("unity_shaped", "bridge", "gym_shaped", "memory", "soak", "check")


def table(results: Path) -> str:
    """Joins the tables of all results that are there, and names what they were measured with."""
    rows: list[report.TableRow] = []
    machines: set[str] = set()
    missing = []
    for name in BENCHMARKS:
        path = results / f"{name}.json"
        if not path.exists():
            missing.append(name)
            continue
        rows += report.load_rows(path)
        machines.add(_machine(json.loads(path.read_text())["machine"]))
    lines = [report.markdown(rows), "", *sorted(machines)]
    if missing:
        lines.append(f"Not measured: {', '.join(missing)}.")
    return "\n".join(lines)


def _machine(about: dict[str, object]) -> str:
    """Says in one sentence where and with what a result was measured."""
    versions = about.get("versions", {})
    assert isinstance(versions, dict)
    ours = versions.get("ppo-train", {})
    shown = ", ".join(
        f"{name} {ours[name]}" for name in ("python", "torch", "grpcio", "protobuf") if name in ours
    )
    return (
        f"Measured on {about['cpu']}, {about['cores']} cores, {str(about['date'])[:10]}: {shown}."
    )


def main() -> int:
    """Runs what was asked for; gives 1 when a benchmark failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()

    failed = []
    for name in [] if options.table else options.only:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    print()
    print(table(options.results))
    if failed:
        print(f"failed: {', '.join(failed)}; the table has their earlier figures", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
