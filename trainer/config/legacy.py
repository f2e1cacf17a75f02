"""Keys that ML-Agents no longer uses, or spells otherwise; one function per change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from trainer.config.behavior_settings import NetworkSettings
from trainer.config.problems import KeyPath, Problem, dotted

logger = logging.getLogger(__name__)

# Told from a behaviour by these: no other mapping of a settings file has them.
FLAT_KEYS = {
    "trainer",
    "batch_size",
    "buffer_size",
    "use_recurrent",
    "summary_freq",
    "time_horizon",
}
MOVED_KEYS = ("parameter_randomization", "curriculum")

Warn = Callable[[KeyPath, str], None]


def lambda_is_lambd(given: dict[str, Any], path: KeyPath, warn: Warn) -> dict[str, Any]:
    """Reads `lambda` as `lambd`, ML-Agents' spelling."""
    if "lambda" not in given or "lambd" in given:
        return given
    warn((*path, "lambda"), f"read as {dotted((*path, 'lambd'))}, as ML-Agents spells it")
    return {"lambd" if key == "lambda" else key: value for key, value in given.items()}


def framework_is_gone(given: dict[str, Any], path: KeyPath, warn: Warn) -> dict[str, Any]:
    """Drops `framework`: there is only PyTorch."""
    if "framework" not in given:
        return given
    warn((*path, "framework"), "has no effect, there is only PyTorch. Remove it")
    return {key: value for key, value in given.items() if key != "framework"}


def extrinsic_has_no_network(given: dict[str, Any], path: KeyPath, warn: Warn) -> dict[str, Any]:
    """Notes a network of `extrinsic`, never built; ML-Agents' files spell out its defaults."""
    network = given.get("network_settings")
    if not isinstance(network, dict):
        return given
    defaults = {key: field.default for key, field in NetworkSettings.model_fields.items()}
    if any(key in defaults and value != defaults[key] for key, value in network.items()):
        where = (*path, "network_settings")
        warn(where, f"has no effect, {path[-1]} has no network of its own. Remove it")
    return given


def model_keys_are_gone(given: dict[str, Any], path: KeyPath, warn: Warn) -> dict[str, Any]:
    """Drops `load_model` and `train_model` of checkpoint_settings, which do nothing."""
    for key, instead in (
        ("load_model", "Write `resume: true` to go on with a run"),
        ("train_model", "Training is what happens without `inference: true`"),
    ):
        if given.get(key) not in (None, False):
            warn((*path, key), f"has no effect. {instead}")
    return {key: value for key, value in given.items() if key not in {"load_model", "train_model"}}


def old_dialect(given: Mapping[str, Any]) -> Problem | None:
    """Recognises the file formats of ML-Agents 0.18 and older, which are not read."""
    for key in MOVED_KEYS:
        if key in given:
            return Problem(
                (key,),
                f"{key} belongs to the format of ML-Agents 0.18 and older; expected "
                "environment_parameters. Convert the file with ML-Agents' own "
                "`python -m mlagents.trainers.upgrade_config old.yaml new.yaml`.",
            )
    if "behaviors" in given or "default_settings" in given:
        return None
    for name, value in given.items():
        if isinstance(value, dict) and FLAT_KEYS & value.keys():
            return Problem(
                (name,),
                f"{name} holds a behaviour's settings at the top level, the format of ML-Agents "
                "0.16 and older; expected them below `behaviors:`, sorted into hyperparameters "
                "and network_settings. Convert the file with ML-Agents' own "
                "`python -m mlagents.trainers.upgrade_config old.yaml new.yaml`.",
            )
    return None
