"""Keys that ML-Agents no longer uses, or spells otherwise; one function per change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from trainer.config.behavior_settings import NetworkSettings
from trainer.config.problems import KeyPath, dotted

logger = logging.getLogger(__name__)


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
