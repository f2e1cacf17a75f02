"""A run's state in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainer.reporter import RunProgress, Speed


class RunCollector(Collector):
    """Turns the newest progress of a run into metrics, whenever it is asked."""

    def __init__(
        self,
        progress: Callable[[], RunProgress | None],
        num_queued: Callable[[], int],
        loop_age_s: Callable[[], float],
    ) -> None:
        """Takes what to ask; all of it must be safe to call from any thread.

        Args:
            progress: None before the first.
            num_queued: commands that wait for the loop.
            loop_age_s: seconds since the last turn of the loop.
        """
        self._progress = progress
        self._num_queued = num_queued
        self._loop_age_s = loop_age_s

    def collect(self) -> Iterator[Metric]:
        """Yields every metric once."""
        yield _gauge("loop_age_seconds", "Since the last turn of the loop.", self._loop_age_s())
        yield _gauge("commands_queued", "Commands that wait for the next turn.", self._num_queued())
        progress = self._progress()
        if progress is not None:
            yield from _of_behaviors(progress)
            yield from _of_run(progress)


def _of_behaviors(progress: RunProgress) -> Iterator[Metric]:
    steps = CounterMetricFamily(
        "ppo_train_steps", "Decisions of all agents so far.", labels=["behavior"]
    )
    most = GaugeMetricFamily(
        "ppo_train_max_steps", "Decisions after which training ends.", labels=["behavior"]
    )
    reward = GaugeMetricFamily(
        "ppo_train_mean_reward", "Mean return of the last 100 episodes.", labels=["behavior"]
    )
    length = GaugeMetricFamily(
        "ppo_train_mean_episode_length", "Mean length of these episodes.", labels=["behavior"]
    )
    for behavior in progress.behaviors:
        label = [behavior.name]
        steps.add_metric(label, behavior.step)
        most.add_metric(label, behavior.max_steps)
        if behavior.mean_reward is not None:
            reward.add_metric(label, behavior.mean_reward)
        if behavior.mean_length is not None:
            length.add_metric(label, behavior.mean_length)
    yield from (steps, most, reward, length)


def _of_run(progress: RunProgress) -> Iterator[Metric]:
    yield _gauge("steps_per_second", "Over the last seconds.", progress.steps_per_s)
    yield _gauge("elapsed_seconds", "Since this start of the run.", progress.elapsed_s)
    shares = GaugeMetricFamily(
        "ppo_train_time_share", "Share of the measured time, 0 to 1.", labels=["part"]
    )
    for part, share in progress.shares.items():
        shares.add_metric([part], share)
    yield shares
    if progress.learner_share is not None:
        words = "Share of that time in which the learner was busy beside the loop, 0 to 1."
        yield _gauge("learner_busy_share", words, progress.learner_share)
    if progress.speed is not None:
        yield from _of_speed(progress.speed)
    yield _gauge("simulators_alive", "Simulators not given up.", progress.num_simulators)
    yield _gauge("paused", "1 while the run is paused.", float(progress.is_paused))
    yield CounterMetricFamily(
        "ppo_train_simulator_restarts", "Restarts of simulators.", progress.num_restarts
    )
    yield CounterMetricFamily(
        "ppo_train_checkpoints", "Checkpoints since this start.", progress.num_checkpoints
    )


def _of_speed(speed: Speed) -> Iterator[Metric]:
    """Yields what is known of the time between the last two summaries."""
    known = (
        ("collecting_steps_per_second", "While collecting.", speed.collecting_steps_per_s),
        ("update_seconds", "Mean time of an update.", speed.seconds_per_update),
        ("decisions_per_forward_pass", "In the trainer.", speed.decisions_per_pass),
        ("idle_cores", "Of those that the run may use.", speed.idle_cores),
    )
    for name, meaning, value in known:
        if value is not None:
            yield _gauge(name, f"{meaning[:-1]}, up to the last summary.", value)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ppo_train_{name}", meaning, value)


def exposition(collector: RunCollector) -> bytes:
    """Gives all metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
