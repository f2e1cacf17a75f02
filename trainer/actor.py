"""One forward pass for every agent that is ready, of every simulator.

Letters: N agents ready now, C continuous action size, K discrete branches, W memory width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from envs.batch import Actions, Decisions
from trainer.nn.actor_critic import Action, ActorCritic
from trainer.rollout.carried import CarriedMemory
from trainer.rollout.steplog import StepLog

ACTION_LIMIT = 3.0  # ML-Agents sends clip(action, -3, 3) / 3 to the simulator


class Actor:
    """Asks the policy for actions and says them in the simulator's units."""

    def __init__(
        self, policy: ActorCritic, generator: torch.Generator, deterministic: bool
    ) -> None:
        self.policy = policy
        self.generator = generator
        self.deterministic = deterministic
        self._device = next(policy.parameters()).device
        self._carried = (
            CarriedMemory(policy.memory_width, self._device) if policy.memory_width else None
        )

    def act(self, log: StepLog, batches: Sequence[Decisions]) -> list[Actions]:
        """Writes the decisions into the log, decides, and gives one answer per batch."""
        rows = log.append(batches)
        tensors = log.tensors
        inputs = self.policy.inputs([sensor[rows].to(self._device) for sensor in log.obs_tensors])
        mask = tensors["action_mask"][rows].to(self._device) if "action_mask" in tensors else None
        if self._carried is None:
            action = self.policy.act(inputs, mask, self.generator, self.deterministic).cpu()
        else:
            lanes = log.columns["lane"][rows]
            memory = self._carried.of(lanes)  # (N, W)
            tensors["memory"][rows] = memory  # as it was before the decision
            action = self.policy.act(inputs, mask, self.generator, self.deterministic, memory).cpu()
            assert action.memory is not None
            self._carried.keep(lanes, action.memory)
        log.record(rows, action)
        return split_actions(to_simulator(action), [len(batch) for batch in batches])

    def forget(self, lanes: NDArray[np.int64]) -> None:
        """Lets go of what these lanes' agents remember, since their episodes are over."""
        if self._carried is not None:
            self._carried.forget(lanes)


def to_simulator(action: Action) -> Actions:
    """Clips and scales continuous actions on the CPU to -1..1, as ML-Agents does."""
    continuous = action.continuous.numpy()
    limited = np.clip(continuous, -ACTION_LIMIT, ACTION_LIMIT) / np.float32(ACTION_LIMIT)
    return Actions(limited, action.discrete.numpy().astype(np.int32))


def split_actions(actions: Actions, sizes: Sequence[int]) -> list[Actions]:
    """Cuts actions for all agents back into one piece per batch."""
    if len(sizes) == 1:
        return [actions]
    ends = np.cumsum(sizes).tolist()
    starts = [0, *ends[:-1]]
    return [
        Actions(actions.continuous[start:end], actions.discrete[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]
