"""Whether a checkpoint's state fits the behaviour that is to go on from it."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config.errors import UserError
from trainer.saved_policy import learner_of, network_of


class BehaviorMismatchError(UserError):
    """A checkpoint means something else by this behaviour."""


def require_same_behavior(
    name: str, saved: Mapping[str, object], now: Mapping[str, object]
) -> None:
    """Raises BehaviorMismatchError unless weights and optimiser mean the same in both states.

    Args:
        name: of the behaviour.
        saved: of the checkpoint.
        now: of a behaviour as the settings and the simulators ask for it.
    """
    _require_same_learner(name, learner_of(saved), learner_of(now))
    _require_same_network(name, network_of(saved), network_of(now))


def _require_same_learner(
    name: str, found: Mapping[str, object], wanted: Mapping[str, object]
) -> None:
    for key, value in wanted.items():
        if found[key] != value:
            raise BehaviorMismatchError(
                f"Behavior '{name}': the checkpoint was learnt with {key} {found[key]}, and the "
                f"settings say {value}: the optimizer's state means something else there. Go on "
                f"with {key} {found[key]}, or start a new run with another --run-id."
            )


def _require_same_network(
    name: str, found: Mapping[str, object], wanted: Mapping[str, object]
) -> None:
    different = [
        key for key in {**wanted, **found} if key not in wanted or wanted[key] != found.get(key)
    ]
    if not different:
        return
    shown = "; ".join(
        f"{key}: checkpoint {found.get(key, 'none')}, now {wanted.get(key, 'none')}"
        for key in different[:4]
    )
    count = "1 difference" if len(different) == 1 else f"{len(different)} differences"
    raise BehaviorMismatchError(
        f"Behavior '{name}': the checkpoint's network does not fit the one that the settings and "
        f"the simulator ask for ({count}: {shown}). Resume with the network_settings, "
        f"reward_signals, observations and actions that it was trained with, or start a new run "
        f"with another --run-id."
    )
