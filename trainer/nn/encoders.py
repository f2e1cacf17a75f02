"""From an image to features: the five networks of `vis_encode_type`.

Layers, sizes and activations are ML-Agents'; `simple` and `nature_cnn` without padding, `resnet`
as in IMPALA. Sources: Mnih et al. (2015), "Human-level control through deep reinforcement
learning" (nature_cnn); Espeholt et al. (2018), "IMPALA", figure 3 (resnet).

Letters: B rows, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config.behavior_settings import Initialization, VisualEncoder
from trainer.nn.mlp import initialize

LEAKY_SLOPE = 0.01
DENSE_GAIN = 1.41  # ML-Agents' number, on top of 1 / sqrt(inputs)
BYTE = 255  # a uint8 image stands for value / 255, as Unity's sensors do


class ResidualBlock(nn.Module):
    """Adds to an image what two convolutions make of it; (B, C, height, width) unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, height, width) -> the same shape."""
        changed: Tensor = self.layers(images)
        return images + changed


def _convolutions(*sizes: tuple[int, int, int]) -> Callable[[int], list[nn.Module]]:
    """Layers of (channels, kernel, stride) each, followed by a leaky ReLU."""

    def build(channels: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for channels_out, kernel, stride in sizes:
            layers.append(nn.Conv2d(channels, channels_out, kernel, stride))
            layers.append(nn.LeakyReLU(LEAKY_SLOPE))
            channels = channels_out
        return layers

    return build


def _residual(channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels_out in (16, 32, 32):
        layers.append(nn.Conv2d(channels, channels_out, kernel_size=3, padding=1))
        layers.append(nn.MaxPool2d(kernel_size=3, stride=2))
        layers += [ResidualBlock(channels_out), ResidualBlock(channels_out)]
        channels = channels_out
    return [*layers, nn.SiLU()]


@dataclass(frozen=True, slots=True)
class _Recipe:
    layers: Callable[[int], list[nn.Module]]  # channels -> what comes before the dense layer
    activation: Callable[[], nn.Module]  # behind the dense layer


def _leaky() -> nn.Module:
    return nn.LeakyReLU(LEAKY_SLOPE)


RECIPES: Mapping[VisualEncoder, _Recipe] = {
    "simple": _Recipe(_convolutions((16, 8, 4), (32, 4, 2)), _leaky),
    "nature_cnn": _Recipe(_convolutions((32, 8, 4), (64, 4, 2), (64, 3, 1)), _leaky),
    "resnet": _Recipe(_residual, nn.ReLU),
    "match3": _Recipe(_convolutions((35, 3, 1), (144, 3, 1)), _leaky),
    "fully_connected": _Recipe(_convolutions(), _leaky),
}


class ImageEncoder(nn.Module):
    """One image per row to `hidden_units` features.

    `floats_per_row` says how much memory a row needs on its way through.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kind: VisualEncoder,
        hidden_units: int,
        initialization: Initialization,
    ) -> None:
        """Builds the layers for images of `shape`, (C, height, width), none too small."""
        super().__init__()
        recipe = RECIPES[kind]
        layers = recipe.layers(shape[0])
        image = torch.zeros((1, *shape))
        self.floats_per_row = image.numel()
        with torch.no_grad():
            for layer in layers:
                image = layer(image)
                self.floats_per_row += image.numel()
        dense = nn.Linear(image.numel(), hidden_units)
        self.layers = nn.Sequential(*layers, nn.Flatten(), dense, recipe.activation())
        # With kaiming, convolutions start as PyTorch draws them, which is what ML-Agents does.
        if initialization == "orthogonal":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.orthogonal_(module.weight, 2**0.5)
                    nn.init.zeros_(module.bias)  # type: ignore[arg-type] # it has one
        initialize(dense, initialization, 2**0.5 if initialization == "orthogonal" else DENSE_GAIN)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, height, width), uint8 of 0..255 or floats as they are meant -> (B, H)."""
        if images.dtype == torch.uint8:
            images = images.to(next(self.parameters()).dtype) / BYTE
        features: Tensor = self.layers(images)
        return features
