from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytest import approx
from torch import Tensor, nn

from trainer.nn.flat_parameters import FlatParameters
from trainer.nn.memory import Memory, Sequences

FEATURES, MEMORY = 3, 8
LENGTHS = [3, 1, 5, 2]  # of the sequences below


def new_memory(initialization: str = "kaiming", num_inputs: int = FEATURES) -> Memory:
    torch.set_num_threads(1)  # as a run does for small networks
    torch.manual_seed(0)
    assert initialization in ("kaiming", "orthogonal")
    memory = Memory(num_inputs, MEMORY, initialization)  # type: ignore[arg-type] # as asserted
    with torch.no_grad():  # biases of 0 would hide that one is missing
        for name, parameter in memory.named_parameters():
            if "bias" in name:
                parameter.add_(torch.randn(parameter.shape))
    return memory


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(rows: int, columns: int, seed: int = 1) -> Tensor:
    return torch.randn((rows, columns), generator=seeded(seed))


def sequences_of(lengths: list[int], memory: Tensor) -> Sequences:
    return Sequences(torch.tensor([0, *np.cumsum(lengths)]), memory, max(lengths))


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def test_step_is_the_lstm_of_the_paper_by_hand() -> None:
    """Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000)."""
    memory = new_memory()
    features, carried = some(2, FEATURES), some(2, MEMORY, seed=2)
    read, after = memory.step(features, carried)
    lstm = memory.lstm
    for row in range(2):
        x = features[row].double().numpy()
        h, c = (part.double().numpy() for part in torch.split(carried[row], MEMORY // 2))
        gates = {}
        for i, gate in enumerate(("input", "forget", "cell", "output")):
            part = slice(i * MEMORY // 2, (i + 1) * MEMORY // 2)
            weights = [tensor.detach().double().numpy()[part] for tensor in lstm.parameters()]
            gates[gate] = weights[0] @ x + weights[1] @ h + weights[2] + weights[3]
        cell = sigmoid(gates["forget"]) * c + sigmoid(gates["input"]) * np.tanh(gates["cell"])
        hidden = sigmoid(gates["output"]) * np.tanh(cell)
        assert read[row].tolist() == approx(hidden, abs=1e-6)
        assert after[row].tolist() == approx(np.concatenate([hidden, cell]), abs=1e-6)


def test_steps_one_by_one_equal_torchs_lstm_over_the_sequence() -> None:
    memory = new_memory()
    features, carried = some(6, FEATURES), some(1, MEMORY, seed=2)
    reference = nn.LSTM(FEATURES, MEMORY // 2)
    reference.load_state_dict(memory.lstm.state_dict())
    hidden, cell = (part.unsqueeze(0) for part in torch.split(carried, MEMORY // 2, dim=1))
    expected, (last_hidden, last_cell) = reference(features.unsqueeze(1), (hidden, cell))
    for step in range(6):
        read, carried = memory.step(features[step : step + 1], carried)
        torch.testing.assert_close(read, expected[step], rtol=0, atol=1e-6)
    last = torch.cat([last_hidden[0], last_cell[0]], dim=1)
    torch.testing.assert_close(carried, last, rtol=0, atol=1e-6)


def test_sequences_of_any_length_read_what_they_would_alone_step_by_step() -> None:
    memory = new_memory()
    features, carried = some(sum(LENGTHS), FEATURES), some(len(LENGTHS), MEMORY, seed=2)
    found = memory.unroll(features, sequences_of(LENGTHS, carried), carried)
    for i, (start, stop) in enumerate(pairwise([0, *np.cumsum(LENGTHS)])):
        state = carried[i : i + 1]
        for row in range(start, stop):
            read, state = memory.step(features[row : row + 1], state)
            torch.testing.assert_close(found[row : row + 1], read, rtol=0, atol=1e-6)


def test_padding_changes_no_gradient() -> None:
    """The sequences together, padded, against each alone without any padding, in float64."""
    memory = new_memory().double()
    features = some(sum(LENGTHS), FEATURES).double().requires_grad_()
    carried = some(len(LENGTHS), MEMORY, seed=2).double()
    aim = some(sum(LENGTHS), MEMORY // 2, seed=3).double()

    def gradients(loss: Tensor) -> list[Tensor]:
        asked = [features, *memory.parameters()]
        return list(torch.autograd.grad(loss, asked))

    together = memory.unroll(features, sequences_of(LENGTHS, carried), carried)
    found = gradients(((together - aim) ** 2).sum())
    reference = nn.LSTM(FEATURES, MEMORY // 2).double()
    reference.load_state_dict(memory.lstm.state_dict())
    losses = []
    for i, (start, stop) in enumerate(pairwise([0, *np.cumsum(LENGTHS)])):
        hidden, cell = carried[i].reshape(2, 1, 1, -1)
        read, _ = reference(features[start:stop].unsqueeze(1), (hidden, cell))
        losses.append(((read[:, 0] - aim[start:stop]) ** 2).sum())
    loss = torch.stack(losses).sum()
    expected = torch.autograd.grad(loss, [features, *reference.parameters()])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_gradient_goes_back_to_the_first_row_but_not_into_another_sequence() -> None:
    memory = new_memory()
    features, carried = some(sum(LENGTHS), FEATURES).requires_grad_(), some(4, MEMORY, seed=2)
    read = memory.unroll(features, sequences_of(LENGTHS, carried), carried)
    read[8].sum().backward()  # type: ignore[no-untyped-call] # torch has no types for it
    assert features.grad is not None
    touched = (features.grad != 0).any(dim=1)
    assert touched.tolist() == [row in range(4, 9) for row in range(sum(LENGTHS))]


@pytest.mark.parametrize("num_inputs", [5, 40])
def test_first_weights_are_those_of_ml_agents(num_inputs: int) -> None:
    """Xavier-uniform per gate, biases 0, forget biases 1 each, 2 together."""
    torch.manual_seed(0)
    memory = Memory(num_inputs, 64, "kaiming")
    size = 32
    for name, inputs in (("weight_ih_l0", num_inputs), ("weight_hh_l0", size)):
        weights = memory.lstm.get_parameter(name)
        assert weights.shape == (4 * size, inputs)
        bound = math.sqrt(6 / (inputs + size))
        for gate in torch.split(weights.detach(), size):
            assert gate.abs().max() <= bound
            assert gate.abs().max() > 0.95 * bound  # of all four gates at once it would be 0.8
            assert gate.std().item() == approx(bound / math.sqrt(3), rel=0.15)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        bias = memory.lstm.get_parameter(name)
        assert bias.tolist() == [0.0] * size + [1.0] * size + [0.0] * 2 * size


def test_orthogonal_weights_have_no_bias() -> None:
    torch.manual_seed(0)
    lstm = Memory(6, 64, "orthogonal").lstm
    weights = lstm.get_parameter("weight_ih_l0")
    torch.testing.assert_close(weights.T @ weights, torch.eye(6), rtol=0, atol=1e-5)
    assert not lstm.get_parameter("bias_ih_l0").any()
    assert not lstm.get_parameter("bias_hh_l0").any()


def test_memory_still_learns_and_copies_once_its_weights_lie_in_one_vector() -> None:
    memory = new_memory()
    flat = FlatParameters(memory)
    features, carried = some(sum(LENGTHS), FEATURES), some(4, MEMORY, seed=2)
    sequences = sequences_of(LENGTHS, carried)
    before = memory.unroll(features, sequences, carried)
    before.sum().backward()  # type: ignore[no-untyped-call] # torch has no types for it
    assert flat.gradient.count_nonzero() > 0.9 * len(flat.gradient)
    copied = copy.deepcopy(memory).double()
    with torch.no_grad():
        flat.vector.add_(0.1)
    after = memory.unroll(features, sequences, carried)
    read, _ = memory.step(features[:1], carried[:1])
    torch.testing.assert_close(read, after[:1], rtol=0, atol=1e-6)
    assert not torch.allclose(before, after)
    old, _ = copied.step(features[:1].double(), carried[:1].double())
    torch.testing.assert_close(old.float(), before[:1].detach(), rtol=0, atol=1e-6)
