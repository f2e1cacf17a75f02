"""Why a simulator's life has ended, in words for the user."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envs.bridge import launcher
from envs.bridge.session import Phase
from envs.errors import (
    BadDataError,
    SimulatorCrashedError,
    SimulatorDidNotStartError,
    SimulatorError,
    SimulatorTimedOutError,
    UnsupportedSpaceError,
    WrongProtocolError,
)

if TYPE_CHECKING:
    from envs.bridge.simulator import FleetPlan, Simulator

# What programs end with when the user gave them something they cannot use: argparse, envs.gym.
USAGE_EXIT_CODE = 2
# What Xlib, SDL, GLFW and Unity say last when there is no display, or no more.
DISPLAY_WORDS = re.compile(
    r"fatal IO error .* on X server|X connection to .* broken|no available video device|"
    r"(open|connect to) (the )?(X )?display|no screens found|Desktop is 0 x 0",
    re.IGNORECASE,
)
DISPLAY_ADVICE = (
    "It has no display, or has lost it: start Unity builds with --no-graphics, or give those with "
    "cameras a display that stays, such as `xvfb-run -a ppo-train ...`."
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a simulator is lost."""

    kind: type[SimulatorError]
    what: str  # it did, in words that follow its name
    advice: str = ""
    refusal: str | None = None  # why it must not be started again; None = as the limits say


BROKEN_CONNECTION = Cause(SimulatorCrashedError, "broke the connection")


def of_words(error: SimulatorError) -> Cause:
    """It is lost for what it has said."""
    what = f"sent bad data: {error}" if isinstance(error, BadDataError) else str(error)
    refusal = None
    if isinstance(error, WrongProtocolError):
        refusal = "a restart would not change the protocol that it speaks"
    elif isinstance(error, UnsupportedSpaceError):
        refusal = "a restart would not change what its agents observe"
    return Cause(type(error), what, refusal=refusal)


def of_silence(simulator: Simulator, plan: FleetPlan) -> Cause:
    """It is lost for what it has not said."""
    if simulator.has_hung_up:
        return Cause(SimulatorCrashedError, "broke the connection, though its process still runs")
    advice = "To wait longer: env_settings.timeout_wait."
    wait_s = plan.timeout_wait_s
    if simulator.session.phase is not Phase.GREETING:
        return Cause(SimulatorTimedOutError, f"did not answer within {wait_s:g} s", advice)
    advice = simulator.dial_advice() + advice
    return Cause(SimulatorDidNotStartError, f"did not dial the trainer within {wait_s:g} s", advice)


def of_end(simulator: Simulator, exit_code: int) -> Cause:
    """Its process has ended by itself."""
    words = launcher.exit_words(exit_code)
    refusal = None
    if exit_code == USAGE_EXIT_CODE:
        refusal = (
            f"exit code {exit_code} says that it was started with something it cannot use, which a "
            "restart would not change"
        )
    advice = DISPLAY_ADVICE if DISPLAY_WORDS.search(simulator.log_words()) else ""
    if simulator.session.phase is Phase.GREETING:
        what = f"ended before it dialled the trainer ({words})"
        return Cause(SimulatorDidNotStartError, what, advice, refusal)
    what = f"ended in the middle of the run ({words})"
    return Cause(SimulatorCrashedError, what, advice, refusal)
