"""The policy's actor as onnxruntime runs it: chooses like `ActorCritic.act`, in less time.

The graph is the one that Unity gets, cut off where chance begins (`envs/graph_policy.py`).
`python -m benchmarks.acting` compares the two.

Letters: N rows, C continuous action size, L sum of branch sizes, M memory size, W memory width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from envs.batch import Choices, Observations
from envs.graph_policy import (
    RECURRENT_IN,
    RECURRENT_OUT,
    GraphPolicy,
    PolicyGraph,
    as_floats,
    open_session,
)
from trainer.nn.actor_critic import Action, ActorCritic
from trainer.onnx_graph import build_critic_memory, build_model, cut_to_outputs


def graph_of(policy: ActorCritic) -> PolicyGraph:
    """Gives the policy's weights and normaliser as they are now, on the CPU."""
    branches = range(len(policy.branch_sizes))
    outputs = ["mean"] if policy.continuous_size else []
    outputs += ["deviation"] if policy.std_head is not None else []
    outputs += [f"branch_{k}.probabilities" for k in branches]
    outputs += [f"branch_{k}.log_probs" for k in branches]
    if policy.memory_size:
        outputs.append(RECURRENT_OUT)
    log_std = np.zeros(0, np.float32)
    if policy.continuous_size and policy.std_head is None:
        log_std = policy.log_std.detach().numpy().copy()
    model = cut_to_outputs(build_model(policy), outputs)
    return PolicyGraph(model.SerializeToString(), log_std)


class CompiledPolicy:
    """Acts with the weights that the policy had at the last `refresh`; on the CPU."""

    def __init__(self, policy: ActorCritic, seed: int) -> None:
        self._policy = policy
        self.graph = graph_of(policy)
        self._actor = GraphPolicy(self.graph, seed)
        self._load_critic()

    def refresh(self) -> None:
        """Takes the policy's weights and normaliser as they are now."""
        self.graph = graph_of(self._policy)
        self._actor.load(self.graph)
        self._load_critic()

    def _load_critic(self) -> None:
        if self._policy.memory_width > self._policy.memory_size:
            critic = build_critic_memory(self._policy)
            self._critic_inputs = {value.name for value in critic.graph.input}
            self._run_critic = open_session(critic.SerializeToString()).run

    def act(
        self,
        obs: Sequence[Observations],
        mask: NDArray[np.bool_] | None,
        deterministic: bool = False,
        memory: NDArray[np.float32] | None = None,
    ) -> Action:
        """Chooses as `choose` does; gives tensors."""
        choices, carried = self.choose(obs, mask, deterministic, memory)
        return Action(
            torch.from_numpy(choices.continuous),
            torch.from_numpy(choices.discrete),
            torch.from_numpy(choices.log_probs),
            carried,
        )

    def choose(
        self,
        obs: Sequence[Observations],
        mask: NDArray[np.bool_] | None,
        deterministic: bool = False,
        memory: NDArray[np.float32] | None = None,
    ) -> tuple[Choices, torch.Tensor | None]:
        """Chooses an action for each row; the mean and the likeliest branch if `deterministic`.

        Args:
            obs: one per sensor, each (N, *shape); uint8 stands for value / 255.
            mask: (N, L), True = allowed; None without branches.
            deterministic: choose instead of draw.
            memory: (N, W) what the agents carry, 0 at first; only with memory.

        Returns:
            What was chosen, and, with memory, what the agents carry on, (N, W).
        """
        size = self._policy.memory_size
        of_actor = None if memory is None else memory[:, None, :size]  # (N, 1, M)
        choices, kept = self._actor.act(obs, mask, deterministic, of_actor)
        carried = None
        if memory is not None and kept is not None:
            carried = self._carried_on(kept, obs, memory)
        return choices, carried

    def _carried_on(
        self,
        of_actor: NDArray[np.float32],
        obs: Sequence[Observations],
        memory: NDArray[np.float32],
    ) -> torch.Tensor:
        """Lets the critic's memory take its step too; (N, 1, M), (N, W) -> (N, W)."""
        parts = [of_actor[:, 0]]
        size = self._policy.memory_size
        if self._policy.memory_width > size:
            feed = {
                name: as_floats(column)
                for i, column in enumerate(obs)
                if (name := f"obs_{i}") in self._critic_inputs
            }
            feed[RECURRENT_IN] = memory[:, None, size:]
            parts.append(self._run_critic([RECURRENT_OUT], feed)[0][:, 0])
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def chance_state(self) -> str:
        """Gives the state of the random generator, for a checkpoint."""
        return self._actor.chance_state()

    def load_chance_state(self, state: str) -> None:
        """Goes on drawing where `chance_state` was taken."""
        self._actor.load_chance_state(state)
