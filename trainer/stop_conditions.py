"""When a behaviour has learnt enough: a mean return that is reached, or that rises no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.config.behavior_settings import BehaviorStopSettings


class StopConditions:
    """Looks at one behaviour's mean return, once per summary."""

    def __init__(self, settings: BehaviorStopSettings) -> None:
        self._settings = settings
        self._best: float | None = None
        self._best_step = 0
        self.reason: str | None = None  # why training may end, as of the last summary

    def observe(self, step: int, recent_returns: Sequence[float]) -> None:
        """Takes the returns of the last (at most 100) episodes, as they are at a summary.

        Args:
            step: of the summary.
            recent_returns: fewer than `min_episodes` say nothing.
        """
        self.reason = None
        if len(recent_returns) < self._settings.min_episodes:
            return
        mean = sum(recent_returns) / len(recent_returns)
        threshold, plateau = self._settings.threshold, self._settings.plateau
        if threshold is not None and mean >= threshold:
            self.reason = (
                f"mean reward {mean:.3f} of the last {len(recent_returns)} episodes has reached "
                f"stop.threshold {threshold:g} at step {step}"
            )
        if plateau is None:
            return
        if self._best is None or mean > self._best + plateau.min_delta:
            self._best, self._best_step = mean, step
        elif step - self._best_step >= plateau.patience and self.reason is None:
            self.reason = (
                f"mean reward has not risen by more than stop.plateau.min_delta "
                f"{plateau.min_delta:g} above {self._best:.3f} (step {self._best_step}) for "
                f"{step - self._best_step} steps"
            )

    def state_dict(self) -> dict[str, object]:
        """Gives the best mean return so far and its step."""
        return {"best": self._best, "best_step": self._best_step}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Goes on from what `state_dict` gave."""
        best, step = state["best"], state["best_step"]
        assert best is None or isinstance(best, float)
        assert isinstance(step, int)
        self._best, self._best_step = best, step
