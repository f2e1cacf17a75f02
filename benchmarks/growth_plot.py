"""Draws what an agent-step costs along every axis of `growth.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

Curves = Mapping[str, Sequence[float]]
"""Part -> microseconds per agent-step, one for each value of the axis."""
AXIS_WORDS = {
    "simulators": "simulators",
    "agents": "agents per simulator",
    "observation": "floats per observation",
    "image": "pixels of a side, three channels",
    "buffer": "buffer_size, decisions",
}


def draw(axes: Mapping[str, tuple[Sequence[float], Curves]], path: Path) -> None:
    """Writes one panel for each axis, both scales logarithmic, the parts stacked as lines.

    Args:
        axes: axis -> its values, and the curves over them.
        path: of the SVG file.
    """
    if not axes:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "growth"  # the same figures give the same file
    figure, panels = pyplot.subplots(
        1, len(axes), figsize=(3.2 * len(axes), 3.4), squeeze=False, sharey=False
    )
    for panel, (axis, (values, curves)) in zip(panels[0], axes.items(), strict=True):
        totals = [sum(parts) for parts in zip(*curves.values(), strict=True)]
        panel.plot(values, totals, "k-o", markersize=3, linewidth=1.6, label="all")
        for part, microseconds in curves.items():
            # What is below a hundredth of a microsecond is not worth a line.
            shown = [max(value, 0.01) for value in microseconds]
            panel.plot(values, shown, "-o", markersize=2, linewidth=0.9, label=part)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(AXIS_WORDS[axis])
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("us per agent-step")
    panels[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
