"""Everything one behaviour owns: it collects, learns, and says how it is doing.

Letters: R reward signals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from envs.batch import Actions, Decisions, Terminals
from envs.spec import BehaviorSpec
from trainer.actor import Actor
from trainer.algos.base import Algorithm
from trainer.algos.registry import build_algorithm
from trainer.behavior_match import require_same_behavior
from trainer.behavior_update import BehaviorUpdate
from trainer.config.settings import BehaviorSettings
from trainer.description import describe
from trainer.divergence import LOWER, Divergence
from trainer.live_settings import Changes, in_words, noted, with_changes
from trainer.memory_budget import memory_budget
from trainer.metrics import Metrics
from trainer.rewards.extrinsic import ExtrinsicReward
from trainer.rollout.episodes import EpisodeTracker
from trainer.rollout.finished_rows import FinishedRows
from trainer.rollout.policy_lag import drop_stale
from trainer.rollout.rollout import Rollout
from trainer.rollout.segments import take
from trainer.rollout.steplog import StepLog
from trainer.saved_policy import build_policy, spec_to_state
from trainer.stop_conditions import StopConditions

LEARNING_RATES = ("learning_rate", "critic_learning_rate")


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """How a behaviour has done since the last summary."""

    step: int
    num_episodes: int
    mean_reward: float | None  # None: no episode was completed
    std_of_reward: float | None
    scalars: Mapping[str, float]  # what TensorBoard shows, by tag


class Behavior:
    """One behaviour name: policy, algorithm, step log and statistics, for all its simulators."""

    def __init__(
        self,
        name: str,
        spec: BehaviorSpec,
        settings: BehaviorSettings,
        folder: Path,
        *,
        seed: int,
        device: torch.device,
        is_training: bool,
        state: Mapping[str, object] | None,
        starts_at_zero: bool,
        is_threaded: bool = False,
    ) -> None:
        """Builds the networks and, if there is a state, goes on from it.

        Args:
            name: without `?team=`.
            spec: what the simulators said of it.
            settings: resolved.
            folder: `<results>/<run>/<name>`.
            seed: of weights, actions and minibatches.
            device: where networks and rollouts lie.
            is_training: False: act, but never learn.
            state: of a checkpoint, or None for fresh weights.
            starts_at_zero: take weights and optimiser of `state`, but not its step
                (`initialize_from`).
            is_threaded: updates run beside collection, as `threaded` of the settings asks for.
        """
        self.name = name
        self.spec = spec
        self.live_changes: Changes = {}  # by `ppo-train set`, also before a resume
        if state is not None and is_training and not starts_at_zero:
            saved_changes = state.get("live_changes", {})
            assert isinstance(saved_changes, dict)
            settings, self.live_changes = with_changes(name, settings, saved_changes)
        self.settings = settings
        self.folder = folder
        self.device = device
        self.is_training = is_training
        self.is_sound = True  # False while an update changes the weights
        torch.manual_seed(seed)  # the layers' first weights
        self.policy = build_policy(name, spec, settings).to(device)
        self.rewards = [ExtrinsicReward(signal) for signal in settings.reward_signals.values()]
        self.learning_rate_factor = 1.0  # lower after an update that had to be taken back
        self.algorithm = self.new_algorithm(seed + 1)
        self.is_threaded = is_threaded
        self.actor, self.log = self._new_collector(seed + 2)
        self.memory = memory_budget(spec, settings, self.policy, self.log, is_training=is_training)
        self.update: BehaviorUpdate | None = None  # that was begun and not settled
        self._is_between_updates = False  # and nothing was taken from the log since the last
        self.episodes = EpisodeTracker()
        self.stop_conditions = StopConditions(settings.stop)
        self.step = self.num_updates = 0
        self._summarised_step = 0  # of the last summary
        if state is not None and starts_at_zero:
            self._take_weights(state)
        elif state is not None:
            self.load_state_dict(state)
        self.log.policy_version = self.num_updates
        goes_on = is_training and state is not None and not starts_at_zero
        # Acting alone leaves the curves of training as they are.
        events = folder if is_training else folder / "inference"
        # A stop may have come after a summary, but before an update learned from all of its steps.
        shown = max(self.step, self._summarised_step)
        self.metrics = Metrics(events, shown if goes_on else None)
        self.metrics.write_settings(settings, self.step)
        self._next_summary = _next_multiple(shown, settings.summary_freq)
        self._next_checkpoint = _next_multiple(self.step, settings.checkpoint_interval)

    def _new_collector(self, seed: int) -> tuple[Actor, StepLog]:
        """Builds what acts, and what it is written into."""
        settings, own = self.settings, self.settings.hyperparameters
        actor = Actor(
            self.policy,
            seed,
            settings.network_settings.deterministic,
            keeps_copy=self.is_threaded,
        )
        log = StepLog(
            self.spec,
            own.buffer_size + 1024,
            self.policy.memory_width,
            FinishedRows(settings.time_horizon) if own.needs_whole_episodes else None,
            keeps_versions=self.is_threaded,
        )
        return actor, log

    def _take_weights(self, state: Mapping[str, object]) -> None:
        """Starts at step 0 with another run's weights; what else it met with stays with it."""
        self.load_state_dict({**state, "learning_rate_factor": 1.0})
        self.step = self.num_updates = self._summarised_step = 0
        self.episodes = EpisodeTracker()
        self.stop_conditions = StopConditions(self.settings.stop)

    @property
    def is_finished(self) -> bool:
        """Whether `max_steps` is reached."""
        return self.step >= self.settings.max_steps

    @property
    def saved_step(self) -> int:
        """The step that a checkpoint bears: decisions that were not learnt from do not count.

        A resumed run collects them anew. A finished behaviour learns no more, and has them all.
        """
        return self.step if self.is_finished else self.step - self.log.num_complete

    @property
    def mean_recent_return(self) -> float | None:
        """Mean return of the last 100 episodes, or None before the first has ended."""
        returns = self.episodes.recent_returns
        return float(np.mean(returns)) if returns else None

    def score(self, min_episodes: int) -> float | None:
        """Gives the 95 % lower bound of the mean return of the last (at most 100) episodes.

        A few lucky episodes do not make a policy the best one: the bound is the mean less 1.645
        standard errors, which few or different returns make large.

        Args:
            min_episodes: None is given before so many have ended; at least 2.
        """
        returns = np.array(self.episodes.recent_returns)
        if len(returns) < min_episodes:
            return None
        return float(returns.mean() - 1.645 * returns.std(ddof=1) / np.sqrt(len(returns)))

    @property
    def mean_recent_length(self) -> float | None:
        """Mean length of the last 100 episodes, in transitions."""
        lengths = self.episodes.recent_lengths
        return float(np.mean(lengths)) if lengths else None

    def decide(self, batches: Sequence[Decisions]) -> list[Actions]:
        """Answers agents that wait for an action, one answer per batch."""
        for batch in batches:
            self.episodes.decide(batch)
        complete = self.log.num_complete
        actions = self.actor.act(self.log, batches)
        self.step += self.log.num_complete - complete
        return actions

    def open(self, batch: Decisions) -> None:
        """Takes note of agents that wait for an action; their simulator will choose it."""
        self.episodes.decide(batch)
        complete = self.log.num_complete
        self.log.append([batch])
        self.step += self.log.num_complete - complete

    def end(self, batches: Sequence[Terminals]) -> None:
        """Takes note of episodes that are over."""
        complete = self.log.num_complete
        for batch in batches:
            self.episodes.end(batch)
            self.log.close(batch)
            self.actor.forget(batch.lane)
        self.step += self.log.num_complete - complete

    def abandon(self, lanes: NDArray[np.int64]) -> None:
        """Forgets the unfinished episodes of these lanes; what they taught so far stays."""
        self.episodes.abandon(lanes)
        self.log.abandon(lanes)
        self.actor.forget(lanes)

    def begin_anew(self, lanes: NDArray[np.int64]) -> None:
        """Forgets these lanes, and everything collected since the last update."""
        self.abandon(lanes)
        self.step = self.saved_step  # what is forgotten here, a resumed run has never seen
        self.log.keep_open_rows()

    @property
    def is_ready_to_learn(self) -> bool:
        """Whether the step log holds `buffer_size` complete decisions, or so many to learn from."""
        finished = self.log.finished
        num_rows = self.log.num_complete if finished is None else finished.num_rows
        return num_rows >= self.settings.hyperparameters.buffer_size

    @property
    def num_lacking(self) -> int:
        """How many complete decisions the next update waits for, or the run for its end."""
        to_learn = self.settings.hyperparameters.buffer_size - self.log.num_complete
        return min(to_learn, self.settings.max_steps - self.step)

    @property
    def num_ahead(self) -> int:
        """How many decisions more may be collected before that update, because it is threaded."""
        has_room = self.is_threaded and self.update is None
        return self.settings.hyperparameters.buffer_size if has_room else 0

    @property
    def has_just_learned(self) -> bool:
        """Whether nothing that a checkpoint would lose was collected since the last update.

        Beside updates something always is: there it is the time until the next one begins.
        """
        if self.is_threaded:
            return self._is_between_updates
        return self.log.num_complete == self.log.num_kept

    def drop_stale(self) -> int:
        """Drops what was chosen by a policy older than `max_policy_lag`; says how many decisions.

        Only where updates are threaded.
        """
        num_stale = drop_stale(self.log, self.num_updates - self.settings.policy_lag_bound)
        self.metrics.add_user_stat("Policy/Stale Steps", num_stale, "SUM", 0)
        return num_stale

    def learn(self) -> Divergence | None:
        """Turns the step log into an update; without training or behind max_steps, empties it.

        Returns:
            What was taken back because it broke the weights; None after a good update.

        Raises:
            DivergedError: an update broke the weights for the second time; it was taken back.
            Exception: whatever an update raised; it was taken back, too.
        """
        update = self.begin_update()
        if update is None:
            return None
        try:
            update.carry_out()
        finally:
            divergence = self.end_update()
        return divergence

    def begin_update(self) -> BehaviorUpdate | None:
        """Takes an update out of the step log, to be carried out and then ended with `end_update`.

        Until then nothing may touch policy, algorithm and rewards; acting and collecting go on.

        Returns:
            None: there is nothing to learn, without training or behind max_steps.
        """
        assert self.update is None, "one update at a time"
        if not self.is_training or self.is_finished_learning:
            self.log.keep_open_rows()
            return None
        self.update = BehaviorUpdate(self)
        self._is_between_updates = False
        return self.update

    def end_update(self) -> Divergence | None:
        """Publishes the update that was begun, if it was carried out; takes back a broken one.

        Raises:
            DivergedError: see `learn`.
        """
        assert self.update is not None
        update, self.update = self.update, None
        self._is_between_updates = True
        return update.settle() if update.is_carried_out else None

    def take_rollout(self) -> tuple[Rollout, torch.Tensor]:
        """Empties the step log into a rollout without rewards; gives the simulator's reward too."""
        own, memory = self.settings, self.settings.network_settings.memory
        length = None if memory is None else memory.sequence_length
        whole = own.hyperparameters.needs_whole_episodes
        return take(self.log, own.time_horizon, self.device, length, whole)

    def new_algorithm(self, seed: int) -> Algorithm:
        """Builds the algorithm around the policy, with what is left of the learning rate."""
        settings, factor = self.settings, self.learning_rate_factor
        rates = {
            key: rate * factor
            for key in LEARNING_RATES
            if (rate := getattr(settings.hyperparameters, key, None)) is not None
        }
        lowered = settings.hyperparameters.model_copy(update=rates)
        gamma = torch.tensor([signal.gamma for signal in self.rewards], device=self.device)  # (R,)
        return build_algorithm(
            settings.model_copy(update={"hyperparameters": lowered}),
            self.policy,
            gamma,
            torch.Generator().manual_seed(seed),
        )

    def change_settings(self, settings: BehaviorSettings) -> None:
        """Goes on with other numbers of `SETTABLE`; schedules start from the new ones.

        A learning rate that was lowered after a divergence is the new one, whole, from now on.
        """
        old, self.settings = self.settings, settings
        self.live_changes = noted(self.live_changes, old, settings)
        if settings.hyperparameters.learning_rate != old.hyperparameters.learning_rate:
            self.learning_rate_factor = 1.0
        learnt = self.algorithm.state_dict()
        self.algorithm = self.new_algorithm(0)  # its generator is restored
        self.algorithm.load_state_dict(learnt)
        shown = max(self.step, self._summarised_step)
        self._next_summary = _next_multiple(shown, settings.summary_freq)
        if settings.checkpoint_interval != old.checkpoint_interval:  # with even_checkpoints
            self._next_checkpoint = _next_multiple(self.step, settings.checkpoint_interval)
        self.metrics.write_settings(settings, self.step)

    @property
    def is_finished_learning(self) -> bool:
        """Whether the last update was behind `max_steps`: what was collected by then is used."""
        return self.step - self.log.num_complete >= self.settings.max_steps

    @property
    def is_summary_due(self) -> bool:
        """Whether a multiple of `summary_freq` was passed since the last summary."""
        return self.step >= self._next_summary

    def summary_if_due(self) -> Summary | None:
        """Writes the statistics once per `summary_freq` steps, at the exact multiple."""
        if not self.is_summary_due:
            return None
        step = self._next_summary
        while self._next_summary <= self.step:
            step = self._next_summary
            self._next_summary += self.settings.summary_freq
        self._summarised_step = step
        self.stop_conditions.observe(step, self.episodes.recent_returns)
        returns, lengths = self.episodes.take_finished()
        self.metrics.add_episodes(returns, lengths)
        if len(returns):
            # With one signal the sum per episode is the return times its strength.
            for name, signal in self.settings.reward_signals.items():
                tag = f"Policy/{name.capitalize()} Reward"
                self.metrics.add({tag: float(returns.mean()) * signal.strength})
        if self.is_training:
            # At every summary, as in ML-Agents, whether or not there was an update since the last.
            self.metrics.add(self.algorithm.rates(step))
        scalars = self.metrics.write(step)
        return Summary(
            step,
            len(returns),
            float(returns.mean()) if len(returns) else None,
            float(returns.std()) if len(returns) else None,
            scalars,
        )

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether a multiple of `checkpoint_interval` was passed since the last checkpoint."""
        return self.step >= self._next_checkpoint

    def plan_next_checkpoint(self) -> None:
        """Takes note that this step's state is being saved."""
        self._next_checkpoint = _next_multiple(self.step, self.settings.checkpoint_interval)

    def state_dict(self) -> dict[str, object]:
        """Gives everything that has to outlive the process: tensors, numbers and strings."""
        assert self.update is None, "half an update is no state"
        return {
            "behavior": self.name,
            "spec": spec_to_state(self.spec),
            "settings": self.settings.model_dump_json(),
            "step": self.saved_step,
            "num_updates": self.num_updates,
            "learning_rate_factor": self.learning_rate_factor,
            "summarised_step": self._summarised_step,
            "live_changes": self.live_changes,
            "stop_conditions": self.stop_conditions.state_dict(),
            "policy": {key: value.clone() for key, value in self.policy.state_dict().items()},
            "algorithm": self.algorithm.state_dict(),
            "rewards": [signal.state_dict() for signal in self.rewards],
            "acting_generator": self.actor.chance_state(),
            "recent_returns": list(self.episodes.recent_returns),
            "recent_lengths": list(self.episodes.recent_lengths),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Goes on from a checkpoint's state.

        Raises:
            BehaviorMismatchError: its network is another one than this behaviour asks for.
        """
        policy, algorithm = state["policy"], state["algorithm"]
        assert isinstance(policy, dict)
        assert isinstance(algorithm, dict)
        require_same_behavior(self.name, state, self.state_dict())
        self.policy.load_state_dict(policy)
        if self._lowered_before(state):
            self.learning_rate_factor = LOWER
            self.algorithm = self.new_algorithm(0)  # its generator is part of the state
        self.algorithm.load_state_dict(algorithm)
        rewards = state.get("rewards", [])  # checkpoints that came before it have none
        assert isinstance(rewards, list)
        for signal, saved in zip(self.rewards, rewards, strict=False):
            signal.load_state_dict(saved)
        self.actor.load_chance_state(state["acting_generator"])
        self.actor.refresh()
        self.step = int(state["step"])  # type: ignore[call-overload] # an int, by state_dict
        self.num_updates = int(state["num_updates"])  # type: ignore[call-overload] # likewise
        summarised = state.get("summarised_step", 0)
        assert isinstance(summarised, int)
        self._summarised_step = summarised
        if "stop_conditions" in state:  # checkpoints of before have none
            conditions = state["stop_conditions"]
            assert isinstance(conditions, dict)
            self.stop_conditions.load_state_dict(conditions)
        for name in ("recent_returns", "recent_lengths"):
            values = state[name]
            assert isinstance(values, list)
            getattr(self.episodes, name).extend(values)

    def _lowered_before(self, state: Mapping[str, object]) -> bool:
        """Whether the learning rate was lowered, and the user has not changed it since."""
        if state.get("learning_rate_factor", 1.0) == 1.0:
            return False
        saved = BehaviorSettings.model_validate_json(str(state["settings"]))
        return saved.hyperparameters.learning_rate == self.settings.hyperparameters.learning_rate

    def introduction(self) -> list[str]:
        """Says what was built, and where it starts, in ML-Agents' words where there are any."""
        parameters = sum(parameter.numel() for parameter in self.policy.parameters())
        start = f"Starting training from step 0 and saving to {self.folder}."
        if self.step:
            start = f"Resuming training from step {self.step}."
        changes = in_words(self.live_changes)
        return [
            *([f"Kept from `ppo-train set`: {changes}."] if changes else []),
            f"Behavior {self.name}: {describe(self.spec)}; {parameters:,} parameters on "
            f"{self.device}; {self.memory.words}.",
            f"Hyperparameters for behavior name {self.name}:\n"
            f"{self.settings.model_dump_json(indent=2)}",
            start if self.is_training else f"Acting without learning, as of step {self.step}.",
        ]


def _next_multiple(step: int, interval: int) -> int:
    """The first multiple of `interval` above `step`."""
    return (step // interval + 1) * interval
