"""Whether a simulator that is lost starts again, and how long it waits for that."""

from __future__ import annotations

import time
from typing import Protocol

from envs.bridge.simulator import FleetPlan

REMEMBERED_S = 600.0  # restarts longer ago make nobody wait
LONGEST_DELAY_S = 60.0


class Restarted(Protocol):
    """Whatever is started again, in a process of its own or in the trainer's."""

    num_restarts: int
    restart_times: list[float]  # as `time.monotonic` has them


def refusal(simulator: Restarted, plan: FleetPlan, *, has_ever_connected: bool) -> str | None:
    """Gives why a simulator is not to be started again, None when it is.

    Args:
        simulator: the one that is lost.
        plan: the fleet's.
        has_ever_connected: any simulator of the fleet.
    """
    if not plan.is_ours and plan.door is None:
        return "only Unity can start it again"
    if not has_ever_connected:
        return "no simulator has ever connected"
    if 0 <= plan.max_lifetime_restarts <= simulator.num_restarts:
        return (
            f"it has been restarted {_times(simulator.num_restarts)} "
            "(env_settings.max_lifetime_restarts)"
        )
    recent = num_recent(simulator, plan.restarts_rate_limit_period_s)
    if 0 <= plan.restarts_rate_limit_n <= recent:
        return (
            f"it has been restarted {_times(recent)} within the last "
            f"{plan.restarts_rate_limit_period_s:g} s (env_settings.restarts_rate_limit_n and "
            "restarts_rate_limit_period_s)"
        )
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def delay_s(simulator: Restarted, plan: FleetPlan) -> float:
    """Gives how long the next restart waits: not at first, then twice as long every time."""
    recent = num_recent(simulator, REMEMBERED_S)
    if recent == 0 or not plan.is_ours:  # who dials by itself must not find nobody listening
        return 0.0
    longest = max(LONGEST_DELAY_S, plan.restart_delay_s)
    return float(min(plan.restart_delay_s * 2 ** min(recent - 1, 32), longest))


def announcement(simulator: Restarted, plan: FleetPlan, delay_s: float) -> str:
    """Says which restart this is, and when it comes."""
    limit = plan.max_lifetime_restarts
    of_limit = f" of {limit}" if limit >= 0 else ""
    wait = f" in {delay_s:g} s" if delay_s else ""
    what_now = "Restarting" if plan.launch else "It may dial again"
    return f"{what_now}{wait} ({simulator.num_restarts}{of_limit})."


def num_recent(simulator: Restarted, period_s: float) -> int:
    """Counts the restarts of the last `period_s` seconds."""
    since = time.monotonic() - period_s
    return sum(moment > since for moment in simulator.restart_times)
