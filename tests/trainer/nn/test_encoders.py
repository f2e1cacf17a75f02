from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensor_specs import behavior, image
from torch import Tensor, nn

from trainer.config.behavior_settings import VisualEncoder
from trainer.config.settings import NetworkSettings
from trainer.nn.body import NetworkBody
from trainer.nn.encoders import RECIPES, ImageEncoder
from trainer.nn.sensors import UnsupportedBehaviorError, sensors_of

Array = NDArray[np.float64]

# Parameters before the dense layer, and what the image has become there: worked out by hand for
# images of 3 x 84 x 84 from the kernels, strides and channels of ML-Agents' documentation.
SIZES: dict[VisualEncoder, tuple[int, int]] = {
    # 16*3*64+16, 32*16*16+32; 84 -> 20 -> 9
    "simple": (3088 + 8224, 32 * 9 * 9),
    # 32*3*64+32, 64*32*16+64, 64*64*9+64; 84 -> 20 -> 9 -> 7
    "nature_cnn": (6176 + 32832 + 36928, 64 * 7 * 7),
    # 16*3*9+16 and 4*(16*16*9+16); 32*16*9+32 and 4*(32*32*9+32); 5*(32*32*9+32);
    # 84 -> 41 -> 20 -> 9
    "resnet": (448 + 9280 + 4640 + 36992 + 46240, 32 * 9 * 9),
    # 35*3*9+35, 144*35*9+144; 84 -> 82 -> 80
    "match3": (980 + 45504, 144 * 80 * 80),
    "fully_connected": (0, 3 * 84 * 84),
}


def encoder_of(kind: VisualEncoder, shape: tuple[int, int, int], hidden: int = 8) -> ImageEncoder:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return ImageEncoder(shape, kind, hidden, "kaiming")


def number(parameters: Iterator[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("kind", SIZES)
def test_layers_have_the_sizes_that_kernels_and_strides_give(kind: VisualEncoder) -> None:
    before, flat = SIZES[kind]
    found = encoder_of(kind, (3, 84, 84), hidden=4)
    assert number(found.parameters()) == before + flat * 4 + 4
    assert found(torch.zeros(2, 3, 84, 84)).shape == (2, 4)


@pytest.mark.parametrize(
    ("kind", "smallest"),
    [("simple", 20), ("nature_cnn", 36), ("resnet", 15), ("match3", 5), ("fully_connected", 1)],
)
def test_smallest_images_are_read_and_smaller_ones_refused(
    kind: VisualEncoder, smallest: int
) -> None:
    assert encoder_of(kind, (2, smallest, smallest))(
        torch.zeros(1, 2, smallest, smallest)
    ).shape == (1, 8)
    if smallest == 1:
        return
    settings = NetworkSettings(vis_encode_type=kind)
    for height, width in ((smallest - 1, 100), (100, smallest - 1)):
        sensors = sensors_of(behavior(image(2, height, width, "eye")), "Crab")
        with pytest.raises(UnsupportedBehaviorError) as error:
            NetworkBody(sensors, settings)
        message = str(error.value)
        for words in ("'Crab'", "'eye'", f"{width} x {height}", kind, f"{smallest} x {smallest}"):
            assert words in message
        assert "fully_connected" in message.split("vis_encode_type to ")[1]


def convolved(images: Array, layer: nn.Conv2d, stride: int, padding: int = 0) -> Array:
    """A convolution by hand, one output pixel at a time."""
    assert layer.bias is not None
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    size = weight.shape[2]
    images = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = range(0, images.shape[2] - size + 1, stride)
    columns = range(0, images.shape[3] - size + 1, stride)
    found = np.zeros((len(images), len(weight), len(rows), len(columns)))
    for y, top in enumerate(rows):
        for x, left in enumerate(columns):
            patch = images[:, :, top : top + size, left : left + size]
            found[:, :, y, x] = np.tensordot(patch, weight, ((1, 2, 3), (1, 2, 3))) + bias
    return found


def leaky(values: Array) -> Array:
    return np.where(values > 0, values, 0.01 * values)


def swish(values: Array) -> Array:
    return np.asarray(values / (1 + np.exp(-values)))


def dense_of(encoder: ImageEncoder, values: Array) -> Array:
    (layer,) = (module for module in encoder.modules() if isinstance(module, nn.Linear))
    flat = values.reshape(len(values), -1)
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    return np.asarray(flat @ weight.T + bias)


def convolutions_of(encoder: ImageEncoder) -> list[nn.Conv2d]:
    return [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("kind", "size", "strides"),
    [("simple", 24, (4, 2)), ("nature_cnn", 44, (4, 2, 1)), ("match3", 6, (1, 1))],
)
def test_plain_encoders_agree_with_convolutions_by_hand(
    kind: VisualEncoder, size: int, strides: tuple[int, ...]
) -> None:
    encoder = encoder_of(kind, (2, size, size + 4))
    images = torch.rand(2, 2, size, size + 4)
    values = images.double().numpy()
    for layer, stride in zip(convolutions_of(encoder), strides, strict=True):
        values = leaky(convolved(values, layer, stride))
    expected = leaky(dense_of(encoder, values))
    assert encoder(images).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_resnet_agrees_with_convolutions_by_hand() -> None:
    encoder = encoder_of("resnet", (2, 16, 19))
    images = torch.rand(2, 2, 16, 19)
    values = images.double().numpy()
    layers = iter(convolutions_of(encoder))
    for _ in range(3):
        values = convolved(values, next(layers), 1, padding=1)
        height, width = (values.shape[2] - 3) // 2 + 1, (values.shape[3] - 3) // 2 + 1
        pooled = np.zeros((*values.shape[:2], height, width))
        for y in range(height):
            for x in range(width):
                patch = values[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
                pooled[:, :, y, x] = patch.max(axis=(2, 3))
        values = pooled
        for _ in range(2):
            first, second = next(layers), next(layers)
            changed = convolved(swish(values), first, 1, padding=1)
            values = values + convolved(swish(changed), second, 1, padding=1)
    expected = np.maximum(dense_of(encoder, swish(values)), 0)
    assert encoder(images).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_bytes_stand_for_a_255th_and_floats_for_themselves() -> None:
    encoder = encoder_of("fully_connected", (1, 2, 2))
    as_bytes = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)
    as_floats = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]])
    torch.testing.assert_close(encoder(as_bytes), encoder(as_floats))
    assert encoder.double()(as_bytes).dtype == torch.float64


def test_first_weights_are_those_of_ml_agents() -> None:
    encoder = encoder_of("simple", (3, 84, 84), hidden=256)
    (dense,) = (module for module in encoder.modules() if isinstance(module, nn.Linear))
    assert dense.weight.std().item() == pytest.approx(1.41 / math.sqrt(2592), rel=0.01)
    assert dense.bias.eq(0).all()
    first = convolutions_of(encoder)[0]
    # PyTorch's own: uniform up to 1 / sqrt(inputs of a pixel), 3 * 8 * 8
    assert first.weight.abs().max().item() == pytest.approx(1 / math.sqrt(192), rel=0.01)


def test_orthogonal_first_weights_reach_the_convolutions() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder((3, 20, 20), "simple", 8, "orthogonal")
    for layer in convolutions_of(encoder):
        rows = layer.weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(len(rows)), atol=1e-5, rtol=0)
        assert layer.bias is not None
        assert layer.bias.eq(0).all()


def test_every_word_of_the_setting_has_a_network() -> None:
    assert set(RECIPES) == {"simple", "nature_cnn", "resnet", "match3", "fully_connected"}
