"""Curves to MLflow: a server, or its local file store. Imports mlflow, which takes a second."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

# Before mlflow is imported: no statistics about its use leave the machine unasked, and a folder,
# which current versions accept only on request, is what the user has asked for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from trainer.config.tracker_settings import MlflowSettings
from trainer.trackers.journal import Point

FOLDER = "mlruns"
MOST_PARAMS = 100  # that MLflow takes at once
LONGEST_PARAM = 500  # that every version of MLflow takes


class MlflowTracker:
    """One MLflow experiment."""

    def __init__(self, settings: MlflowSettings, run_id: str) -> None:
        """Finds the experiment, or makes it.

        Args:
            settings: where.
            run_id: of the run, which tracked runs are named after.
        """
        given = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or FOLDER
        self._uri = given if "://" in given else Path(given).resolve().as_uri()
        self._run_id = run_id
        self._client = MlflowClient(tracking_uri=self._uri)
        found = self._client.get_experiment_by_name(settings.experiment)
        self._experiment = (
            self._client.create_experiment(settings.experiment)
            if found is None
            else found.experiment_id
        )

    @property
    def place(self) -> str:
        """Server and experiment."""
        return f"{self._uri} {self._experiment}"

    def begin(self, behavior: str, parameters: Mapping[str, str]) -> MlflowRun:
        """Makes a new tracked run; MLflow's parameters can never be changed."""
        made = self._client.create_run(
            self._experiment,
            run_name=f"{self._run_id}/{behavior}",
            tags={"ppo_train.run_id": self._run_id, "ppo_train.behavior": behavior},
        )
        params = [Param(key, value[:LONGEST_PARAM]) for key, value in parameters.items()]
        for first in range(0, len(params), MOST_PARAMS):
            some = params[first : first + MOST_PARAMS]
            self._client.log_batch(made.info.run_id, params=some)
        return MlflowRun(self._client, made.info.run_id, {})

    def go_on(self, id: str, behavior: str, newest_step: int | None) -> MlflowRun | None:
        """Gives a tracked run back, and asks how far each of its curves goes."""
        del behavior, newest_step
        try:
            known = self._client.get_run(id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if known.info.lifecycle_stage != "active":  # deleted by the user
            return None
        self._client.update_run(id, status=RunStatus.to_string(RunStatus.RUNNING))
        newest = {
            tag: max(metric.step for metric in self._client.get_metric_history(id, tag))
            for tag in known.data.metrics
        }
        return MlflowRun(self._client, id, newest)

    def close(self) -> None:
        """Nothing runs in the background."""


class MlflowRun:
    """One tracked run."""

    def __init__(self, client: MlflowClient, id: str, newest: dict[str, int]) -> None:
        """Takes how far each curve goes; a kill may have stored half a point."""
        self._client = client
        self._newest = newest
        self.id = id
        # Of the curve that is least far: `log` leaves out what the others have.
        self.newest_step: int | None = min(newest.values(), default=None)

    def log(self, point: Point) -> None:
        """Sends the curves that do not have this point yet."""
        metrics = [
            Metric(tag, value, round(point.time_s * 1000), point.step)
            for tag, value in ((metric_name(tag), v) for tag, v in point.scalars.items())
            if point.step > self._newest.get(tag, -1)
        ]
        if metrics:
            self._client.log_batch(self.id, metrics=metrics)
        self._newest.update((metric.key, metric.step) for metric in metrics)
        self.newest_step = point.step

    def finish(self, exit_code: int | None) -> None:
        """Says how the run ended, in MLflow's words."""
        status = RunStatus.FAILED
        if exit_code == 0:
            status = RunStatus.FINISHED
        elif exit_code is None or exit_code >= 128:
            status = RunStatus.KILLED
        self._client.set_terminated(self.id, status=RunStatus.to_string(status))


def metric_name(tag: str) -> str:
    """Gives a tag as MLflow allows it; those of ML-Agents are, a simulator's own may not be."""
    allowed = re.sub(r"[^\w\-. /]", "_", tag)
    parts = [part for part in posixpath.normpath(allowed).split("/") if part not in ("", "..")]
    return "/".join(parts) or "_"
