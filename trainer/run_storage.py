"""What a run keeps on disk: where its behaviours start from, and how they are saved."""

from __future__ import annotations

import copy
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from envs.bridge.protocol import COMMUNICATION_VERSION
from envs.spec import BehaviorSpec
from trainer.atomic_file import atomic_copy
from trainer.background_save import BackgroundWriter, copied
from trainer.behavior import Behavior
from trainer.checkpoint import NEWEST, CheckpointStore, SavedCheckpoint, State
from trainer.checkpoint_evaluation import END_LIMIT_S, LOGS, CheckpointEvaluation, Played
from trainer.checkpoint_schedule import CheckpointSchedule
from trainer.config.changes import Change, behavior_changes, run_changes
from trainer.config.errors import ConfigError
from trainer.config.load import load_run
from trainer.config.problems import program
from trainer.config.settings import BehaviorSettings, RunSettings
from trainer.config.write import dump
from trainer.divergence import Divergence
from trainer.event_log import EventLog
from trainer.export_onnx import export
from trainer.finite_policy import require_finite
from trainer.mlagents.adopt import adopt
from trainer.mlagents.checkpoint import MlagentsCheckpoint, load_start
from trainer.reporter import Reporter
from trainer.run_end import Outcome
from trainer.run_moment import MomentFile
from trainer.run_start import initial_checkpoint, open_run_folder
from trainer.timers import Timers
from trainer.trackers.processes import TrackerProcesses
from trainer.training_status import TrainingStatus

Start = State | MlagentsCheckpoint | None
"""What a behaviour starts from: a state of its own or another run's, ML-Agents', or nothing."""

EVENTS = "events.jsonl"
KEPT = "checkpoint.mlagents.pt"  # the state of ML-Agents that a run went on from


class RunStorage:
    """The run's folder: checkpoints, exports, and the files that say how the run is doing."""

    def __init__(self, settings: RunSettings, reporter: Reporter, from_step: int | None) -> None:
        """Opens the folder as resume and force allow; leaves what is in it as it is.

        Args:
            settings: resolved.
            reporter: hears what is loaded and exported.
            from_step: with resume, the checkpoint to go on from; None: the newest.
        """
        self._settings = settings
        self._reporter = reporter
        self._from_step = from_step
        self._checkpoints = settings.checkpoint_settings
        path = Path(self._checkpoints.results_dir) / self._checkpoints.run_id
        self._trackers = TrackerProcesses(settings.trackers, path, reporter.warning)
        self.folder = open_run_folder(self._checkpoints, from_step)
        self.last_checkpoint: str | None = None
        self.num_checkpoints = 0  # since this start
        self.events: EventLog | None = None  # from `restore` on
        self._evaluation = CheckpointEvaluation(settings, path)
        self._writer = BackgroundWriter()
        self._untold: list[tuple[str, SavedCheckpoint, int]] = []  # of a moment that is not whole
        self._stores: dict[str, CheckpointStore] = {}
        self._starts: dict[str, Start] = {}  # read before any simulator starts
        self._resumed: set[str] = set()
        self.schedule = CheckpointSchedule(self._checkpoints)
        self._moment = MomentFile(self.folder.logs / "moment.json")
        file, parameters = self.folder.training_status, settings.environment_parameters
        self._status = TrainingStatus(file, goes_on=self._checkpoints.resume, parameters=parameters)

    def restore(self) -> int:
        """Reads what behaviours start from, before any simulator starts: mistakes show at once.

        Once all of it could be read the folder becomes this run's: with force an earlier run's
        checkpoints are deleted, the resolved settings are written, and the log of events begins.

        Returns:
            The steps that the run goes on from, all behaviours together.
        """
        resume = self._checkpoints.resume
        # A run that starts from its own weights and then overwrites them must have read them all.
        is_own_source = self._checkpoints.initialize_from == self._checkpoints.run_id
        saved = self.folder.saved_behaviors() if resume or is_own_source else []
        if self._settings.default_settings is None:
            saved = [name for name in saved if name in self._settings.behaviors]
        total = 0
        moment = self._moment_to_go_on_from()
        for name in dict.fromkeys([*self._settings.behaviors, *saved]):
            step = None if self._from_step is None else self._nearest_step(name, saved)
            if moment is None:
                start = self._load(name, step)
            elif name in moment:
                start = self._load(name, moment[name])
            else:  # it had not been met when the others were saved
                start = self._initial(name)
            self._starts[name] = start
            if start is not None and resume:
                total += start.step if isinstance(start, MlagentsCheckpoint) else start["step"]
        changes = self._changes()
        self._take_folder()
        self._begin_events(total)
        if changes:
            lines = "\n".join(f"  {change}" for change in changes)
            self._reporter.info(f"Settings have changed since the run was saved. Applied:\n{lines}")
            self.tell("settings_changed", total, changes=[str(change) for change in changes])
        return total

    def _changes(self) -> list[Change]:
        """Gives what has changed since the checkpoints that the run goes on from.

        Raises:
            ConfigError: the run cannot go on with some of it.
        """
        found: list[Change] = []
        for name, start in self._starts.items():
            if name in self._resumed and isinstance(start, dict):
                before = BehaviorSettings.model_validate_json(start["settings"])
                found += behavior_changes(name, before, self._settings.for_behavior(name))
        if self._resumed:
            found += self._changes_outside()
        refused = [change for change in found if change.refusal is not None]
        if refused:
            raise ConfigError(*(change.problem for change in refused))
        return [] if self._checkpoints.inference else found

    def _changes_outside(self) -> Iterator[Change]:
        """Yields what has changed outside of the behaviours, if the run's settings are there."""
        path = self.folder.configuration
        if not path.is_file() or not self.folder.saved_behaviors():
            return  # ML-Agents' has other keys
        try:
            before = load_run(path)
        except ConfigError as error:
            self._reporter.warning(
                f"What has changed outside of behaviors cannot be told: the settings that the run "
                f"was saved with cannot be read any more.\n{error}"
            )
            return
        yield from run_changes(before, self._settings)

    def _moment_to_go_on_from(self) -> Mapping[str, int] | None:
        """Gives the steps that belong together; None: every behaviour's newest counts."""
        if self._from_step is not None or not self._checkpoints.resume:
            return None
        return self._moment.read()

    def _begin_events(self, total_steps: int) -> None:
        chosen = self._checkpoints
        path = self.folder.own_logs(not chosen.inference) / EVENTS
        self.events = EventLog(path, goes_on=chosen.resume and not chosen.inference)
        settings = dump(self._settings)
        self.events.write(
            "start",
            step=total_steps,
            program=program(),
            command=sys.argv,
            pid=os.getpid(),
            settings_sha256=hashlib.sha256(settings.encode()).hexdigest(),
            seed=self._settings.env_settings.seed,
            resume=chosen.resume,
            initialize_from=chosen.initialize_from,
            inference=chosen.inference,
            torn_bytes=self.events.torn_bytes,
        )
        if not chosen.inference:  # as TensorBoard's, the curves of training stay as they are
            self._trackers.start()

    def tell(self, event: str, step: int, **fields: object) -> None:
        """Writes an event down, see `EventLog.write`; before `restore` there is nothing to tell."""
        if self.events is not None:
            self.events.write(event, step=step, **fields)
            if event == "summary":
                self._trackers.look()
                # One writer per manifest: the thread, if it is at it.
                if not self._writer.is_busy and (played := self._evaluation.take()) is not None:
                    self._rate(played)

    def end(self, step: int, outcome: Outcome) -> None:
        """Tells how the run ended, and waits until the trackers have the last points."""
        try:
            self.tell("end", step, reason=outcome.reason, exit_code=outcome.exit_code)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the log of events and everything beside the run."""
        try:
            self._evaluation.end()
            if self.events is not None:
                self.events.close()
        finally:
            self._trackers.end()

    def finish_evaluation(self, must_stop: Callable[[], bool]) -> None:
        """Waits until the last checkpoint has been played, if checkpoints are; may take minutes."""
        deadline = time.monotonic() + END_LIMIT_S
        while (played := self._evaluation.wait(deadline, must_stop)) is not None:
            self._rate(played)

    def _rate(self, played: Played) -> None:
        """Takes what a checkpoint has earned by itself."""
        name, step, earned = played.behavior, played.step, played.mean_return
        if earned is None:
            self._reporter.warning(
                f"Checkpoint {name}-{step} could not be played, so it cannot become the best one: "
                f"{played.problem} Logs: {self.folder.logs / LOGS}."
            )
            return
        held, num_episodes = self._evaluation.held(name), self._checkpoints.evaluation_episodes or 0
        is_best = self._store(name).rate(step, earned, num_episodes, held)
        self.tell("evaluation", step, behavior=name, mean_return=earned, is_best=is_best)
        self._reporter.info(
            f"{name}-{step} earned {earned:.3f} in {num_episodes} episodes of its own"
            f"{', the most so far' if is_best else ''}."
        )

    def tell_divergence(self, behavior: str, found: Divergence) -> None:
        """Writes down that an update was taken back."""
        self.tell(
            "diverged",
            found.step,
            behavior=behavior,
            update=found.update,
            not_finite=found.what,
            dump=None if found.dump is None else str(found.dump),
            learning_rate=found.learning_rate,
        )

    def _take_folder(self) -> None:
        """Replaces an earlier run's files; acting alone leaves them as they are."""
        chosen = self._checkpoints
        is_taken = self.folder.holds_run() or self.folder.configuration.exists()
        if chosen.inference and is_taken:
            return
        if chosen.force and not chosen.resume and not chosen.inference:
            for name in self.folder.behaviors_in_the_way():
                self.folder.clear(name)
        self.folder.write_configuration(dump(self._settings))
        if not chosen.inference and not (chosen.resume and self._settings.reproducible):
            self._moment.clear()
        if not chosen.inference:
            self._status.write()  # with force, without the checkpoints that are no more

    def take_state(self, name: str, spec: BehaviorSpec, seed: int) -> State | None:
        """Gives the state that a behaviour starts from: its own, another run's, or none.

        Args:
            name: of the behaviour.
            spec: what the simulators say of it; a checkpoint of ML-Agents is translated for it.
            seed: of the run.

        Raises:
            CheckpointError: the checkpoint is of ML-Agents and does not fit the behaviour.
        """
        start = self._starts.pop(name) if name in self._starts else self._load(name, None)
        if not isinstance(start, MlagentsCheckpoint):
            return start
        adopted = adopt(start, name, spec, self._settings.for_behavior(name), seed)
        for line in adopted.report:
            self._reporter.info(line)
        own = self.folder.behavior(name) / NEWEST
        if self._checkpoints.resume and not self._checkpoints.inference and own.is_file():
            # Our first checkpoint takes the name; what ML-Agents had learnt stays.
            atomic_copy(own, own.with_name(KEPT))
        return adopted.state

    def goes_on(self, name: str) -> bool:
        """Whether a behaviour whose state was taken continues its own earlier training."""
        return name in self._resumed

    def due(self, behaviors: Sequence[Behavior]) -> list[Behavior]:
        """Gives the behaviours to save now; none while the last checkpoint is being written.

        Raises:
            Exception: what `save` in the background has raised meanwhile, see there.
        """
        self._writer.collect()
        if self._writer.is_busy:
            return []
        return [behavior for behavior in behaviors if self.schedule.is_due(behavior)]

    def save(
        self, behaviors: Sequence[Behavior], is_final: bool = False, *, in_background: bool = False
    ) -> None:
        """Writes checkpoints with their ONNX files. Slow: waits for the disk.

        In reproducible mode `behaviors` are all there are, and a kill in between leaves the run as
        it was before. Otherwise each is saved by itself; when one fails the others are saved all
        the same, and then the first error goes on.

        Args:
            behaviors: as they are now.
            is_final: this is how the run ends; the policies become `<Behaviour>.onnx`.
            in_background: copy the state, and write it while the loop goes on; `due` says when it
                failed. Not in reproducible mode.

        Raises:
            NotFiniteError: a policy has diverged; nothing of it was written.
            StorageError: there is not enough room.
        """
        together = self._settings.reproducible
        assert not (together and in_background)
        failures: list[Exception] = []
        steps: dict[str, int] = {}
        if not in_background:
            try:
                self._writer.wait()
            except Exception as failure:  # raised below, once the others are safe
                failures.append(failure)
        for behavior in behaviors:
            try:
                steps[behavior.name] = self._save(behavior, is_final, not together, in_background)
            except Exception as failure:  # likewise
                failures.append(failure)
        if failures:
            raise failures[0]
        if together and steps:  # else nobody has been met yet, and the moment before stays
            self._moment.write(steps)
            while self._untold:
                self._tell_checkpoint(*self._untold.pop(0))
            for name in steps:
                self._store(name).prune(self._evaluation.held(name))
                self._status.set_checkpoints(name, self._store(name).checkpoints)
            self._status.write()

    def _save(self, behavior: Behavior, is_final: bool, prune: bool, in_background: bool) -> int:
        """Writes one checkpoint, or begins to, and gives its step."""
        name, store, live = behavior.name, self._store(behavior.name), behavior.policy
        state = behavior.state_dict()
        step, weights = state["step"], state["policy"]
        assert isinstance(step, int) and isinstance(weights, dict)
        require_finite(name, step, weights, store)
        behavior.metrics.flush()
        is_milestone = self.schedule.is_milestone(behavior)
        self.schedule.saved(behavior)
        min_episodes, reward = self._checkpoints.best_min_episodes, behavior.mean_recent_return
        score = None if self._evaluation.is_on else behavior.score(min_episodes)
        held = self._evaluation.held(name)
        policy = copy.deepcopy(live) if in_background else live
        state = copied(state) if in_background else state

        def write() -> SavedCheckpoint:
            saved = store.save(
                state,
                step,
                reward,
                lambda path: export(policy, behavior.spec, path),
                is_final=is_final,
                score=score,
                is_milestone=is_milestone,
                prune=prune,
                held=held,
            )
            self._status.set_checkpoints(name, store.checkpoints)
            self._status.write()
            return saved

        shown = max(step, int(str(state["summarised_step"])))
        if in_background:
            self._writer.start(write, lambda saved: self._tell_checkpoint(name, saved, shown))
        else:
            saved = write()
            self._untold.append((name, saved, shown))  # counts with the others, unless:
            if prune:
                self._tell_checkpoint(*self._untold.pop())
            if is_final:
                self._publish(name, saved)
        return step

    def _tell_checkpoint(self, name: str, saved: SavedCheckpoint, shown_step: int) -> None:
        """Says that a checkpoint is on the disk, with the points of curves up to `shown_step`."""
        self._evaluation.ask_for(name, saved.step)
        self.last_checkpoint = str(saved.path)
        self.num_checkpoints += 1
        self._reporter.info(f"Exported {saved.onnx_path}")
        self.tell(
            "checkpoint",
            saved.step,
            behavior=name,
            path=str(saved.path),
            reward=saved.reward,
            is_final=saved.is_final,
            score=saved.score,
            is_best=self._store(name).best == saved,
            is_milestone=saved.is_milestone,
            shown_step=shown_step,
        )
        self.tell("export", saved.step, behavior=name, path=str(saved.onnx_path))

    def _publish(self, name: str, saved: SavedCheckpoint) -> None:
        """Makes a policy the one that the run ended with."""
        target = self.folder.publish_onnx(name, saved)
        self._reporter.info(f"Copied {saved.onnx_path} to {target}.")
        self.tell("export", saved.step, behavior=name, path=str(target))
        self._status.set_final(name, saved, target)
        self._status.write()

    def export_now(self, behavior: Behavior) -> tuple[Path, int]:
        """Writes `<Behaviour>.onnx` of what is learnt so far; gives its path and step.

        Raises:
            ExportError: the file acts differently from the policy.
        """
        path = self.folder.onnx(behavior.name)
        export(behavior.policy, behavior.spec, path)
        self.tell("export", behavior.saved_step, behavior=behavior.name, path=str(path))
        return path, behavior.saved_step

    def write_timers(self, timers: Timers) -> None:
        """Writes where the time went so far."""
        is_training = not self._checkpoints.inference
        self.folder.write_timers(timers.to_json(_versions()), is_training=is_training)

    def _store(self, name: str) -> CheckpointStore:
        if name not in self._stores:
            keep = self._settings.for_behavior(name).keep_checkpoints
            self._stores[name] = self.folder.store(name, keep)
        return self._stores[name]

    def _nearest_step(self, name: str, saved: Sequence[str]) -> int | None:
        """Gives the step to go on from; several behaviours are saved at different steps."""
        assert self._from_step is not None
        before = [
            checkpoint.step
            for checkpoint in self._store(name).checkpoints
            if checkpoint.step <= self._from_step
        ]
        return max(before) if len(saved) > 1 and before else self._from_step

    def _load(self, name: str, step: int | None) -> Start:
        store = self._store(name)
        if self._checkpoints.resume and store.checkpoints:
            state, saved = store.load(step)
            self._resume(name, saved.path)
            return state
        left = self._left_by_mlagents(name, step) if self._checkpoints.resume else None
        if left is not None:
            self._resume(name, left.path)
            return left
        return self._initial(name)

    def _initial(self, name: str) -> Start:
        """Gives what a behaviour without a past in this run starts from."""
        source = initial_checkpoint(name, self._settings.for_behavior(name), self._checkpoints)
        if source is not None:
            self._reporter.info(f"Initializing from {source}.")
            return load_start(source)
        if self._checkpoints.resume:
            folder = self._store(name).folder
            self._reporter.info(f"{folder} holds no checkpoint yet; it begins at step 0.")
        return None

    def _resume(self, name: str, path: Path) -> None:
        """Takes note that a behaviour goes on, whatever it once started from."""
        self._resumed.add(name)
        self._reporter.info(f"Resuming from {path}.")
        if self._checkpoints.initialize_from is not None:
            # In ML-Agents the other run's weights would win, and undo what was learnt since.
            self._reporter.info(
                f"'{name}' goes on with its own weights: initialize_from "
                f"'{self._checkpoints.initialize_from}' has no effect on it."
            )

    def _left_by_mlagents(self, name: str, step: int | None) -> MlagentsCheckpoint | None:
        """Reads ML-Agents' newest checkpoint in the behaviour's folder, or the one of a step."""
        folder = self.folder.behavior(name)
        if not (folder / NEWEST).is_file():
            return None
        newest = load_start(folder / NEWEST)
        if not isinstance(newest, MlagentsCheckpoint):
            return None  # ours, of a save that was killed before it could list it
        if step is None:
            return newest
        chosen = load_start(folder / f"{folder.name}-{step}.pt")
        assert isinstance(chosen, MlagentsCheckpoint)  # ours are listed
        return chosen


def _versions() -> dict[str, str]:
    """Gives the versions that ML-Agents notes in `timers.json`."""
    return {
        "mlagents_version": program(),
        "mlagents_envs_version": version("mlagents-envs"),
        "communication_protocol_version": COMMUNICATION_VERSION,
        "pytorch_version": str(torch.__version__),
        "numpy_version": version("numpy"),
    }
