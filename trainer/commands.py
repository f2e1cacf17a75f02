"""What a run does when it is asked to, between two turns of its loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainer.config.errors import UserError
from trainer.config.problems import one_of, show
from trainer.control import Command
from trainer.control_client import CommandError
from trainer.live_settings import SETTABLE, changed, value_of
from trainer.timers import SAVING

if TYPE_CHECKING:
    from trainer.behavior import Behavior
    from trainer.run import Run

RATES = {
    "learning_rate": "Policy/Learning Rate",
    "epsilon": "Policy/Epsilon",
    "beta": "Policy/Beta",
}


class Commands:
    """Carries out commands; all methods belong to the run's own thread."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known = {
            "pause": self._pause,
            "continue": self._continue,
            "checkpoint": self._checkpoint,
            "export": self._export,
            "set": self._set,
            "stop": self._stop,
        }

    def serve(self) -> None:
        """Carries out everything that waits. What fails is told to who asked; the run goes on."""
        for command in self._run.control.take():
            self._end_updates(command)
            try:
                text = self._carry_out(command)
            except (UserError, OSError) as error:
                command.reply.set_exception(error)
                self._run.reporter.warning(f"`{command.verb}` was not carried out: {error}")
            except BaseException as error:
                command.reply.set_exception(error)
                raise
            else:
                # Before anyone can ask for it.
                self._run.control.publish(self._run.report.progress())
                command.reply.set_result(text)
                self._run.reporter.info(text)

    def _end_updates(self, command: Command) -> None:
        """Lets no command meet half an update; what an update raises ends the run, as ever."""
        try:
            self._run.updates.finish()
        except BaseException as error:
            command.reply.set_exception(error)
            raise

    def _carry_out(self, command: Command) -> str:
        allowed = {"set": ("values", "behavior"), "export": ("behavior",)}.get(command.verb, ())
        for argument in command.arguments:
            if argument not in allowed:
                expected = f"expected {one_of(allowed)}" if allowed else "it takes none"
                raise CommandError(
                    f"`{command.verb}` has no argument {show(argument)}; {expected}."
                )
        return self._known[command.verb](command.arguments)

    def _pause(self, _: Mapping[str, object]) -> str:
        run = self._run
        if run.is_paused:
            raise CommandError(f"{self._who} is paused already; `ppo-train continue` ends that.")
        run.is_paused = True
        run.storage.tell("pause", run.total_steps)
        return f"{self._who} is paused: its simulators wait where they are."

    def _continue(self, _: Mapping[str, object]) -> str:
        run = self._run
        if not run.is_paused:
            raise CommandError(f"{self._who} is not paused.")
        run.storage.tell("continue", run.total_steps)
        run.go_on()
        return f"{self._who} goes on."

    def _checkpoint(self, _: Mapping[str, object]) -> str:
        run = self._run
        if not run.is_training:
            raise CommandError(f"{self._who} acts without learning: there is nothing to save.")
        if run.lockstep:
            raise CommandError(
                f"{self._who} is reproducible: a checkpoint is a moment at which its simulators "
                f"begin anew, so only steps may choose it (checkpoint_interval)."
            )
        return self._saved(self._chosen({}))

    def _saved(self, behaviors: list[Behavior]) -> str:
        run = self._run
        with run.timers.measure(SAVING), run.control.pulse.long_part():
            run.storage.save(behaviors)
        steps = ", ".join(
            f"{behavior.name} at step {behavior.saved_step}" for behavior in behaviors
        )
        return f"{self._who} is saved: {steps}."

    def _export(self, arguments: Mapping[str, object]) -> str:
        run = self._run
        with run.timers.measure(SAVING), run.control.pulse.long_part():
            paths = [run.storage.export_now(behavior) for behavior in self._chosen(arguments)]
        listed = ", ".join(f"{path} (step {step})" for path, step in paths)
        return f"Exported what {self._who[0].lower()}{self._who[1:]} has learnt so far: {listed}."

    def _set(self, arguments: Mapping[str, object]) -> str:
        run = self._run
        if not run.is_training:
            raise CommandError(f"{self._who} acts without learning: there is nothing to set.")
        values = arguments.get("values")
        if not isinstance(values, dict) or not values:
            raise CommandError(f"`set` needs key=value; keys are {one_of(SETTABLE)}.")
        behaviors = self._chosen(arguments)
        # All are checked before the first one changes.
        wanted = [changed(behavior.name, behavior.settings, values) for behavior in behaviors]
        lines = []
        for behavior, settings in zip(behaviors, wanted, strict=True):
            old = behavior.settings
            behavior.change_settings(settings)
            for key in values:
                before, now = value_of(old, key), value_of(settings, key)
                run.storage.tell(
                    "set", behavior.step, behavior=behavior.name, key=key, before=before, now=now
                )
                lines.append(f"{behavior.name}: {key} {before} -> {now}{_scheduled(behavior, key)}")
        text = "; ".join(lines)
        if run.lockstep:
            return f"{text}. Kept from the next checkpoint on."
        return f"{text}. {self._saved(behaviors)}"

    def _stop(self, _: Mapping[str, object]) -> str:
        run = self._run
        run.stop_reason = "stopped by `ppo-train stop`"
        run.storage.tell("stop", run.total_steps, reason=run.stop_reason)
        return f"{self._who} ends: it saves and exports what it has learnt, and closes simulators."

    @property
    def _who(self) -> str:
        return f"Run '{self._run.settings.checkpoint_settings.run_id}'"

    def _chosen(self, arguments: Mapping[str, object]) -> list[Behavior]:
        """Gives the behaviour that was asked for, or all.

        Raises:
            CommandError: there is none of this name, or none at all yet.
        """
        known, name = self._run.behaviors, arguments.get("behavior")
        if not known:
            raise CommandError(f"{self._who} has met no behaviour yet: its simulators still start.")
        if name is None:
            return list(known.values())
        if name not in known:
            raise CommandError(
                f"{self._who} has no behaviour {show(name)}; expected "
                f"{one_of(repr(behavior) for behavior in known)}."
            )
        return [known[str(name)]]


def _scheduled(behavior: Behavior, key: str) -> str:
    """Says what a schedule makes of a new start value."""
    settings = behavior.settings.hyperparameters
    if key not in RATES or getattr(settings, f"{key}_schedule") == "constant":
        return ""
    rate = behavior.algorithm.rates(behavior.step)[RATES[key]]
    return f" (where its linear schedule starts; {rate:.3g} at this step)"
