"""Settings from texts and command lines, as a run loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainer.config.document import parse_document
from trainer.config.flags import parse_train
from trainer.config.load import load_run, resolve
from trainer.config.settings import RunSettings

Write = Callable[[str], Path]


def load_text(text: str) -> RunSettings:
    return resolve(parse_document(Path("run.yaml"), text))


def load_typed(path: Path, *flags: str) -> RunSettings:
    arguments = parse_train([str(path), *flags])
    return load_run(arguments.config_path, arguments.overrides)


# --- precedence: flag, behaviour, default_settings, default ---------------------------------------

PRECEDENCE = """
default_settings:
  trainer_type: ppo
  max_steps: 111
  time_horizon: 222
  network_settings: {hidden_units: 32, num_layers: 3}
behaviors:
  Walker: {max_steps: 333, network_settings: {num_layers: 4}}
env_settings: {env_path: gym:A-v1, num_envs: 3, seed: 7}
engine_settings: {time_scale: 5, width: 10}
checkpoint_settings: {run_id: of-file, resume: true}
torch_settings: {device: cpu}
"""
