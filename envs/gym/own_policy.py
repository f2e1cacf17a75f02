"""The policy of a simulator that acts for itself.

Letters: K environments and agents, L sum of branch sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.batch import Choices, Observations
from envs.bridge.assignments import Assignment
from envs.errors import BadDataError
from envs.graph_policy import GraphPolicy
from envs.spec import ObservationSpec

ACTING = 1  # keeps the seed of actions apart from those of environments


class OwnPolicy:
    """Acts with what the trainer has sent last."""

    def __init__(
        self, behavior_id: str, sensors: Sequence[ObservationSpec], simulator_seed: int
    ) -> None:
        self._behavior_id = behavior_id
        self._is_image = [len(sensor.shape) == 3 for sensor in sensors]
        self._seed = (simulator_seed, ACTING)
        self._policy: GraphPolicy | None = None

    def take(self, assignment: Assignment) -> None:
        """Acts with the assignment's policy from now on, if it brings one.

        Raises:
            BadDataError: there has never been one.
        """
        graph = assignment.policies.get(self._behavior_id)
        if graph is None:
            if self._policy is None:
                raise BadDataError(
                    f"The trainer assigned {assignment.num_steps} steps of {self._behavior_id} and "
                    f"no policy to act with. Trainer and simulator are of different versions."
                )
        elif self._policy is None:
            self._policy = GraphPolicy(graph, self._seed)
        else:
            self._policy.load(graph)

    def act(
        self,
        obs: Sequence[Observations],
        forbidden: NDArray[np.uint8] | None,
        deterministic: bool,
    ) -> Choices:
        """Chooses for K agents.

        Args:
            obs: (K, size)... as agents see them, images (K, H, W, C).
            forbidden: (K, L), 1 where an action is not allowed; None without branches.
            deterministic: choose instead of draw.
        """
        assert self._policy is not None, "`take` comes first"
        columns = [
            column.transpose(0, 3, 1, 2) if is_image else _finite(column)
            for column, is_image in zip(obs, self._is_image, strict=True)
        ]
        mask = None if forbidden is None else forbidden == 0
        choices, _ = self._policy.act(columns, mask, deterministic)
        return choices


def _finite(column: Observations) -> Observations:
    """Gives 0 for NaN and infinity: whom the trainer does not hear any more still acts somehow."""
    if np.isfinite(column).all():
        return column
    return np.where(np.isfinite(column), column, np.float32(0))
