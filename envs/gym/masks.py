"""Which discrete actions an environment allows, now: `action_masks()`, or `info["action_mask"]`.

The method is that of sb3-contrib's MaskablePPO, the entry of `info` that of Gymnasium's own Taxi
and of PettingZoo's games. Either gives, branch after branch, one truth value per action, true where
it is allowed: (L,) for all branches end to end, or a sequence with one array per branch.

Letters: K environments, L sum of branch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.batch import Bool
from envs.errors import BadDataError
from envs.gym.make import Env

MASK_KEY = "action_mask"
MASK_METHOD = "action_masks"


class ActionMasks:
    """Reads the masks of K environments."""

    def __init__(self, envs: Sequence[Env | None], branches: Sequence[int]) -> None:
        """Looks for the method; `branches` are the sizes of the action's branches.

        Those that are None only have `info`.
        """
        self._asks: list[Callable[[], Any] | None] = [None] * len(envs)
        for index, env in enumerate(envs):
            if env is not None:
                self.replace(index, env)
        self._size = sum(branches)
        self._starts = np.cumsum([0, *branches[:-1]])

    def replace(self, index: int, env: Env) -> None:
        """Asks an environment that was built anew from now on."""
        has_method = env.has_wrapper_attr(MASK_METHOD)
        self._asks[index] = env.get_wrapper_attr(MASK_METHOD) if has_method else None

    def are_given(self, infos: Sequence[Mapping[str, Any]], index: int = 0) -> bool:
        """Tells, from what the first resets have said, whether there are masks.

        `index` is that of any environment among them.
        """
        return self._asks[index] is not None or any(MASK_KEY in info for info in infos)

    def forbidden(self, index: int, info: Mapping[str, Any]) -> Bool:
        """Gives what environment `index` forbids now, (L,).

        Args:
            index: of the environment.
            info: what its reset or step has said.

        Raises:
            BadDataError: no mask, one of another size, or one that leaves a branch nothing to do.
        """
        ask = self._asks[index]
        if ask is None and MASK_KEY not in info:
            raise BadDataError(
                f"Environment {index} gave no info[{MASK_KEY!r}], which it has given before. "
                f"Expected it from every reset and step."
            )
        source = f"{MASK_METHOD}()" if ask is not None else f"info[{MASK_KEY!r}]"
        given = ask() if ask is not None else info[MASK_KEY]
        allowed = _flat(given)
        if allowed.shape != (self._size,):
            raise BadDataError(
                f"{source} of environment {index} has {allowed.size} values, but the actions are "
                f"{self._size} in all. Expected one truth value per action, branch after branch."
            )
        mask = allowed.astype(np.bool_)
        if self._size and not np.logical_or.reduceat(mask, self._starts).all():
            raise BadDataError(
                f"{source} of environment {index} is {allowed.tolist()}, which leaves a branch "
                f"without any action. Expected at least one that is allowed; end the episode "
                f"where nothing can be done."
            )
        return ~mask


def _flat(given: Any) -> np.ndarray[Any, Any]:
    """Puts arrays of branches end to end; one array stays as it is, but flat."""
    if isinstance(given, list | tuple) and any(np.ndim(part) for part in given):
        return np.concatenate([np.ravel(part) for part in given])
    return np.ravel(given)


def require_no_late_mask(info: Mapping[str, Any]) -> None:
    """Raises BadDataError for a mask in `info` when the first resets had none."""
    if MASK_KEY in info:
        raise BadDataError(
            f"info[{MASK_KEY!r}] came with a step, but not with the first reset. Expected it from "
            f"every reset and step of every environment."
        )
