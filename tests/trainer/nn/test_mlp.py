from __future__ import annotations

import copy
import math

import pytest
import torch
from pytest import approx
from torch import nn

from trainer.config.behavior_settings import Activation
from trainer.nn.mlp import MLP, initialize


@pytest.mark.parametrize(
    ("activation", "module"),
    [("swish", nn.SiLU()), ("tanh", nn.Tanh()), ("relu", nn.ReLU()), ("elu", nn.ELU())],
)
def test_it_computes_what_a_sequential_of_the_same_layers_does(
    activation: Activation, module: nn.Module
) -> None:
    mlp = MLP(3, 8, 2, activation, "kaiming")
    for layer in mlp.layers:
        assert isinstance(layer, nn.Linear)
        nn.init.normal_(layer.bias)
    reference = nn.Sequential(mlp.layers[0], module, mlp.layers[1], module)
    inputs = torch.randn((5, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mlp(inputs), reference(inputs))


def test_kaiming_starts_with_unit_variance_over_inputs_and_no_bias() -> None:
    torch.manual_seed(0)
    layer = initialize(nn.Linear(400, 500), "kaiming", 0.2)
    # 200,000 draws: the relative error of a deviation is about 1 / sqrt(2 * 200,000) = 0.0016
    assert layer.weight.std().item() == approx(0.2 / math.sqrt(400), rel=0.01)
    assert layer.weight.mean().item() == approx(0.0, abs=1e-4)
    assert layer.bias.eq(0.0).all()


def test_orthogonal_rows_are_orthogonal_and_as_long_as_the_gain() -> None:
    torch.manual_seed(0)
    weight = initialize(nn.Linear(64, 32), "orthogonal", 3.0).weight.detach()
    torch.testing.assert_close(weight @ weight.T, 9.0 * torch.eye(32), atol=1e-4, rtol=0)


def test_a_copy_has_weights_of_its_own() -> None:
    mlp = MLP(2, 4, 1, "tanh", "kaiming")
    twin = copy.deepcopy(mlp)
    inputs = torch.ones(1, 2)
    before = mlp(inputs)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(mlp(inputs), before)
    assert not torch.equal(twin(inputs), before)
