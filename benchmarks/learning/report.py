"""The scores of a table as Markdown and as curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.learning.runs import Score
from benchmarks.learning.tables import Table


def markdown(table: Table, scores: Sequence[Score]) -> str:
    """Writes mean (lowest to highest) over seeds: last 100 training / 20 evaluation episodes."""
    lines = [f"| | {' | '.join(table.tasks)} |", "|---" * (len(table.tasks) + 1) + "|"]
    for algorithm in table.algorithms:
        cells = [
            cell([score for score in scores if (score.task, score.algorithm) == (task, name)])
            for name in [algorithm.name]
            for task in table.tasks
        ]
        lines.append(f"| {algorithm.name} | {' | '.join(cells)} |")
    if table.wanted:
        verdicts = [
            verdict(table.wanted[task], [score for score in scores if score.task == task])
            for task in table.tasks
        ]
        lines.append(f"| wanted of the median seed's evaluation | {' | '.join(verdicts)} |")
    return "\n".join(lines) + "\n"


def cell(scores: Sequence[Score]) -> str:
    """Writes the scores of one task and algorithm."""
    if not scores:
        return "not run"
    training = [each.training_return for each in scores if each.training_return is not None]
    shown = [spread(training) if training else "no episode ended"]
    shown.append(spread([each.evaluation_return for each in scores]))
    return f"{' / '.join(shown)}; {len(scores)} seed{'s' if len(scores) > 1 else ''}"


def verdict(wanted: float, scores: Sequence[Score]) -> str:
    """Writes what was wanted of a task and whether the median over seeds is at least that."""
    if not scores:
        return f"{wanted:g}"
    median = float(np.median([each.evaluation_return for each in scores]))
    return f"{wanted:g}: {'met' if median >= wanted else '**not met**'}, median {median:.1f}"


def spread(values: Sequence[float]) -> str:
    """Writes mean, lowest and highest."""
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def draw(table: Table, scores: Sequence[Score], path: Path) -> None:
    """Draws the mean training return with the interquartile band over seeds, a panel per task."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(len(table.tasks), 4)
    rows = -(-len(table.tasks) // columns)
    figure, panels = pyplot.subplots(
        rows, columns, figsize=(4 * columns, 3.2 * rows), dpi=100, squeeze=False
    )
    for panel in panels.flat[len(table.tasks) :]:
        panel.axis("off")
    for panel, task in zip(panels.flat, table.tasks, strict=False):
        grid = np.linspace(0, table.max_steps(task), 101)
        for algorithm in table.algorithms:
            curves = [
                np.interp(grid, score.steps, score.returns)
                for score in scores
                if (score.task, score.algorithm) == (task, algorithm.name) and score.steps
            ]
            if not curves:
                continue
            low, high = np.percentile(curves, [25, 75], axis=0)
            panel.plot(grid, np.mean(curves, axis=0), label=f"{algorithm.name} ({len(curves)})")
            panel.fill_between(grid, low, high, alpha=0.2)
        panel.set_title(task)
        panel.set_xlabel("steps")
        panel.grid(alpha=0.3)
    panels.flat[0].set_ylabel("mean return while training")
    panels.flat[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
