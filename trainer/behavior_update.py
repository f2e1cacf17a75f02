"""One update of one behaviour: taken out of the step log, carried out, and settled.

Letters: R reward signals, B decisions of the rollout.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from trainer.algos.base import Update
from trainer.checkpoint import DIVERGED
from trainer.divergence import LOWER, Before, DivergedError, Divergence, broken_part, dump_rollout
from trainer.rollout.policy_lag import PolicyLag, complete_rows, lag_of
from trainer.rollout.rollout import Rollout
from trainer.rollout.segments import finished_segments

if TYPE_CHECKING:
    from trainer.behavior import Behavior


class BehaviorUpdate:
    """What is in the step log when it is built, on its way into the weights."""

    def __init__(self, behavior: Behavior) -> None:
        """Takes all complete rows out of the behaviour's step log."""
        self._behavior = behavior
        self.is_carried_out = False
        self._step = behavior.step  # schedules depend on it
        settings = behavior.settings
        whole_episodes = settings.hyperparameters.needs_whole_episodes
        self._lag: PolicyLag | None = None
        if behavior.is_threaded:
            rows = complete_rows(behavior.log)
            if whole_episodes:
                rows = finished_segments(behavior.log, settings.time_horizon).rows
            self._lag = lag_of(behavior.log, rows, behavior.num_updates)
        self._rollout, self._simulator_reward = behavior.take_rollout()

    def carry_out(self) -> None:
        """Changes the weights, or leaves them as they were if that fails.

        Touches policy, algorithm and rewards of the behaviour only, so that another thread may do
        it while the behaviour acts and collects.
        """
        behavior, rollout = self._behavior, self._rollout
        rewards = [signal.evaluate(rollout, self._simulator_reward) for signal in behavior.rewards]
        rollout = dataclasses.replace(rollout, rewards=torch.stack(rewards, dim=1))  # R x (B,)
        self._rollout = rollout
        self._before = before = Before(behavior.policy, behavior.algorithm)
        behavior.is_sound = False
        try:
            self._update = behavior.algorithm.update(rollout, self._step)
            # Only now, so that rows collected since the last one began with a ratio of 1.
            behavior.policy.update_normalizer(rollout.obs)
        except Exception:
            # Half an update is no state to save; what was there before is.
            before.restore(behavior.policy, behavior.algorithm)
            behavior.is_sound = True
            raise
        self._broken = broken_part(behavior.policy, behavior.algorithm, self._update)
        behavior.is_sound = self._broken is None
        self.is_carried_out = True

    def settle(self) -> Divergence | None:
        """Counts the update and publishes its weights, or takes it back if it broke them.

        Raises:
            DivergedError: it broke them for the second time.
        """
        behavior, update = self._behavior, self._update
        if self._broken is not None:
            return _take_back(behavior, self._before, self._rollout, update, self._broken)
        behavior.metrics.add(update.statistics)
        if update.mean_values is not None:
            for i, signal in enumerate(behavior.settings.reward_signals):
                tag = f"Policy/{signal.capitalize()} Value Estimate"
                behavior.metrics.add({tag: update.mean_values[i]})
        if self._lag is not None:
            behavior.metrics.add({"Policy/Lag": self._lag.mean})
            behavior.metrics.add_largest("Policy/Largest Lag", float(self._lag.largest))
        behavior.num_updates += 1
        behavior.log.policy_version = behavior.num_updates
        behavior.actor.refresh()
        return None


def _take_back(
    behavior: Behavior, before: Before, rollout: Rollout, update: Update, what: str
) -> Divergence:
    """Restores what was good, keeps the rollout in a file, and lowers the learning rate once.

    Raises:
        DivergedError: it has been lowered already.
    """
    is_first = behavior.learning_rate_factor == 1.0
    if is_first:
        behavior.learning_rate_factor = LOWER
        behavior.algorithm = behavior.new_algorithm(0)  # its generator is restored
    before.restore(behavior.policy, behavior.algorithm)
    behavior.is_sound = True
    number = behavior.num_updates + 1
    path, error = behavior.folder / f"{DIVERGED}{behavior.step}.pt", None
    try:
        dump_rollout(path, rollout, before, update, what)
    except OSError as failure:  # told with the rest: the weights are safe without the file
        error = str(failure)
    rate = behavior.settings.hyperparameters.learning_rate * behavior.learning_rate_factor
    taken_back = Divergence(
        number, behavior.step, what, None if error else path, error, learning_rate=rate
    )
    if not is_first:
        raise DivergedError(
            f"Behavior '{behavior.name}' diverged for the second time: {taken_back.text} "
            f"Go on with a lower learning_rate than {rate:g}, a max_grad_norm, or rewards that "
            f"are not as large."
        )
    return taken_back
