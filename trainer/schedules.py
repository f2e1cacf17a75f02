"""Numbers that fall while training goes on, with ML-Agents' floors."""

from __future__ import annotations

from typing import Literal

LEARNING_RATE_FLOOR = 1e-10
EPSILON_FLOOR = 0.1
BETA_FLOOR = 1e-5


def scheduled(
    kind: Literal["linear", "constant"], initial: float, floor: float, step: int, max_steps: int
) -> float:
    """Gives a scheduled number at a step.

    `linear` goes straight from `initial` at step 0 to `floor` at `max_steps`, and stays there.
    ML-Agents lets a number that starts below its floor rise to it; here it keeps its value, so that
    `beta: 0` means no entropy bonus and `epsilon: 0.05` never loosens.

    Args:
        kind: whether the number falls at all.
        initial: at step 0.
        floor: lowest number that `linear` falls to.
        step: decisions so far; what is over `max_steps` does not count.
        max_steps: decisions of the whole run.
    """
    if kind == "constant" or initial <= floor:
        return initial
    left = 1 - min(step, max_steps) / max_steps
    return (initial - floor) * left + floor
