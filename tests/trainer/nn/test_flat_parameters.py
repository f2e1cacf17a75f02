from __future__ import annotations

import copy

import pytest
import torch
from pytest import approx
from torch import Tensor, nn

from trainer.nn.flat_parameters import FlatParameters


class TwoHeads(nn.Module):
    """Layers of several shapes, a scalar, and a body that is registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 5)
        self.same_body = self.body
        self.head = nn.Linear(5, 2)
        self.log_std = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.body(inputs)) + self.same_body(inputs))
        return out * self.log_std.exp()


def twins() -> tuple[TwoHeads, TwoHeads]:
    torch.set_num_threads(1)  # as a run does for small networks
    torch.manual_seed(0)
    module = TwoHeads()
    return module, copy.deepcopy(module)


def loss_of(module: nn.Module, seed: int) -> Tensor:
    inputs = torch.randn((16, 3), generator=torch.Generator().manual_seed(seed))
    loss: Tensor = ((module(inputs) - inputs[:, :2]) ** 2).mean()
    return loss


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it


def test_vector_holds_every_parameter_once_in_order() -> None:
    module, ordinary = twins()
    flat = FlatParameters(module)
    # 3 * 5 + 5 of the shared body once, 5 * 2 + 2 of the head, 1
    assert flat.vector.shape == (33,)
    expected = nn.utils.parameters_to_vector(ordinary.parameters())
    assert torch.equal(flat.vector.detach(), expected.detach())


def test_module_computes_and_differentiates_as_before() -> None:
    module, ordinary = twins()
    flat = FlatParameters(module)
    assert torch.equal(loss_of(module, 0), loss_of(ordinary, 0))
    backward(loss_of(module, 0))
    backward(loss_of(ordinary, 0))
    gradients = [p.grad for p in ordinary.parameters() if p.grad is not None]
    assert torch.equal(flat.gradient, torch.cat([grad.flatten() for grad in gradients]))
    backward(loss_of(module, 1))  # gradients add up until they are zeroed
    assert not torch.equal(flat.gradient, torch.cat([grad.flatten() for grad in gradients]))
    flat.zero_gradient()
    assert all(p.grad is not None and p.grad.eq(0.0).all() for p in module.parameters())


@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_adam_on_the_vector_walks_the_same_path_as_adam_on_the_parameters(
    max_norm: float | None,
) -> None:
    module, ordinary = twins()
    flat = FlatParameters(module)
    one = torch.optim.Adam([flat.vector], lr=0.01, fused=True)
    many = torch.optim.Adam(ordinary.parameters(), lr=0.01, foreach=False)
    for step in range(30):
        flat.zero_gradient()
        backward(loss_of(module, step))
        many.zero_grad()
        backward(loss_of(ordinary, step))
        if max_norm is not None:
            flat.clip_gradient(max_norm)
            nn.utils.clip_grad_norm_(ordinary.parameters(), max_norm)
        one.step()
        many.step()
    expected = nn.utils.parameters_to_vector(ordinary.parameters()).detach()
    # fused and plain Adam round differently; thirty steps of 0.01 moved weights by up to 0.3
    torch.testing.assert_close(flat.vector.detach(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(loss_of(module, 99), loss_of(ordinary, 99))


@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_clip_is_that_of_torch_and_gives_the_old_length(max_norm: float) -> None:
    module, ordinary = twins()
    flat = FlatParameters(module)
    backward(loss_of(module, 0))
    backward(loss_of(ordinary, 0))
    length = flat.clip_gradient(max_norm)
    expected = nn.utils.clip_grad_norm_(ordinary.parameters(), max_norm)
    assert length.item() == approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(module.parameters(), ordinary.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert flat.gradient.norm().item() == approx(min(max_norm, length.item()), rel=1e-3)


def test_loading_a_state_dict_reaches_the_vector_and_keeps_it_learning() -> None:
    module, other = twins()
    with torch.no_grad():
        for i, parameter in enumerate(other.parameters()):
            parameter.fill_(float(i))
    flat = FlatParameters(module)
    module.load_state_dict(other.state_dict())
    assert torch.equal(
        flat.vector.detach(), nn.utils.parameters_to_vector(other.parameters()).detach()
    )
    backward(loss_of(module, 0))
    torch.optim.SGD([flat.vector], lr=0.1).step()
    assert torch.equal(
        flat.vector.detach(), nn.utils.parameters_to_vector(module.parameters()).detach()
    )
    assert not torch.equal(module.head.weight, other.head.weight)


def test_state_dict_of_the_module_keeps_its_names_and_shapes() -> None:
    module, ordinary = twins()
    FlatParameters(module)
    for name, value in ordinary.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    assert module.state_dict().keys() == ordinary.state_dict().keys()
