"""When a behaviour's checkpoint is due, and whether it is one that stays."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainer.behavior import Behavior
from trainer.config.settings import CheckpointSettings


class CheckpointSchedule:
    """Steps, milestones and time since the last checkpoint, for all behaviours of a run."""

    def __init__(
        self, settings: CheckpointSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Starts the clock.

        Args:
            settings: of the run.
            clock: gives seconds.
        """
        self._interval_s = settings.checkpoint_interval_s
        self._milestone_interval = settings.milestone_interval
        self._clock = clock
        self._saved_s: dict[str, float] = {}
        self._saved_step: dict[str, int] = {}

    def begin(self, behavior: Behavior) -> None:
        """Takes note of where a behaviour starts: nothing is to be saved there."""
        self._saved_s[behavior.name] = self._clock()
        self._saved_step[behavior.name] = behavior.saved_step

    def is_due(self, behavior: Behavior) -> bool:
        """Whether to save a behaviour now; finished ones are saved at the end of the run."""
        if behavior.is_finished or behavior.update is not None:  # never half an update
            return False
        is_between_updates = behavior.has_just_learned  # nothing that matters is in the log
        if is_between_updates and (behavior.is_checkpoint_due or self.is_milestone(behavior)):
            return True
        # By the clock also in the middle of collecting: what was learnt must not grow old.
        return (
            self._interval_s is not None
            and self._clock() - self._saved_s[behavior.name] >= self._interval_s
            and behavior.saved_step > self._saved_step[behavior.name]
        )

    def is_milestone(self, behavior: Behavior) -> bool:
        """Whether a multiple of `milestone_interval` was passed since the last checkpoint."""
        every = self._milestone_interval
        if every is None:
            return False
        return behavior.saved_step // every > self._saved_step[behavior.name] // every

    def saved(self, behavior: Behavior) -> None:
        """Takes note that a behaviour has just been saved."""
        self.begin(behavior)
        behavior.plan_next_checkpoint()
