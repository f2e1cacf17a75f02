"""A policy as a graph that onnxruntime runs: draws actions without torch, in little time.

Over the few rows of a message, an eager forward pass packs the weights anew for every product and
spends more on calling than on computing; onnxruntime packs once. The trainer acts with it on a CPU
(`trainer/compiled_policy.py`), and a simulator that acts for itself does so with the same bytes.

Letters: N rows, C continuous action size, K discrete branches, L sum of branch sizes, W what a
policy with memory carries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.batch import Choices, Observations

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
SMALLEST = np.finfo(np.float32).tiny  # 0 / 0 would win against every probability
RECURRENT_IN, RECURRENT_OUT = "recurrent_in", "recurrent_out"
Arrays = list[NDArray[Any]]
Float32 = NDArray[np.float32]


def open_session(model: Path | bytes) -> Any:
    """Loads a model into onnxruntime, on one thread: batches are small, cores are shared."""
    import onnxruntime  # here, because most simulators never act

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def as_floats(obs: Observations) -> Float32:
    """Gives observations as Unity feeds them: bytes become 0 to 1."""
    if obs.dtype == np.uint8:
        return obs.astype(np.float32) / np.float32(255)
    return np.asarray(obs, np.float32)


@dataclass(frozen=True, slots=True)
class PolicyGraph:
    """The part of an exported policy that lies before chance.

    Inputs are `obs_<i>` of the sensors that it reads and, with branches, `action_masks`; outputs
    are `mean` (N, C), `deviation` (N, C) if that depends on the observation, and, for branch k,
    `branch_<k>.probabilities` and `branch_<k>.log_probs`. With memory there are `recurrent_in` and,
    last, `recurrent_out`.
    """

    model: bytes  # ONNX
    log_std: Float32  # (C,); (0,) where the graph has `deviation`, or there are no such actions


class GraphPolicy:
    """Draws actions from a graph that may be replaced; its chance goes on."""

    def __init__(self, graph: PolicyGraph, seed: int | Sequence[int]) -> None:
        self._chance = np.random.Generator(np.random.PCG64(seed))
        self.load(graph)

    def load(self, graph: PolicyGraph) -> None:
        """Acts with these weights from now on."""
        session = open_session(graph.model)
        self._run = session.run
        self._inputs = {value.name for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]
        self._num_branches = sum(name.endswith(".log_probs") for name in self._outputs)
        self._std = np.exp(graph.log_std)  # (C,)
        self._log_scale = (graph.log_std + LOG_SQRT_2PI).astype(np.float32)  # (C,)

    def act(
        self,
        obs: Sequence[Observations],
        mask: NDArray[np.bool_] | None,
        deterministic: bool = False,
        memory: Float32 | None = None,
    ) -> tuple[Choices, Float32 | None]:
        """Chooses an action for each row; the mean and the likeliest branch if `deterministic`.

        Args:
            obs: one per sensor, each (N, *shape); uint8 stands for value / 255.
            mask: (N, L), True = allowed; None without branches.
            deterministic: choose instead of draw.
            memory: (N, 1, M) what the actor carries, 0 at first; only with memory.

        Returns:
            What was chosen, and, with memory, what the actor carries on, (N, 1, M).
        """
        feed = {
            name: as_floats(column)
            for i, column in enumerate(obs)
            if (name := f"obs_{i}") in self._inputs
        }
        if mask is not None:
            feed["action_masks"] = mask.astype(np.float32)
        if memory is not None:
            feed[RECURRENT_IN] = memory
        answers: Arrays = self._run(self._outputs, feed)
        carried = None if memory is None else answers.pop()
        num_rows = len(obs[0])
        continuous, discrete = np.zeros((num_rows, 0), np.float32), np.zeros((num_rows, 0), int)
        log_probs = []
        if "mean" in self._outputs:
            mean = answers.pop(0)
            std, log_scale = self._spread(answers)
            continuous, chosen = self._draw_continuous(mean, std, log_scale, deterministic)
            log_probs.append(chosen)
        if self._num_branches:
            discrete, chosen = self._draw_discrete(answers, deterministic)
            log_probs.append(chosen)
        joined = log_probs[0] if len(log_probs) == 1 else np.concatenate(log_probs, axis=1)
        return Choices(continuous, discrete, joined), carried

    def _spread(self, answers: Arrays) -> tuple[Float32, Float32]:
        """Deviation and log(deviation sqrt(2 pi)), both (C,), or (N, C) from the next answer."""
        if "deviation" not in self._outputs:
            return self._std, self._log_scale
        std: Float32 = answers.pop(0)
        return std, np.log(std) + np.float32(LOG_SQRT_2PI)

    def _draw_continuous(
        self, mean: Float32, std: Float32, log_scale: Float32, deterministic: bool
    ) -> tuple[Float32, Float32]:
        """Mean (N, C) and its spread -> actions and their log-probabilities, both (N, C)."""
        if deterministic:
            return mean, np.broadcast_to(-log_scale, mean.shape).copy()
        noise = self._chance.standard_normal(mean.shape, np.float32)
        return mean + noise * std, np.float32(-0.5) * noise * noise - log_scale

    def _draw_discrete(
        self, answers: Arrays, deterministic: bool
    ) -> tuple[NDArray[np.int64], Float32]:
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
