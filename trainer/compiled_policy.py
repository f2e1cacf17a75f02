"""The policy's actor as onnxruntime runs it: chooses like `ActorCritic.act`, in less time.

Over the few rows of a message, an eager forward pass packs the weights anew for every product and
spends more on calling than on computing; onnxruntime packs once. The graph is the one that Unity
gets, cut off where chance begins. `python -m benchmarks.acting` compares the two.

Letters: N rows, C continuous action size, K discrete branches, L sum of branch sizes, M memory
size, W memory width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.batch import Observations
from trainer.nn.actor_critic import Action, ActorCritic
from trainer.nn.distributions import LOG_SQRT_2PI
from trainer.onnx_graph import build_critic_memory, build_model, cut_to_outputs
from trainer.onnx_policy import RECURRENT_IN, RECURRENT_OUT, as_floats, open_session

SMALLEST = np.finfo(np.float32).tiny  # 0 / 0 would win against every probability
Arrays = list[NDArray[Any]]
Feed = dict[str, NDArray[np.float32]]


class CompiledPolicy:
    """Acts with the weights that the policy had at the last `refresh`; on the CPU."""

    def __init__(self, policy: ActorCritic, seed: int) -> None:
        self._policy = policy
        self._chance = np.random.Generator(np.random.PCG64(seed))
        self._num_branches = len(policy.branch_sizes)
        branches = range(self._num_branches)
        self._outputs = ["mean"] if policy.continuous_size else []
        self._outputs += ["deviation"] if policy.std_head is not None else []
        self._outputs += [f"branch_{k}.probabilities" for k in branches]
        self._outputs += [f"branch_{k}.log_probs" for k in branches]
        if policy.memory_size:
            self._outputs.append(RECURRENT_OUT)
        self.refresh()

    def refresh(self) -> None:
        """Takes the policy's weights and normaliser as they are now."""
        model = cut_to_outputs(build_model(self._policy), self._outputs)
        self._inputs = {value.name for value in model.graph.input}
        self._run = open_session(model.SerializeToString()).run
        if self._policy.memory_width > self._policy.memory_size:
            critic = build_critic_memory(self._policy)
            self._critic_inputs = {value.name for value in critic.graph.input}
            self._run_critic = open_session(critic.SerializeToString()).run
        if self._policy.continuous_size and self._policy.std_head is None:
            log_std = self._policy.log_std.detach().numpy()
            self._std = np.exp(log_std)  # (C,)
            self._log_scale = (log_std + LOG_SQRT_2PI).astype(np.float32)  # (C,)

    def act(
        self,
        obs: Sequence[Observations],
        mask: NDArray[np.bool_] | None,
        deterministic: bool = False,
        memory: NDArray[np.float32] | None = None,
    ) -> Action:
        """Chooses an action for each row; the mean and the likeliest branch if `deterministic`.

        Args:
            obs: one per sensor, each (N, *shape); uint8 stands for value / 255.
            mask: (N, L), True = allowed; None without branches.
            deterministic: choose instead of draw.
            memory: (N, W) what the agents carry, 0 at first; only with memory.
        """
        columns = {f"obs_{i}": as_floats(column) for i, column in enumerate(obs)}
        feed = {name: column for name, column in columns.items() if name in self._inputs}
        if mask is not None:
            feed["action_masks"] = mask.astype(np.float32)
        if memory is not None:
            feed[RECURRENT_IN] = memory[:, None, : self._policy.memory_size]  # (N, 1, M)
        answers: Arrays = self._run(self._outputs, feed)
        carried = None if memory is None else self._carried_on(answers.pop(), columns, memory)
        num_rows = len(obs[0])
        continuous, discrete = np.zeros((num_rows, 0), np.float32), np.zeros((num_rows, 0), int)
        log_probs = []
        if self._policy.continuous_size:
            mean = answers.pop(0)
            std, log_scale = self._std_and_log_scale(answers)
            continuous, chosen = self._draw_continuous(mean, std, log_scale, deterministic)
            log_probs.append(chosen)
        if self._num_branches:
            discrete, chosen = self._draw_discrete(answers, deterministic)
            log_probs.append(chosen)
        joined = log_probs[0] if len(log_probs) == 1 else np.concatenate(log_probs, axis=1)
        return Action(
            torch.from_numpy(continuous),
            torch.from_numpy(discrete),
            torch.from_numpy(joined),
            carried,
        )

    def _carried_on(
        self, of_actor: NDArray[np.float32], columns: Feed, memory: NDArray[np.float32]
    ) -> torch.Tensor:
        """Lets the critic's memory take its step too; (N, 1, M), (N, W) -> (N, W)."""
        parts = [of_actor[:, 0]]
        size = self._policy.memory_size
        if self._policy.memory_width > size:
            feed = {name: columns[name] for name in self._critic_inputs if name != RECURRENT_IN}
            feed[RECURRENT_IN] = memory[:, None, size:]
            parts.append(self._run_critic([RECURRENT_OUT], feed)[0][:, 0])
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def _std_and_log_scale(
        self, answers: Arrays
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Deviation and log(deviation sqrt(2 pi)), both (C,), or (N, C) from the next answer."""
        if self._policy.std_head is None:
            return self._std, self._log_scale
        std: NDArray[np.float32] = answers.pop(0)
        return std, np.log(std) + np.float32(LOG_SQRT_2PI)

    def _draw_continuous(
        self,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        log_scale: NDArray[np.float32],
        deterministic: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean (N, C) and its spread -> actions and their log-probabilities, both (N, C)."""
        if deterministic:
            return mean, np.broadcast_to(-log_scale, mean.shape).copy()
        noise = self._chance.standard_normal(mean.shape, np.float32)
        return mean + noise * std, np.float32(-0.5) * noise * noise - log_scale

    def _draw_discrete(
        self, answers: Arrays, deterministic: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Probabilities, then log-probabilities, of each branch -> both (N, K)."""
        num_rows = len(answers[0])
        rows = np.arange(num_rows)
        discrete = np.empty((num_rows, self._num_branches), np.int64)
        chosen = np.empty((num_rows, self._num_branches), np.float32)
        for k in range(self._num_branches):
            weights, log_probs = answers[k], answers[self._num_branches + k]
            if not deterministic:  # the largest p / Exp(1) is a draw from p, as in distributions.py
                noise = self._chance.standard_exponential(weights.shape, np.float32)
                weights = weights / np.maximum(noise, SMALLEST)
            discrete[:, k] = weights.argmax(axis=1)
            chosen[:, k] = log_probs[rows, discrete[:, k]]
        return discrete, chosen

    def chance_state(self) -> str:
        """Gives the state of the random generator, for a checkpoint."""
        return json.dumps(self._chance.bit_generator.state)

    def load_chance_state(self, state: str) -> None:
        """Goes on drawing where `chance_state` was taken."""
        self._chance.bit_generator.state = json.loads(state)
