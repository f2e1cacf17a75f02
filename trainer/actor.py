"""One forward pass for every agent that is ready, of every simulator.

Letters: N agents ready now, C continuous action size, K discrete branches, W memory width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from envs.batch import Actions, Choices, Decisions
from envs.graph_policy import PolicyGraph
from trainer.compiled_policy import CompiledPolicy
from trainer.nn.actor_critic import Action, ActorCritic
from trainer.rollout.carried import CarriedMemory
from trainer.rollout.steplog import StepLog


class Actor:
    """Asks the policy for actions and says them in the simulator's units.

    On a CPU onnxruntime computes them; on another device, the policy itself.
    """

    def __init__(
        self, policy: ActorCritic, seed: int, deterministic: bool, *, keeps_copy: bool = False
    ) -> None:
        """Begins with the policy's weights as they are.

        Args:
            policy: that learns.
            seed: of what is drawn.
            deterministic: choose the mean and the likeliest branch instead.
            keeps_copy: act with the weights of the last `refresh` on any device; on the CPU it is
                always so.
        """
        self._learning = policy
        self._policy = policy
        self._deterministic = deterministic
        self._device = next(policy.parameters()).device
        self._carried = (
            CarriedMemory(policy.memory_width, self._device) if policy.memory_width else None
        )
        self._compiled: CompiledPolicy | None = None
        if runs_onnx(self._device):
            self._compiled = CompiledPolicy(policy, seed)
        else:
            if keeps_copy:
                self._policy = copy.deepcopy(policy)
            self._generator = torch.Generator(device=self._device).manual_seed(seed)

    def act(self, log: StepLog, batches: Sequence[Decisions]) -> list[Actions]:
        """Writes the decisions into the log, decides, and gives one answer per batch."""
        rows = log.append(batches)
        memory = None
        if self._carried is not None:
            memory = self._carried.of(log.columns["lane"][rows])  # (N, W)
            log.tensors["memory"][rows] = memory  # as it was before the decision
        if self._compiled is None:
            action = self._act_on_device(log, rows, memory)
            choices, carried = choices_of(action), action.memory
        else:
            mask = log.columns.get("action_mask")
            choices, carried = self._compiled.choose(
                [column[rows] for column in log.obs_columns],
                None if mask is None else mask[rows],
                self._deterministic,
                None if memory is None else memory.numpy(),
            )
        if self._carried is not None:
            assert carried is not None
            self._carried.keep(log.columns["lane"][rows], carried)
        log.record(rows, choices)
        return split_actions(choices.actions(), [len(batch) for batch in batches])

    def _act_on_device(self, log: StepLog, rows: slice, memory: torch.Tensor | None) -> Action:
        inputs = self._policy.inputs([sensor[rows].to(self._device) for sensor in log.obs_tensors])
        mask = log.tensors.get("action_mask")
        masks = None if mask is None else mask[rows].to(self._device)
        chosen = self._policy.act(inputs, masks, self._generator, self._deterministic, memory)
        return chosen.cpu()

    def forget(self, lanes: NDArray[np.int64]) -> None:
        """Lets go of what these lanes' agents remember, since their episodes are over."""
        if self._carried is not None:
            self._carried.forget(lanes)

    def refresh(self) -> None:
        """Acts with the policy's weights as they are now; to be called whenever they changed."""
        if self._compiled is not None:
            self._compiled.refresh()
        elif self._policy is not self._learning:
            self._policy.load_state_dict(self._learning.state_dict())

    @property
    def graph(self) -> PolicyGraph | None:
        """The policy as simulators can run it; None if they cannot.

        What an agent remembers stays in the trainer, and so does a policy on another device.
        """
        if self._compiled is None or self._carried is not None:
            return None
        return self._compiled.graph

    def chance_state(self) -> str | torch.Tensor:
        """Gives the state of the random generator, for a checkpoint."""
        return (
            self._generator.get_state() if self._compiled is None else self._compiled.chance_state()
        )

    def load_chance_state(self, state: object) -> None:
        """Goes on drawing where `chance_state` was taken; another device draws anew."""
        if self._compiled is not None and isinstance(state, str):
            self._compiled.load_chance_state(state)
        elif self._compiled is None and isinstance(state, torch.Tensor):
            self._generator.set_state(state)


def runs_onnx(device: torch.device) -> bool:
    """Whether onnxruntime acts for a policy that lies there."""
    return device.type == "cpu"


def to_simulator(action: Action) -> Actions:
    """Clips and scales continuous actions on the CPU to -1..1, as ML-Agents does."""
    return choices_of(action).actions()


def choices_of(action: Action) -> Choices:
    """Gives the columns of what was chosen, on the CPU."""
    return Choices(action.continuous.numpy(), action.discrete.numpy(), action.log_probs.numpy())


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
