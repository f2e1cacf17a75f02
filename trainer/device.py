"""Which device learns, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.config.errors import ConfigError
from trainer.config.settings import BehaviorSettings, RunSettings, TorchSettings
from trainer.machine import num_cores

# A minibatch below this many multiply-adds is faster on one thread: two took 1.0 to 1.3 times as
# long at 0.7 and 2.2 million, and half as long at 2,600 million (reference: speed, "The update").
ONE_THREAD_MULTIPLY_ADDS = 20e6


def choose_device(settings: TorchSettings) -> torch.device:
    """Gives `torch_settings.device`; without it cuda if there is one, else the CPU.

    Raises:
        ConfigError: the device does not exist on this machine.
    """
    if settings.device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # The normaliser counts in float64, which not every device has.
        torch.empty(1, device=settings.device, dtype=torch.float64)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"torch_settings.device is {settings.device}, but PyTorch {torch.__version__} cannot "
            f"use it here: {reason}. Set it to cpu, or leave it out."
        ) from error
    return torch.device(settings.device)


class OwnStream:
    """Lets one thread use a GPU beside the others; on another device it does nothing.

    What threads ask of a GPU is done in one order unless they have streams of their own.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's

    @contextmanager
    def used(self) -> Iterator[None]:
        """Begins behind what was asked before, and ends once all that was asked inside is done."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.default_stream(self._stream.device))
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._stream.synchronize()


def choose_num_threads(settings: RunSettings) -> int:
    """Gives the threads of an update: `torch_settings.num_threads`, else by the work in it."""
    if settings.torch_settings.num_threads is not None:
        return settings.torch_settings.num_threads
    behaviors = list(settings.behaviors.values())
    if settings.default_settings is not None:
        behaviors.append(settings.default_settings)
    work = max((_multiply_adds(behavior) for behavior in behaviors), default=0.0)
    return 1 if work < ONE_THREAD_MULTIPLY_ADDS else max(1, int(num_cores()))


def _multiply_adds(behavior: BehaviorSettings) -> float:
    """Estimates the multiply-adds of one minibatch's forward pass, actor and critic."""
    network = behavior.network_settings
    per_row = 2 * network.num_layers * network.hidden_units**2
    hyperparameters = behavior.hyperparameters
    return float(per_row * (hyperparameters.minibatch_size or hyperparameters.buffer_size))
