"""Curves to Weights & Biases, online or into files. Imports wandb, which takes a second."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Before wandb is imported: no reports about its own errors leave the machine unasked.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from trainer.config.tracker_settings import WandbSettings
from trainer.trackers.journal import Point


class WandbTracker:
    """One Weights & Biases project."""

    def __init__(self, settings: WandbSettings, run_id: str, folder: Path) -> None:
        """Starts wandb's own background process.

        Args:
            settings: which project.
            run_id: of the run, which tracked runs are grouped under.
            folder: `wandb/` in it gets the files.
        """
        self._settings = settings
        self._run_id = run_id
        self._folder = folder
        # Silent also means: never asks for a key at the terminal that the training has.
        wandb.setup(settings=wandb.Settings(silent=True, console="off"))

    @property
    def place(self) -> str:
        """Entity and project."""
        return f"{self._settings.mode} {self._settings.entity or ''}/{self._settings.project}"

    def begin(self, behavior: str, parameters: Mapping[str, str]) -> WandbRun:
        """Makes a new tracked run; wandb calls parameters its config."""
        return self._opened(secrets.token_hex(8), behavior, None, parameters)

    def go_on(self, id: str, behavior: str, newest_step: int | None) -> WandbRun | None:
        """Gives a tracked run back; online, wandb itself takes no step twice either."""
        return self._opened(id, behavior, newest_step, {})

    def _opened(
        self, id: str, behavior: str, newest_step: int | None, parameters: Mapping[str, str]
    ) -> WandbRun:
        chosen = self._settings
        run = wandb.init(
            entity=chosen.entity,
            project=chosen.project,
            group=self._run_id,
            name=f"{self._run_id}/{behavior}",
            id=id,
            resume="allow",
            mode=chosen.mode,
            dir=str(self._folder),
            config=dict(parameters),
            settings=wandb.Settings(
                silent=True,
                console="off",
                reinit="create_new",  # one per behaviour, at the same time
                save_code=False,
                disable_git=True,
                disable_job_creation=True,
                x_disable_stats=True,
                x_disable_meta=True,
            ),
        )
        return WandbRun(run, id, newest_step)

    def close(self) -> None:
        """Ends wandb's background process."""
        wandb.teardown()


class WandbRun:
    """One tracked run."""

    def __init__(self, run: Any, id: str, newest_step: int | None) -> None:
        self._run = run
        self.id = id
        self.newest_step = newest_step

    def log(self, point: Point) -> None:
        """Hands a point to wandb's background process."""
        row = {**point.scalars, "_timestamp": point.time_s}  # else it is the time of sending
        self._run.log(row, step=point.step, commit=True)
        self.newest_step = point.step

    def finish(self, exit_code: int | None) -> None:
        """Says how the run ended, and waits until everything has arrived."""
        self._run.finish(exit_code=1 if exit_code is None else exit_code)
