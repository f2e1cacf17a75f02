"""Which sensors the network that the settings describe can read.

Apart from the networks, because `ppo-train check --env` answers without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.config.behavior_settings import NetworkSettings, VisualEncoder
from trainer.config.problems import one_of

SMALLEST_SIDE: Mapping[VisualEncoder, int] = {
    "simple": 20,
    "nature_cnn": 36,
    "resnet": 15,
    "match3": 5,
    "fully_connected": 1,
}
"""Height and width in pixels that each of `vis_encode_type` needs."""


def objection_to_image(sensor: str, shape: Sequence[int], network: NetworkSettings) -> str | None:
    """Says why `vis_encode_type` cannot read images of (C, height, width); None when it can."""
    _, height, width = shape
    side, encoder = min(height, width), network.vis_encode_type
    smallest = SMALLEST_SIDE[encoder]
    if side >= smallest:
        return None
    fitting = one_of(kind for kind, least in SMALLEST_SIDE.items() if least <= side)
    return (
        f"sensor '{sensor}' gives images of {width} x {height} pixels, and vis_encode_type "
        f"{encoder} needs at least {smallest} x {smallest}. Make the image larger, or set "
        f"network_settings.vis_encode_type to {fitting}."
    )


def objection_to_goal(sensor: str, shape: Sequence[int], network: NetworkSettings) -> str | None:
    """Says why a goal signal of variable length cannot be one; None when it is read like others."""
    if network.goal_conditioning_type != "hyper":
        return None
    return (
        f"sensor '{sensor}' is a goal signal of variable length, {tuple(shape)}, which cannot "
        f"steer a network. Expected a vector or an image: observe the goal as one, or set "
        f"network_settings.goal_conditioning_type to none, which reads goals like any other "
        f"observation."
    )
