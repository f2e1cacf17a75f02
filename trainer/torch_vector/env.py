"""What a vector environment on tensors has to be, and how it is found.

`env_path: torch:<module>:<Class>` names a class; `num_areas` of its agents step together, on the
device that learns. Nothing of an env_step is copied to the host, nor waited for.

Letters: N agents, O numbers that each observes, C continuous action size, K discrete branches.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from envs.errors import BadDataError, SimulatorDidNotStartError
from envs.spec import ActionSpec, BehaviorSpec, vector_sensor


@dataclass(frozen=True, slots=True)
class TorchStep:
    """What one env_step came to; an episode that is over has begun anew already."""

    obs: Tensor  # (N, O) float32, what the agents see now: after an end, the next episode's first
    rewards: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool, ended by the task
    truncated: Tensor  # (N,) bool, cut short; what is both is terminated
    last_obs: Tensor  # (N, O), what was seen before a new episode began; elsewhere like `obs`


class TorchVectorEnv(Protocol):
    """N agents of one kind, on one device.

    Tensors that it gives may be overwritten by the next call, not earlier. A resumed run begins new
    episodes.
    """

    num_obs: int  # O
    num_actions: int  # C; 0 with branches

    @property
    def branches(self) -> Sequence[int]:
        """K sizes; () with continuous actions."""
        ...

    def __init__(self, num_envs: int, device: torch.device, seed: int, **kwargs: Any) -> None:
        """Builds N = `num_envs` agents; `kwargs` are `env_settings.env_kwargs`."""
        ...

    def reset(self) -> Tensor:
        """Begins all episodes anew; gives observations (N, O)."""
        ...

    def step(self, actions: Tensor) -> TorchStep:
        """Makes one env_step with (N, C) float32 in -1..1, or (N, K) int64 branch indices."""
        ...


def make_torch_env(
    name: str, num_envs: int, device: torch.device, seed: int, kwargs: Mapping[str, Any]
) -> TorchVectorEnv:
    """Builds an environment from the word after `torch:`.

    Raises:
        SimulatorDidNotStartError: there is no such class, or it could not be built.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise SimulatorDidNotStartError(
            f"torch:{name} names no class. Write torch:package.module:Class."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SimulatorDidNotStartError(
            f"torch:{name}: importing {module_name!r} failed: {error}. Start ppo-train in the "
            f"folder that holds it, or install it."
        ) from error
    build = getattr(module, attribute, None)
    if build is None:
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        raise SimulatorDidNotStartError(
            f"torch:{name}: {module_name} has no {attribute!r}. "
            + (f"Did you mean {near[0]}?" if near else "Check the name behind the colon.")
        )
    try:
        env: TorchVectorEnv = build(num_envs, device, seed, **kwargs)
        spec_of(env)
    except Exception as error:
        raise SimulatorDidNotStartError(
            f"torch:{name} could not be built for {num_envs} agents on {device} with "
            f"{json.dumps(dict(kwargs), default=str)}: {type(error).__name__}: {error}. It takes "
            f"(num_envs, device, seed, ...), and has num_obs, num_actions and branches."
        ) from error
    return env


def spec_of(env: TorchVectorEnv) -> BehaviorSpec:
    """Gives what the trainer has to know of an environment.

    Raises:
        BadDataError: it has both kinds of actions, or none.
    """
    branches = tuple(int(size) for size in env.branches)
    if bool(env.num_actions) == bool(branches):
        raise BadDataError(
            f"{type(env).__name__} has num_actions {env.num_actions} and branches {branches}; "
            f"expected one of them."
        )
    return BehaviorSpec([vector_sensor("obs", env.num_obs)], ActionSpec(env.num_actions, branches))


def require_shapes(env: TorchVectorEnv, step: TorchStep, num_envs: int) -> None:
    """Raises BadDataError unless a step has the shapes and types of the protocol."""
    expected = {
        "obs": ((num_envs, env.num_obs), torch.float32),
        "rewards": ((num_envs,), torch.float32),
        "terminated": ((num_envs,), torch.bool),
        "truncated": ((num_envs,), torch.bool),
        "last_obs": ((num_envs, env.num_obs), torch.float32),
    }
    for name, (shape, dtype) in expected.items():
        found: Tensor = getattr(step, name)
        if tuple(found.shape) != shape or found.dtype != dtype:
            raise BadDataError(
                f"{type(env).__name__}.step gave {name} of shape {tuple(found.shape)} and type "
                f"{found.dtype}, expected {shape} and {dtype}."
            )
