"""`trackers`: where else a run's curves go, beside TensorBoard."""

from __future__ import annotations

from typing import Literal

from trainer.config.model import Settings
from trainer.config.values import Words


class MlflowSettings(Settings):
    """An MLflow server or folder, with a tracked run per behaviour; needs ppo-train[mlflow]."""

    tracking_uri: Words | None = None
    """(ours) Address of the server, or a folder. Null: what the environment variable
    MLFLOW_TRACKING_URI says, else the folder mlruns where the run is started."""

    experiment: Words = "ppo-train"
    """(ours) Experiment that the tracked runs belong to; made if there is none of this name."""


class WandbSettings(Settings):
    """Weights & Biases, with a tracked run per behaviour; needs ppo-train[wandb]."""

    project: Words = "ppo-train"
    """(ours) Project that the tracked runs belong to."""

    entity: Words | None = None
    """(ours) User or team that the project belongs to. Null: that of the login."""

    mode: Literal["online", "offline"] = "online"
    """(ours) Whether curves are sent, or kept in run_logs/wandb until `wandb sync` sends them."""


class TrackerSettings(Settings):
    """Trackers that get the same curves as TensorBoard, which every run has; any number of them.

    A tracker is on when its key holds a mapping; `{}` takes the defaults, null turns it off.
    """

    mlflow: MlflowSettings | None = None
    """(ours) MLflow. Null: off."""

    wandb: WandbSettings | None = None
    """(ours) Weights & Biases. Null: off."""
