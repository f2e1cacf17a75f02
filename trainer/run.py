"""One run from first to last step: builds the parts, then THE LOOP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from envs.batch import Actions, Decisions
from envs.errors import SimulatorClosedError, SimulatorError
from envs.fleet import DroppedEpisode, FleetPlan, SimulatorLoss, SimulatorMessage
from envs.simulators import Simulators
from envs.spec import BehaviorSpec, parse_behavior_id
from trainer.allocator import MemoryReturn, keep_large_blocks_apart
from trainer.behavior import Behavior
from trainer.commands import Commands
from trainer.config.settings import RunSettings
from trainer.control import EVALUATES, SAVES, Control
from trainer.description import describe
from trainer.device import choose_device, choose_num_threads
from trainer.export_onnx import export
from trainer.placement import Placement
from trainer.reporter import Reporter, shares_line
from trainer.run_end import (
    EXIT_NO_SIMULATORS,
    EXIT_USER_ERROR,
    Outcome,
    in_words,
    one_line,
    outcome_of,
)
from trainer.run_report import RunReport
from trainer.run_start import act_at, introduce, resumed_or_started, with_seed
from trainer.run_storage import RunStorage
from trainer.simulator_count import SimulatorCount
from trainer.simulators import open_simulators, plan_fleet, waiting_words
from trainer.stopping import StopRequest
from trainer.timers import BRIDGE, INFERENCE, SAVING, SIMULATORS, Timers
from trainer.torch_vector.behavior import behavior_type
from trainer.updates import Updates

POLL_S = 0.5  # how long the loop may wait for simulators before it looks at signals again
MEMORY_RETURN_S = 5.0


class Run:
    """Simulators on one side, behaviours on the other, and the loop between them."""

    def __init__(
        self,
        settings: RunSettings,
        reporter: Reporter,
        stop: StopRequest,
        from_step: int | None = None,
    ) -> None:
        """Checks the run's folder and plans the simulators; starts nothing yet.

        Args:
            settings: resolved.
            reporter: hears of everything.
            stop: true once the user wants the run to end.
            from_step: with resume, the checkpoint to go on from; None: the newest.
        """
        settings = with_seed(resumed_or_started(settings, from_step))
        self.settings = settings
        self.reporter = reporter
        self.stop = stop
        self.storage = RunStorage(settings, reporter, from_step)
        self.lockstep = settings.reproducible
        self.is_training = not settings.checkpoint_settings.inference
        self.seed = settings.env_settings.seed
        self.device = choose_device(settings.torch_settings)
        self.timers = Timers()
        self.behaviors: dict[str, Behavior] = {}
        self.is_paused = False
        self.stop_reason: str | None = None  # once a user has asked for the end
        self._unsent: dict[int, Mapping[str, Actions]] = {}  # answers, while paused
        run_id = settings.checkpoint_settings.run_id
        logs = self.storage.folder.own_logs(self.is_training)
        self.control = Control(settings.control_settings, run_id, logs, settings.listen_settings)
        self.commands = Commands(self)
        self.updates = Updates(self)
        self._last_loss: str | None = None
        self.report = RunReport(self)
        self._codec_seconds = 0.0
        if settings.reproducible:
            torch.use_deterministic_algorithms(True)
        self.learning_threads = choose_num_threads(settings)
        keep_large_blocks_apart()
        self.memory_return = MemoryReturn(MEMORY_RETURN_S)

    def execute(self) -> Outcome:
        """Runs to `max_steps`, to a stop request, or until no simulator is left; then saves."""
        try:
            with self.control:
                outcome = self._play()
                if outcome.exit_code == 0:
                    with self.control.ending(EVALUATES, self.report.progress()):
                        self.storage.finish_evaluation(lambda: bool(self.stop))
        except BaseException as error:
            told = in_words(error, self.storage.folder.path)
            with suppress(OSError):  # a disk that is full: the error itself says so
                self.storage.end(self.total_steps, outcome_of(told))
            if told is error:
                raise
            raise told from error
        self.storage.end(self.total_steps, outcome)
        return outcome

    def _play(self) -> Outcome:
        """Starts the simulators, loops, and saves whatever has happened."""
        # The plan first: a simulator that does not exist must cost no earlier run its files.
        folder = self.storage.folder
        plan = plan_fleet(self.settings, folder.own_logs(self.is_training), self.seed)
        plan = replace(plan, seed=self._simulator_seed(self.storage.restore()))
        folder.clear_logs(self.is_training)
        torch.set_num_threads(1)
        with self.open_fleet(plan) as fleet, self.updates:
            self.fleet = fleet
            self.placement = Placement(act_at(self.settings), fleet, self.behaviors)
            self.count = SimulatorCount(self)
            if (waiting := waiting_words(plan)) is not None:
                self.reporter.info(waiting)
            try:
                outcome = self._loop()
            except SimulatorClosedError as closed:
                outcome = Outcome(0, str(closed))
            except SimulatorError as error:
                # If nothing ever ran there is a mistake to put right.
                code = EXIT_NO_SIMULATORS if self.behaviors else EXIT_USER_ERROR
                outcome = Outcome(code, self._reason(error))
            except BaseException:
                with self.control.ending(SAVES):
                    self._save_in_spite()
                raise
            # Simulators may take seconds to quit: they come after it.
            with self.control.ending(SAVES, self.report.progress()):
                self._save_all()
        return outcome

    def open_fleet(self, plan: FleetPlan) -> Simulators:
        """Gives the simulators of the run, not started yet."""
        return open_simulators(plan)

    def _save_in_spite(self) -> None:
        """Saves what can be saved on the way out; why the run ends is more than what fails now."""
        try:
            self._save_all()
        except Exception as failure:
            self.reporter.error(f"Not everything could be saved: {one_line(failure)}")

    def _save_all(self) -> None:
        """Makes everything that was learned outlive the process."""
        failures: list[Exception] = []
        try:
            self.updates.finish()
        except Exception as failure:  # raised below, once everything else is safe
            failures.append(failure)
        sound = [behavior for behavior in self.behaviors.values() if behavior.is_sound]
        steps: list[Callable[[], None]] = []
        # In reproducible mode they count only together.
        if self.is_training and (sound == list(self.behaviors.values()) or not self.lockstep):
            steps.append(lambda: self.storage.save(sound, is_final=True))
        steps += [behavior.metrics.close for behavior in self.behaviors.values()]
        steps.append(lambda: self.storage.write_timers(self.timers))
        for step in steps:
            try:
                with self.timers.measure(SAVING):
                    step()
            except Exception as failure:  # raised below, once everything else is safe
                failures.append(failure)
        if self.behaviors:
            where = shares_line(self.timers.shares(), self.timers.learner_share)
            self.reporter.info(f"Where the time went: {where}")
        if failures:
            raise failures[0]

    def _reason(self, error: SimulatorError) -> str:
        """Gives why the run ended; what was told when a simulator was lost is not told again."""
        is_told = self._last_loss is not None and self._last_loss in str(error)
        return "no simulator is left" if is_told else str(error)

    def _loop(self) -> Outcome:
        """THE LOOP: receive, answer, learn; nobody waits for the slowest simulator."""
        while not self.stop:
            self.control.pulse.beat()
            self.commands.serve()
            if (reason := self._reason_to_end()) is not None:
                self.reporter.info("Training ends. Please wait while the graph is generated.")
                return Outcome(0, reason)
            with self.timers.measure(SIMULATORS):
                arrivals = self.fleet.recv(timeout_s=POLL_S)
            self._count_bridge_time(SIMULATORS)
            with self.timers.measure(INFERENCE):
                self._answer(arrivals)
            self._count_bridge_time(INFERENCE)
            self.updates.turn()
            if not self.is_paused:
                self.placement.assign()
            # Before the checkpoint: a run that goes on from there begins with the next summary.
            self.report.turn()
            if self.is_finished:
                return Outcome(0, "all behaviors have reached max_steps")
            self._save_due_checkpoints()
        assert self.stop.signal is not None
        self.storage.tell("signal", self.total_steps, signal=self.stop.signal.name)
        if self.is_training:
            self.reporter.info(
                "Learning was interrupted. Please wait while the graph is generated."
            )
        return Outcome(self.stop.exit_code, f"interrupted by {self.stop.signal.name}")

    def _count_bridge_time(self, part: str) -> None:
        """Counts decoding and encoding for the bridge, not for the part they happened in."""
        total = self.fleet.codec_seconds
        self.timers.move(part, BRIDGE, total - self._codec_seconds)
        self._codec_seconds = total

    def _answer(self, arrivals: Sequence[SimulatorMessage | SimulatorLoss]) -> None:
        """Answers every simulator in `arrivals`, with one forward pass per behaviour.

        Endings come before decisions that are asked here: a lane that ends in one message may
        already be another agent's in the next.
        """
        waiting: dict[str, list[tuple[int, str, Decisions]]] = {}
        answers: dict[int, dict[str, Actions]] = {}
        for arrival in arrivals:
            if isinstance(arrival, SimulatorLoss):
                self._forget(arrival)
                continue
            for message in arrival.earlier:
                self._hear(message)
                self.placement.open_rows(message)
            self._hear(arrival)
            if self.placement.lets_act(arrival):
                continue
            answers[arrival.simulator] = {}
            for behavior_id, decisions in arrival.decisions.items():
                name = parse_behavior_id(behavior_id).name
                waiting.setdefault(name, []).append((arrival.simulator, behavior_id, decisions))

        for name, asked in waiting.items():
            batches = [decisions for _, _, decisions in asked]
            actions = self.behaviors[name].decide(batches)
            self.report.speed.count_pass(name, batches)
            for (simulator, behavior_id, _), action in zip(asked, actions, strict=True):
                answers[simulator][behavior_id] = action
        self._unsent |= answers
        if not self.is_paused:
            self._send()

    def _hear(self, message: SimulatorMessage) -> None:
        """Takes note of everything that a message says but what its agents see now."""
        for behavior_id, spec in message.new_behaviors.items():
            self._meet(behavior_id, spec, message.simulator)
        self.placement.hear(message)
        for dropped in message.dropped:
            self._drop(dropped, message.simulator)
        for behavior_id, terminals in message.terminals.items():
            self.behaviors[parse_behavior_id(behavior_id).name].end([terminals])
        for stat in message.stats:
            for behavior in self.behaviors.values():
                behavior.metrics.add_user_stat(
                    stat.key, stat.value, stat.aggregation.name, message.simulator
                )

    def _send(self) -> None:
        """Sends what was decided; while the run is paused the simulators wait for it."""
        self.count.dismiss_due(self._unsent)
        for simulator, by_behavior in self._unsent.items():
            self.fleet.send(simulator, by_behavior)
        self._unsent.clear()

    def go_on(self) -> None:
        """Ends a pause."""
        self.is_paused = False
        self.placement.begin_trial_anew()
        self.report.speed.begin_anew()
        self.count.begin_anew()
        self._send()
        self.placement.assign()

    @property
    def total_steps(self) -> int:
        """Steps of all behaviours together."""
        return sum(behavior.step for behavior in self.behaviors.values())

    @property
    def is_finished(self) -> bool:
        """Whether every behaviour seen so far has reached `max_steps`; acting never ends."""
        if not self.is_training or not self.behaviors:
            return False
        return all(behavior.is_finished for behavior in self.behaviors.values())

    def _reason_to_end(self) -> str | None:
        """Says why the run is to end before `max_steps`; None: it is not."""
        if self.stop_reason is not None:
            return self.stop_reason
        limit_s = self.settings.stop.wall_time_s
        if limit_s is not None and self.timers.elapsed_s >= limit_s:
            return f"stop.wall_time_s {limit_s:g} is over"
        if not self.is_training or not self.behaviors:
            return None
        met = [b for b in self.behaviors.values() if b.stop_conditions.reason is not None]
        if all(b.is_finished for b in self.behaviors.values() if b not in met):
            return "; ".join(f"{b.name}: {b.stop_conditions.reason}" for b in met) or None
        return None

    # Behaviours come and go with the simulators.

    def _meet(self, behavior_id: str, spec: BehaviorSpec, simulator: int) -> None:
        """Builds a behaviour when its first agent appears."""
        name = parse_behavior_id(behavior_id).name
        self.reporter.info(f"Connected new brain: {behavior_id}")
        if name not in self.behaviors:  # else another team or simulator; the fleet compares specs
            self._build(name, spec)
        self.storage.tell(
            "connected",
            self.behaviors[name].step,
            behavior=name,
            behavior_id=behavior_id,
            simulator=simulator,
            description=describe(spec),
        )

    def _build(self, name: str, spec: BehaviorSpec) -> None:
        state = self.storage.take_state(name, spec, self.seed)
        if state is None and not self.is_training:
            self.reporter.warning(
                f"'{name}' acts with weights that nobody has trained. Add --resume to act as "
                f"this run has learnt to, or --initialize-from for another run."
            )
        behavior = behavior_type(self.settings)(
            name,
            spec,
            self.settings.for_behavior(name),
            self.storage.folder.behavior(name),
            seed=self.seed,
            device=self.device,
            is_training=self.is_training,
            state=state,
            starts_at_zero=not self.storage.goes_on(name),
            is_threaded=self.updates.is_beside(self.settings.for_behavior(name)),
        )
        behavior.metrics.lesson_numbers = dict.fromkeys(self.settings.environment_parameters, 0)
        self._trial_export(behavior)
        self.storage.schedule.begin(behavior)
        self.behaviors[name] = behavior
        introduce(behavior, list(self.behaviors.values()), self.reporter)
        self.updates.meet(behavior)

    def _trial_export(self, behavior: Behavior) -> None:
        """Exports once before the first step: better to fail now than after a night."""
        with TemporaryDirectory() as folder:
            export(behavior.policy, behavior.spec, Path(folder) / "trial.onnx")

    def _forget(self, loss: SimulatorLoss) -> None:
        self._unsent.pop(loss.simulator, None)
        self.placement.lose(loss.simulator)
        self._last_loss = str(loss.error)
        self.reporter.warning(self._last_loss)
        self.storage.tell(
            "simulator_lost",
            self.total_steps,
            simulator=loss.simulator,
            message=self._last_loss,
            will_restart=loss.will_restart,
        )
        for name, lanes in loss.lanes.items():
            if name in self.behaviors:
                self.behaviors[name].abandon(lanes)
        self.count.lose(loss.simulator)

    def _drop(self, dropped: DroppedEpisode, simulator: int) -> None:
        """Forgets an episode with bad numbers, counts it, and shows it."""
        behavior = self.behaviors[dropped.behavior]
        behavior.abandon(dropped.lanes)
        behavior.metrics.add_user_stat("Environment/Dropped Episodes", 1.0, "SUM", simulator)
        self.reporter.warning(dropped.text)
        self.storage.tell(
            "episode_dropped",
            behavior.step,
            behavior=behavior.name,
            simulator=simulator,
            agent_id=dropped.agent_id,
            message=dropped.text,
        )

    # Checkpoints.

    def _save_due_checkpoints(self) -> None:
        if not self.is_training:
            return
        behaviors = list(self.behaviors.values())
        due = self.storage.due(behaviors)
        if not due:
            return
        with self.timers.measure(SAVING), self.control.pulse.long_part():
            # Reproducible: one moment for all, at which simulators and step logs are empty.
            saved = behaviors if self.lockstep else due
            self.storage.save(saved, in_background=not self.lockstep)
            if self.lockstep:
                self._relaunch()

    def _simulator_seed(self, total_steps: int) -> int:
        """Seed of the simulators of a run at this step; of one that acts alone, at any step.

        A resumed run must not meet the episodes of its beginning again. In reproducible mode the
        simulators start anew at every checkpoint, with the seed of one that is resumed there.
        """
        return (self.seed + total_steps) % 2**31 if self.is_training else self.seed

    def _relaunch(self) -> None:
        self._unsent.clear()
        saved_steps = sum(behavior.saved_step for behavior in self.behaviors.values())
        for name, lanes in self.fleet.relaunch(self._simulator_seed(saved_steps)).items():
            self.behaviors[name].begin_anew(lanes)
