"""What a run tells while it goes on: summaries, progress, and where its time goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trainer.reporter import BehaviorProgress, RunProgress, RunSummary
from trainer.speed_watch import SpeedWatch
from trainer.speedometer import Speedometer

if TYPE_CHECKING:
    from trainer.behavior import Behavior, Summary
    from trainer.run import Run

PROGRESS_S = 0.25
TIMERS_S = 30.0


class RunReport:
    """Looks at a run once per turn of its loop, and tells what is due."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.speed = SpeedWatch(run)
        self._speedometer = Speedometer()
        self._next_progress_s = 0.0
        self._next_timers_s = 0.0

    def turn(self) -> None:
        """Tells summaries as they are due, progress a few times per second, timers now and then."""
        run = self._run
        self.speed.meet()
        for behavior in run.behaviors.values():
            if not behavior.is_summary_due:
                continue
            measured = self.speed.measure(behavior)
            behavior.metrics.add(measured.scalars)
            summary = behavior.summary_if_due()
            assert summary is not None
            self._tell_summary(behavior, summary, measured.bottleneck)
        chosen = run.placement.observe(run.total_steps, run.timers.collecting_s)
        for choice in (chosen, run.count.observe()):
            if choice is not None:
                run.reporter.info(choice)
        now = time.perf_counter()
        if now < self._next_progress_s:
            return
        self._next_progress_s = now + PROGRESS_S
        progress = self.progress()
        run.control.publish(progress)
        run.reporter.progress(progress)
        if now >= self._next_timers_s:
            self._next_timers_s = now + TIMERS_S
            run.storage.write_timers(run.timers)

    def _tell_summary(self, behavior: Behavior, summary: Summary, bottleneck: str | None) -> None:
        """Shows a summary and writes it down."""
        run = self._run
        is_training = run.is_training and not behavior.is_finished
        elapsed_s = run.timers.elapsed_s
        run.reporter.summary(
            RunSummary(
                behavior.name,
                summary.step,
                elapsed_s,
                summary.mean_reward,
                summary.std_of_reward,
                is_training,
                bottleneck,
            )
        )
        run.storage.tell(
            "summary",
            summary.step,
            behavior=behavior.name,
            elapsed_s=round(elapsed_s, 3),
            num_episodes=summary.num_episodes,
            mean_reward=summary.mean_reward,
            std_of_reward=summary.std_of_reward,
            is_training=is_training,
            bottleneck=bottleneck,
            values=summary.scalars,
        )
        shown = {**summary.scalars, "Step": summary.step, "Is Training": float(is_training)}
        for tag, value in shown.items():
            # ML-Agents' name of it: `Walker.Policy.LearningRate.mean`
            dotted = tag.replace("/", ".").replace(" ", "")
            run.timers.gauge(f"{behavior.name}.{dotted}.mean", value)

    def progress(self) -> RunProgress:
        """Says how far everything is."""
        run = self._run
        behaviors = tuple(
            BehaviorProgress(
                behavior.name,
                behavior.step,
                behavior.settings.max_steps,
                behavior.mean_recent_return,
                behavior.mean_recent_length,
            )
            for behavior in run.behaviors.values()
        )
        total = sum(behavior.step for behavior in behaviors)
        speed = self._speedometer.read(total)
        left = sum(max(0, behavior.max_steps - behavior.step) for behavior in behaviors)
        return RunProgress(
            behaviors,
            speed,
            run.timers.elapsed_s,
            left / speed if speed > 0 and behaviors else None,
            run.timers.shares(),
            run.fleet.num_alive,
            run.storage.last_checkpoint,
            run.fleet.num_restarts,
            run.storage.num_checkpoints,
            run.is_paused,
            run.timers.learner_share,
            self.speed.bottleneck,
            self.speed.newest,
        )
