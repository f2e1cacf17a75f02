"""One behaviour and a crowd of agents whose reward is their action."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from envs.batch import Decisions, Terminals
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.behavior import Behavior

CROWD = 8  # agents at once
SETTINGS: dict[str, Any] = {
    "hyperparameters": {
        "batch_size": 32,
        "buffer_size": 32,
        "learning_rate": 0.01,
        "learning_rate_schedule": "constant",
    },
    "network_settings": {"hidden_units": 8, "num_layers": 1, "normalize": True},
    "summary_freq": 100,
    "checkpoint_interval": 250,
    "max_steps": 100_000,
}
MakeBehavior = Callable[..., Behavior]


def spec_of(
    sizes: tuple[int, ...] = (2,), continuous: int = 1, branches: tuple[int, ...] = ()
) -> BehaviorSpec:
    sensors = [
        ObservationSpec((size,), (DimensionProperty.NONE,), Kind.DEFAULT, "eyes") for size in sizes
    ]
    return BehaviorSpec(sensors, ActionSpec(continuous, branches))


def columns(lanes: list[int], reward: list[float], moment: int) -> dict[str, Any]:
    count = len(lanes)
    zeros = np.zeros(count, np.int32)
    own = np.array(lanes, np.float32)
    return {
        "obs": (np.stack([np.sin(own + moment), 100 + 10 * np.cos(own * moment)], axis=1),),
        "reward": np.array(reward, np.float32),
        "lane": np.array(lanes),
        "agent_id": zeros,
        "simulator": zeros,
        "team": zeros,
        "group_id": zeros,
        "group_reward": np.zeros(count, np.float32),
    }


LANES = list(range(CROWD))


def play(behavior: Behavior, decisions: int, moment: int = 0) -> list[float]:
    """One episode of each agent: the reward of an action is the action; gives all actions."""
    reward = [0.0] * CROWD
    sent: list[float] = []
    for step in range(decisions):
        (answer,) = behavior.decide([Decisions(**columns(LANES, reward, moment + step))])
        reward = answer.continuous[:, 0].tolist()
        sent += reward
    ended = columns(LANES, reward, moment + decisions)
    behavior.end([Terminals(**ended, truncated=np.array([i % 2 == 0 for i in LANES]))])
    return sent


def weights(behavior: Behavior) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in behavior.policy.parameters()])


def through_a_file(state: dict[str, object]) -> dict[str, object]:
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    found = torch.load(stored, weights_only=True)
    assert isinstance(found, dict)
    return found


def require_plain(where: str, value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert isinstance(key, str | int), where
            require_plain(f"{where}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            require_plain(f"{where}[]", inner)
    else:
        plain = (torch.Tensor, int, float, str, bool, type(None))
        assert type(value) in plain, f"{where} is a {type(value)}"


def statistics(behavior: Behavior) -> dict[str, float]:
    return behavior.metrics.write(behavior.step)


def written_scalars(behavior: Behavior) -> dict[str, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    behavior.metrics.flush()
    events: Any = EventAccumulator(str(behavior.folder))
    events.Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
