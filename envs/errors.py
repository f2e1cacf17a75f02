"""What can go wrong with a simulator, as words the rest of the program can catch."""

from __future__ import annotations


class SimulatorError(Exception):
    """A simulator cannot go on; printed without a stack trace, and the process exits with 2."""


class SimulatorDidNotStartError(SimulatorError):
    """The program could not be launched, or it never dialled the trainer."""


class SimulatorTimedOutError(SimulatorError):
    """The simulator was silent for longer than `env_settings.timeout_wait` seconds."""


class SimulatorCrashedError(SimulatorError):
    """The simulator's process ended, or its connection broke, in the middle of a run."""


class SimulatorClosedError(SimulatorError):
    """The simulator said goodbye (header status 400), such as Stop in the Unity Editor."""


class WrongProtocolError(SimulatorError):
    """The simulator speaks a protocol version that this trainer does not."""


class BadDataError(SimulatorError):
    """A message that cannot be read, changes its shapes, or holds NaN or infinite numbers."""


class UnsupportedSpaceError(SimulatorError):
    """An observation or action space that no sensor or actuator of ML-Agents can carry."""
