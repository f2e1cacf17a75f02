"""Trains a named table, tasks x algorithms x seeds, and writes what came of it.

    python -m benchmarks.learning smoke
    python -m benchmarks.learning mujoco --jobs 2
    python -m benchmarks.learning mujoco --seeds 1 2 --tasks Hopper-v5 --algorithms ppo trpo

Every run is `ppo-train` in a process of its own. A run that is scored is not repeated and one that
was interrupted goes on, so the command can be stopped (Ctrl-C or SIGTERM: runs save first) and
started again. After every run it writes <name>.json, .md and .png below
benchmarks/results/learning, with as many seeds as there are. Seeds come last: first every task and
algorithm once. The full tables take many hours on two cores.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine
from benchmarks.learning.report import draw, markdown
from benchmarks.learning.runs import ROOT, Commands, Score, one_run, run_id, scored_run
from benchmarks.learning.tables import TABLES, Table

OUTPUT = ROOT / "benchmarks" / "results" / "learning"


def main() -> int:
    """Runs what is missing; gives 1 if any run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 to the table's number")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--algorithms", nargs="+", help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results" / "learning")
    parser.add_argument("--output-dir", type=Path, default=OUTPUT)
    options = parser.parse_args()
    table = TABLES[options.table]
    for word, given, known in (
        ("task", options.tasks, table.tasks),
        ("algorithm", options.algorithms, [each.name for each in table.algorithms]),
    ):
        for name in given or ():
            if name not in known:
                parser.error(f"table {options.table} has no {word} {name!r}, only {list(known)}")
    seeds = options.seeds or range(1, table.num_seeds + 1)
    plan = [
        (task, algorithm, seed)
        for seed in seeds
        for task in options.tasks or table.tasks
        for algorithm in table.algorithms
        if algorithm.name in (options.algorithms or [algorithm.name])
    ]
    results = options.results_dir / options.table
    scores = scores_so_far(results, table)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    commands = Commands()
    num_failed = num_done = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {pool.submit(one_run, commands, results, table, *each): each for each in plan}
        try:
            for run in as_completed(runs):
                task, algorithm, seed = runs[run]
                if error := run.exception():
                    num_failed += 1
                    print(f"FAILED {task} {algorithm.name} seed {seed}: {error}", flush=True)
                    continue
                score = run.result()
                scores[task, algorithm.name, seed] = score
                num_done += 1
                print(
                    f"[{num_done}/{len(plan)}] {task} {algorithm.name} seed {seed}: "
                    f"{score.training_return} / {score.evaluation_return}",
                    flush=True,
                )
                write(options.output_dir, options.table, table, list(scores.values()))
        except KeyboardInterrupt:
            commands.end()
            pool.shutdown(cancel_futures=True)
            print("stopped; what was interrupted goes on with the next start", flush=True)
            return 130
    return 1 if num_failed else 0


def scores_so_far(results: Path, table: Table) -> dict[tuple[str, str, int], Score]:
    """Gives what earlier starts have scored, whichever part of the table they were asked for."""
    found = {}
    for algorithm in table.algorithms:
        for task in table.tasks:
            for path in results.glob(f"{run_id(task, algorithm, '*')}.json"):
                if not (number := path.stem.rpartition("-")[2]).isdigit():
                    continue  # of an algorithm whose name goes on
                score = scored_run(results, table, task, algorithm, int(number))
                if score is not None:
                    found[task, algorithm.name, int(number)] = score
    return found


def write(folder: Path, name: str, table: Table, scores: list[Score]) -> None:
    """Writes the table as it stands."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(scores, key=lambda score: (score.task, score.algorithm, score.seed))
    document = {
        "table": name,
        "max_steps": {task: table.max_steps(task) for task in table.tasks},
        "machine": machine.describe(),
        "scores": [asdict(score) for score in ordered],
    }
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(table, ordered))
    draw(table, ordered, folder / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
