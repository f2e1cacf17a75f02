"""What may be in a run's folder when the run begins, and what its behaviours start from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from trainer.available_memory import available_memory
from trainer.behavior import Behavior
from trainer.config.errors import ConfigError
from trainer.config.settings import ActAt, BehaviorSettings, CheckpointSettings, RunSettings
from trainer.memory_budget import shortage
from trainer.reporter import Reporter
from trainer.run_folder import RunFolder


def resumed_or_started(settings: RunSettings, from_step: int | None) -> RunSettings:
    """Decides for `resume_or_start` whether there is a run to go on with.

    What comes back says so with `resume`, and has no `resume_or_start` any more.

    Raises:
        ConfigError: a step is named to go on from, at every start anew.
    """
    chosen = settings.checkpoint_settings
    if not chosen.resume_or_start:
        return settings
    if from_step is not None:
        raise ConfigError(
            f"--from-step {from_step} with --resume-or-start would go back to that step at every "
            f"start. Go back once, with --resume --from-step {from_step}."
        )
    folder = RunFolder(Path(chosen.results_dir) / chosen.run_id)
    update = {"resume": folder.holds_run(), "resume_or_start": False}
    own = chosen.model_copy(update=update)
    return settings.model_copy(update={"checkpoint_settings": own})


def open_run_folder(settings: CheckpointSettings, from_step: int | None) -> RunFolder:
    """Creates the run's folder, or finds it, as resume and force allow.

    Args:
        settings: of the run.
        from_step: the checkpoint to go on from; None: the newest.

    Raises:
        ConfigError: it holds a run and nobody said what to do with that; or there is none to
            resume; or none to initialise from.
    """
    folder = RunFolder(Path(settings.results_dir) / settings.run_id)
    has_run = folder.holds_run()
    if from_step is not None and not settings.resume:
        raise ConfigError(
            f"--from-step {from_step} says where to go on, but the run does not go on with "
            f"anything. Add --resume, or leave --from-step out."
        )
    if settings.resume and not has_run:
        raise ConfigError(
            f"{folder.path} holds no run to resume. Check --run-id ('{settings.run_id}') and "
            f"--results-dir ('{settings.results_dir}'), or start the run without --resume."
        )
    if has_run and not settings.resume and not settings.force:
        raise ConfigError(
            f"{folder.path} holds data of an earlier run. Go on with it (--resume), write over it "
            f"(--force), or choose another name (--run-id)."
        )
    if settings.initialize_from is not None and not settings.resume:
        source = Path(settings.results_dir) / settings.initialize_from
        if not source.is_dir():
            raise ConfigError(
                f"{source} does not exist, so --initialize-from '{settings.initialize_from}' has "
                f"nothing to start from. Check the run id and --results-dir."
            )
    folder.logs.mkdir(parents=True, exist_ok=True)
    return folder


def initial_checkpoint(
    name: str, behavior: BehaviorSettings, settings: CheckpointSettings
) -> Path | None:
    """Gives the file that a new behaviour's weights come from, if any.

    `init_path` may be a file's path, or a file name in the folder of `initialize_from`.

    Raises:
        ConfigError: the file does not exist or is no `.pt` file.
    """
    source = behavior.init_path
    if settings.initialize_from is not None:
        base = Path(settings.results_dir) / settings.initialize_from / name
        if source is None:
            source = str(base / "checkpoint.pt")
        elif Path(source).name == source:
            source = str(base / source)
    if source is None:
        return None
    path = Path(source)
    if path.suffix != ".pt" or not path.is_file():
        raise ConfigError(
            f"behaviors.{name}: weights should come from {path}, which is no existing .pt file. "
            f"Set init_path to a checkpoint, or initialize_from to a run with this behaviour."
        )
    return path


def with_seed(settings: RunSettings) -> RunSettings:
    """Draws the run's seed if it is -1, except in reproducible mode, where that means 0.

    From here on the drawn one is part of the settings, and of `configuration.yaml`.
    """
    if settings.env_settings.seed >= 0:
        return settings
    seed = 0 if settings.reproducible else random.randrange(10_000)
    env = settings.env_settings.model_copy(update={"seed": seed})
    return settings.model_copy(update={"env_settings": env})


def act_at(settings: RunSettings) -> ActAt:
    """Says where agents are to act: a run that learns nothing, or has to repeat, asks the trainer.

    When simulators that act would tell what they did depends on the time. Environments in the
    trainer's process have no round trip to save.
    """
    env, is_alone = settings.env_settings, settings.checkpoint_settings.inference
    if settings.reproducible or is_alone or env.is_in_process:
        return "trainer"
    return settings.env_settings.act_at


def introduce(behavior: Behavior, all_so_far: Sequence[Behavior], reporter: Reporter) -> None:
    """Tells what was built, and warns before the first step if it will not fit into memory.

    Args:
        behavior: the newest.
        all_so_far: with the newest.
        reporter: hears of it.
    """
    for message in behavior.introduction():
        reporter.info(message)
    lack = shortage([one.memory for one in all_so_far], available_memory())
    if lack is not None:
        reporter.warning(lack)
