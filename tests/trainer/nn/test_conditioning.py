from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer.nn.conditioning import ConditionedMLP, HyperLayer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_number_of_parameters_is_that_of_a_network_that_makes_weights() -> None:
    found = ConditionedMLP(7, 3, 16, 2, "swish", "kaiming")
    goal_layers = 3 * 16 + 16 + 16 * 16 + 16
    made = 16 * (16 * 16) + 16 * 16
    expected = (7 * 16 + 16) + goal_layers + made + 16
    assert sum(parameter.numel() for parameter in found.parameters()) == expected
    alone = ConditionedMLP(7, 3, 16, 1, "swish", "kaiming")
    made = 16 * (7 * 16) + 7 * 16
    assert sum(p.numel() for p in alone.parameters()) == goal_layers + made + 16


def test_each_row_goes_through_a_matrix_of_its_own() -> None:
    torch.manual_seed(0)
    layer = HyperLayer(5, 2, 4, "swish", "kaiming")
    with torch.no_grad():
        layer.bias.normal_()
    inputs = torch.randn((6, 5), generator=seeded())
    goals = torch.randn((6, 2), generator=seeded(1))
    found = layer(inputs, goals).detach().numpy()
    for row in range(6):
        values = goals[row].double().numpy()
        for dense in layer.goal_layers.layers:
            weight, bias = (p.detach().double().numpy() for p in dense.parameters())
            values = weight @ values + bias
            values = values / (1 + np.exp(-values))
        values = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        weight, bias = (p.detach().double().numpy() for p in layer.weights.parameters())
        matrix = (weight @ values + bias).reshape(5, 4)
        expected = inputs[row].double().numpy() @ matrix + layer.bias.detach().double().numpy()
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_made_weights_start_as_large_as_ordinary_ones() -> None:
    torch.manual_seed(0)
    layer = HyperLayer(100, 3, 64, "swish", "kaiming")
    outputs = layer(torch.randn(500, 100), torch.randn(500, 3))
    # uniform in +-1/sqrt(inputs): a third of the variance of weights of size 1/sqrt(inputs)
    assert outputs.std().item() == pytest.approx(math.sqrt(1 / 3), rel=0.1)
    assert layer.weights.weight.abs().max().item() == pytest.approx(1 / 80, rel=0.01)
    assert layer.bias.eq(0).all()
    assert layer.weights.bias.eq(0).all()


def error_after_learning(knows_goal: bool) -> float:
    """The goal says which of two numbers is to be given."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ConditionedMLP(2, 2, 16, 1, "swish", "kaiming")
    head = torch.nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=5e-3)
    generator = seeded(1)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        inputs = torch.rand((128, 2), generator=generator) * 2 - 1
        which = torch.randint(0, 2, (128, 1), generator=generator)
        goals = torch.cat([which, 1 - which], dim=1).float()
        return inputs, goals if knows_goal else torch.ones_like(goals), inputs.gather(1, which)

    def error() -> Tensor:
        inputs, goals, wanted = batch()
        return functional.mse_loss(head(network(inputs, goals)), wanted)

    for _ in range(300):
        optimizer.zero_grad()
        error().backward()  # type: ignore[no-untyped-call] # torch has no types for it
        optimizer.step()
    return error().item()


def test_function_that_a_goal_chooses_can_be_learnt() -> None:
    # inputs are uniform in -1..1, variance 1/3; without the goal half of it stays, 1/6
    assert error_after_learning(knows_goal=True) < 0.01
    assert error_after_learning(knows_goal=False) > 0.1
