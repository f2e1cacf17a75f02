"""Figures of one benchmark: medians, the printed table, and the JSON file behind it."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
BUSY_LOAD = 0.7


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of the README's table; `met` is None where nothing was promised."""

    work: str
    ours: str
    peer: str
    ratio: float | None
    must: str
    met: bool | None


def median(values: Sequence[float]) -> float:
    """Gives the middle value, rounded to what such a measurement is worth."""
    middle = statistics.median(values)
    return round(middle, 1 if middle < 100 else 0)


def markdown(rows: Sequence[TableRow]) -> str:
    """Writes the rows as a Markdown table."""
    lines = [
        "| Work | ppo-train | peer | ratio | must | met |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        lines.append(f"| {row.work} | {row.ours} | {row.peer} | {ratio} | {row.must} | {met} |")
    return "\n".join(lines)


def warn_if_busy(machine: dict[str, object]) -> None:
    """Says so when other work was running before the first measurement."""
    load = machine["load_before"]
    if isinstance(load, float) and load > BUSY_LOAD:
        print(
            f"warning: the load was {load} before the first measurement; an idle machine was "
            f"expected. End other work and measure again before you trust these figures.",
            file=sys.stderr,
        )


def publish(
    name: str,
    machine: dict[str, object],
    rows: Sequence[TableRow],
    measurements: object,
    results: Path = RESULTS,
) -> Path:
    """Prints the table and writes `<results>/<name>.json`."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.json"
    document = {
        "benchmark": name,
        "machine": machine,
        "table": [asdict(row) for row in rows],
        "measurements": measurements,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{machine['cpu']}, {machine['cores']} cores, {machine['date']}")
    print(markdown(rows))
    print(f"written: {path}")
    return path


def load_rows(path: Path) -> list[TableRow]:
    """Reads the table of a published result back."""
    return [TableRow(**row) for row in json.loads(path.read_text())["table"]]
