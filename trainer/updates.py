"""When behaviours learn: in turn with collection, or beside it, in a thread of their own.

In turn, the loop stands still while a behaviour learns. With `threaded` a learner thread carries
the update out, and the loop goes on with the policy of the last update that is over. Only one
update of a behaviour is under way; when its step log is full again before that ends, the loop
waits, so that the policy that acts is never further behind than that. There is one learner thread
for all behaviours: two would not share the cores any better, and would fight for Python's lock.

torch counts its threads per thread that asks: the learner has its own number, the loop stays at 1.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Self

import torch

from trainer.behavior import Behavior
from trainer.behavior_update import BehaviorUpdate
from trainer.config.settings import BehaviorSettings
from trainer.device import OwnStream
from trainer.divergence import Divergence
from trainer.timers import LEARNING, WAITING

if TYPE_CHECKING:
    from trainer.run import Run

WORTH_A_WARNING = 0.1  # share of a rollout that was too old


def _use_threads(number: int) -> None:
    """Gives the thread that calls it this number of torch threads, for good."""
    torch.get_num_threads()  # else torch takes the newest number of any thread at the first work
    torch.set_num_threads(number)


class Updates:
    """Carries out updates. All methods belong to the loop's thread.

    A context manager: leaving it waits for the learner.
    """

    def __init__(self, run: Run) -> None:
        """Starts no thread yet."""
        self._run = run
        self._learner: ThreadPoolExecutor | None = None
        self._stream = OwnStream(run.device)
        self._under_way: dict[str, Future[float]] = {}  # by behaviour; gives seconds
        self._warned: set[str] = set()  # behaviours whose decisions were too old

    def __enter__(self) -> Self:
        """Begins."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the learner thread, once its update is over."""
        if self._learner is not None:
            self._learner.shutdown()

    def is_beside(self, settings: BehaviorSettings) -> bool:
        """Whether a behaviour is to learn beside collection."""
        return settings.threaded and self._run.is_training and self.why_in_turn() is None

    def why_in_turn(self) -> str | None:
        """Says why no update of this run can be beside collection; None: they can."""
        if self._run.lockstep:
            return "the run is reproducible"
        if self._run.settings.env_settings.is_on_device:
            return "its environments act with the very weights that learn"
        return None

    def meet(self, behavior: Behavior) -> None:
        """Says how a behaviour that asks for `threaded` will learn, and gets ready for it."""
        run, settings = self._run, behavior.settings
        if not settings.threaded or not run.is_training:
            return
        if not behavior.is_threaded:
            run.reporter.info(
                f"Behavior '{behavior.name}' is threaded, but {self.why_in_turn()}: its updates "
                f"run in turn with collection."
            )
            return
        if self._learner is None:
            self._learner = ThreadPoolExecutor(1, "learner")
            run.timers.add(WAITING)
            self._learner.submit(_use_threads, run.learning_threads).result()
            torch.set_num_threads(1)  # what threads that are to come begin with
        run.reporter.info(
            f"Behavior '{behavior.name}' learns beside collection (threaded), with "
            f"{run.learning_threads} torch thread(s); decisions that were chosen more than "
            f"{settings.policy_lag_bound} updates before are dropped."
        )

    def turn(self) -> None:
        """Lets every behaviour learn that can; once per turn of the loop.

        Raises:
            DivergedError: an update has broken the weights twice; they are as they were before.
            Exception: whatever an update has raised; likewise.
        """
        run = self._run
        for behavior in run.behaviors.values():
            if behavior.is_threaded:
                self._turn_beside(behavior)
            elif behavior.is_ready_to_learn and not run.placement.awaits(behavior):
                with run.timers.measure(LEARNING), run.control.pulse.long_part():
                    torch.set_num_threads(run.learning_threads)
                    divergence = behavior.learn()
                    torch.set_num_threads(1)  # collecting shares the cores with the simulators
                    self._after(behavior, divergence)

    def finish(self) -> None:
        """Waits until no update is under way: a state is never taken from half of one.

        Raises:
            Exception: see `turn`; of several the first, once all are over.
        """
        failures: list[Exception] = []
        for name in list(self._under_way):
            try:
                self._settle(self._run.behaviors[name])
            except Exception as failure:  # raised below, once the others are over
                failures.append(failure)
        if failures:
            raise failures[0]

    def _turn_beside(self, behavior: Behavior) -> None:
        run = self._run
        is_full = behavior.is_ready_to_learn
        under_way = self._under_way.get(behavior.name)
        if under_way is not None and (is_full or under_way.done()):
            self._settle(behavior)
            if run.storage.due([behavior]):
                return  # now, between two updates; the next one begins with the next turn
        is_free = behavior.name not in self._under_way
        if is_full and is_free and (not run.is_paused or behavior.is_finished):
            self._begin(behavior)

    def _begin(self, behavior: Behavior) -> None:
        """Hands the step log over to the learner, unless too much of it is too old."""
        run = self._run
        with run.timers.measure(LEARNING):
            num_complete = behavior.log.num_complete
            num_stale = behavior.drop_stale()
            if num_stale > WORTH_A_WARNING * num_complete and behavior.name not in self._warned:
                self._warned.add(behavior.name)
                run.reporter.warning(
                    f"Behavior '{behavior.name}': {num_stale:,} of {num_complete:,} decisions were "
                    f"dropped, because they were chosen more than max_policy_lag "
                    f"{behavior.settings.policy_lag_bound} updates before. Episodes, or the time "
                    f"between an agent's decisions, are longer than that: raise max_policy_lag or "
                    f"buffer_size, or set threaded to false. Policy/Stale Steps goes on counting."
                )
            if not behavior.is_ready_to_learn:
                return
            update = behavior.begin_update()
            if update is not None:
                assert self._learner is not None, "`meet` has started it"
                self._under_way[behavior.name] = self._learner.submit(self._carry_out, update)

    def _carry_out(self, update: BehaviorUpdate) -> float:
        """Learns, in the learner's thread; gives the seconds that it took."""
        began = time.perf_counter()
        with self._stream.used():
            update.carry_out()
        return time.perf_counter() - began

    def _settle(self, behavior: Behavior) -> None:
        """Waits for the update under way and publishes what it has learnt."""
        run, under_way = self._run, self._under_way.pop(behavior.name)
        if not under_way.done():
            with run.timers.measure(WAITING), run.control.pulse.long_part():
                wait([under_way])
        with run.timers.measure(LEARNING):
            divergence = behavior.end_update()
            run.timers.count_beside(under_way.result())
            self._after(behavior, divergence)

    def _after(self, behavior: Behavior, divergence: Divergence | None) -> None:
        """Gives memory back, and tells of an update that was taken back."""
        self._run.memory_return.after_update()
        if divergence is None:
            return
        self._run.reporter.warning(
            f"Behavior '{behavior.name}' diverged: {divergence.text} Going on with learning "
            f"rate {divergence.learning_rate:g}; a second time ends the run."
        )
        self._run.storage.tell_divergence(behavior.name, divergence)
