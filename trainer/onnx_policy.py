"""A policy read back from its ONNX file, as Unity would run it.

Letters: N rows, C continuous action size, K discrete branches, L sum of branch sizes, M memory
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from envs.batch import Actions, Observations
from envs.graph_policy import RECURRENT_IN, RECURRENT_OUT, as_floats, open_session
from trainer.config.errors import UserError

UNITY_FORMAT = 3.0  # version_number of every model since ML-Agents' package 2.0


class OnnxError(UserError):
    """An ONNX file that cannot be run as a policy."""


class OnnxPolicy:
    """Acts as `<Behaviour>.onnx` says; reads files of ppo-train and of ML-Agents."""

    def __init__(self, path: Path, seed: int | None = None) -> None:
        """Loads the file.

        Args:
            path: a model in Unity's format, version 3.
            seed: of drawn actions, from here on and for the whole process; None leaves it open.

        Raises:
            OnnxError: the file is missing, damaged, or another kind of model.
        """
        self.path = path
        if seed is not None:
            onnxruntime.set_seed(seed)
        try:
            self._session = open_session(path)
        except Exception as error:  # onnxruntime's own classes are not public
            first = str(error).splitlines()[0][:200]
            raise OnnxError(
                f"{path} cannot be loaded ({first}). Expected an ONNX file such as ppo-train "
                f"exports: choose another one, or export it again with ppo-train export."
            ) from error
        self._inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        self._outputs = {entry.name for entry in self._session.get_outputs()}
        self._require_policy()
        num_others = len({"action_masks", RECURRENT_IN} & self._inputs.keys())
        self._observations = [f"obs_{i}" for i in range(len(self._inputs) - num_others)]
        # M; 0 without memory
        self.memory_size = int(self._inputs[RECURRENT_IN][2]) if RECURRENT_IN in self._inputs else 0

    def _require_policy(self) -> None:
        kinds = {"continuous_actions", "discrete_actions"}
        if "version_number" not in self._outputs or not kinds & self._outputs:
            raise OnnxError(
                f"{self.path} has the outputs {', '.join(sorted(self._outputs))}. Expected a "
                f"policy with version_number and continuous_actions or discrete_actions, such as "
                f"ppo-train export writes."
            )
        if (RECURRENT_IN in self._inputs) != (RECURRENT_OUT in self._outputs):
            raise OnnxError(
                f"{self.path} has only one of {RECURRENT_IN} and {RECURRENT_OUT}. Expected both or "
                f"neither: what a policy remembers goes in and comes out. Export it again."
            )
        zeros = {
            name: np.zeros([size if isinstance(size, int) else 1 for size in shape], np.float32)
            for name, shape in self._inputs.items()
        }
        (version,) = self._session.run(["version_number"], zeros)
        if float(version[0]) != UNITY_FORMAT:
            raise OnnxError(
                f"{self.path} has version_number {float(version[0]):g}; expected {UNITY_FORMAT:g}, "
                f"the format since ML-Agents' package 2.0. Export it again with a current trainer."
            )

    def act(
        self,
        obs: Sequence[Observations],
        mask: NDArray[np.bool_] | None,
        deterministic: bool,
    ) -> Actions:
        """Chooses an action for each of N rows.

        Args:
            obs: one per sensor, each (N, *shape); uint8 stands for value / 255.
            mask: (N, L), True = allowed, or None for everything; only with discrete actions.
            deterministic: choose the likeliest instead of drawing.

        Returns:
            Continuous (N, C) in -1..1 and discrete (N, K), as the simulator is to receive them;
            of a policy with memory those of an agent's first decision.
        """
        actions, _ = self.remember(obs, mask, deterministic, self.no_memory(len(obs[0])))
        return actions

    def no_memory(self, num_rows: int) -> NDArray[np.float32]:
        """Gives what agents carry into their first decision; (N, M)."""
        return np.zeros((num_rows, self.memory_size), dtype=np.float32)

    def remember(
        self,
        obs: Sequence[Observations],
        mask: NDArray[np.bool_] | None,
        deterministic: bool,
        memory: NDArray[np.float32],
    ) -> tuple[Actions, NDArray[np.float32]]:
        """Chooses as `act` does, for agents that carry `memory`; gives also what they carry on.

        Both are (N, M), and M is 0 for a policy without memory.
        """
        num_rows = len(obs[0])
        prefix = "deterministic_" if deterministic else ""
        names = [f"{prefix}{kind}_actions" for kind in ("continuous", "discrete")]
        asked = [name for name in (*names, RECURRENT_OUT) if name in self._outputs]
        found = self._session.run(asked, self.feed(obs, mask, memory))
        answers = dict(zip(asked, found, strict=True))
        continuous, discrete = (
            answers.get(name, np.zeros((num_rows, 0), np.float32)) for name in names
        )
        actions = Actions(
            np.asarray(continuous, dtype=np.float32), np.asarray(discrete, dtype=np.int32)
        )
        return actions, answers.get(RECURRENT_OUT, memory).reshape(num_rows, self.memory_size)

    def feed(
        self,
        obs: Sequence[Observations],
        mask: NDArray[np.bool_] | None,
        memory: NDArray[np.float32],
    ) -> dict[str, NDArray[np.float32]]:
        """Names the inputs; checks what a user can get wrong: another environment's sensors."""
        found = [column.shape[1:] for column in obs]
        wanted = [tuple(self._inputs[name][1:]) for name in self._observations]
        if found != wanted:
            raise OnnxError(
                f"{self.path} expects observations of the shapes {wanted}, the environment has "
                f"{found}. Run it on the environment that it was trained on."
            )
        feed = {
            name: as_floats(column) for name, column in zip(self._observations, obs, strict=True)
        }
        if "action_masks" in self._inputs:
            size = int(self._inputs["action_masks"][1])
            if mask is None:
                feed["action_masks"] = np.ones((len(obs[0]), size), dtype=np.float32)
            else:
                feed["action_masks"] = mask.astype(np.float32)
        if self.memory_size:
            feed[RECURRENT_IN] = memory[:, None, :]  # (N, M) -> (N, 1, M)
        return feed
