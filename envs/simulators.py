"""What a run asks of its simulators, wherever they are: in processes of their own, or in its own.

`envs.fleet.Fleet` reaches simulators over sockets, `envs.in_process.fleet.InProcessFleet` steps
environments in the trainer's process, for those that are too fast for a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from envs.batch import Actions, Int64
from envs.bridge.assignments import Assignment
from envs.bridge.side_channels import Sampler
from envs.bridge.simulator_message import SimulatorMessage
from envs.errors import SimulatorError


@dataclass(frozen=True, slots=True)
class SimulatorLoss:
    """A simulator is gone: all these lanes are void from now on."""

    simulator: int
    lanes: dict[str, Int64]  # by behaviour name
    error: SimulatorError  # complete for the user
    will_restart: bool


class Simulators(Protocol):
    """All simulators of a run. Use it as a context manager: leaving it ends the simulators.

    All methods belong to one thread; only `recv` waits.
    """

    codec_seconds: float  # spent so far on translating what simulators say and hear

    def __enter__(self) -> Self:
        """Starts the simulators."""
        ...

    def __exit__(self, *_: object) -> None:
        """Ends the simulators."""
        ...

    @property
    def num_alive(self) -> int:
        """How many simulators have not been given up."""
        ...

    @property
    def pids(self) -> list[int | None]:
        """The processes of simulators that the trainer has started, by number."""
        ...

    @property
    def num_restarts(self) -> int:
        """How often simulators were started again after a loss."""
        ...

    def recv(self, timeout_s: float | None = None) -> list[SimulatorMessage | SimulatorLoss]:
        """Waits until a simulator has news, then gives all that is ready, one per simulator.

        A lane that ends in one result is not used again before the next call. Columns of messages
        may be overwritten by the next call.

        Args:
            timeout_s: None = wait as long as it takes.

        Returns:
            Messages, each to be answered with `send`, and losses; [] when the time is over.

        Raises:
            SimulatorError: no simulator is left, and all losses have been delivered.
        """
        ...

    def send(self, simulator: int, actions: Mapping[str, Actions]) -> None:
        """Answers a simulator's message; never waits.

        Args:
            simulator: its number.
            actions: by behaviour id, row for row as the message's decisions. Agents of a behaviour
                that is missing get zero actions.
        """
        ...

    def can_act(self, simulator: int) -> bool:
        """Whether a simulator can be given a policy, to act for itself."""
        ...

    def assign(self, simulator: int, assignment: Assignment) -> None:
        """Answers a delivered message of a simulator that `can_act`, as `send` does."""
        ...

    def most_steps(self, simulator: int) -> int:
        """How many env_steps a simulator that waits for an assignment may get."""
        ...

    def relaunch(self, seed: int) -> dict[str, Int64]:
        """Ends all simulators and starts them again with another seed.

        Returns:
            The lanes that are void from now on, by behaviour name.
        """
        ...

    def set_environment_parameters(self, parameters: Mapping[str, float | Sampler]) -> None:
        """Gives all environment parameters, for the episodes that begin from now on."""
        ...
