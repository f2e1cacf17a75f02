"""Attention is held against plain numpy, row by row and head by head, and against what it is for:
order and padding do not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer.nn.attention import (
    EMBEDDING_SIZE,
    EntityAttention,
    ResidualSelfAttention,
    attention_layer,
    is_padding,
)

Array = NDArray[np.float64]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention_of(
    *shapes: tuple[int, int], num_encoded: int = 0, std: float | None = None
) -> EntityAttention:
    """With `std`, weights and biases are drawn anew: who looks at whom is to matter."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = EntityAttention(shapes, num_encoded, "swish")
    if std is not None:
        with torch.no_grad():
            for parameter in found.parameters():
                parameter.normal_(std=std)
    return found


def crowd_of(rows: int, places: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn((rows, places, size), generator=seeded(seed))


def test_embeddings_queries_and_the_rest_have_the_sizes_of_ml_agents() -> None:
    def number(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    square = 128 * 128 + 128
    assert number(attention_of((20, 6))) == 6 * 128 + 128 + 4 * square
    # self: 5 -> 128; then (128 + 6) -> 128 and (128 + 3) -> 128
    beside = attention_of((20, 6), (4, 3), num_encoded=5)
    assert number(beside) == 5 * 128 + 128 + 134 * 128 + 131 * 128 + 2 * 128 + 4 * square


def test_places_below_a_hundredth_are_empty() -> None:
    entities = torch.tensor([[[0.0, 0.0], [0.0999, 0.0], [0.0, -0.1001], [0.08, 0.08], [3.0, 4.0]]])
    # squares sum to 0, 0.00998, 0.01002, 0.0128, 25
    assert is_padding(entities).tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0]]


def swish(values: Array) -> Array:
    return np.asarray(values / (1 + np.exp(-values)))


def linear(layer: nn.Linear, values: Array) -> Array:
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    return np.asarray(weight @ values + bias)


def normed(values: Array) -> Array:
    return np.asarray((values - values.mean()) / np.sqrt(values.var() + 1e-5))


def by_hand(attention: EntityAttention, crowds: list[Array], encoded: Array | None) -> Array:
    """One row, entity by entity, without the absent ones: nothing is masked, they are not there."""
    myself = np.zeros(0)
    if encoded is not None:
        assert attention.myself is not None
        myself = swish(linear(attention.myself, encoded))
    entities = []
    for crowd, embed in zip(crowds, attention.embeddings, strict=True):
        for entity in crowd:
            if (entity**2).sum() >= 0.01:
                layer = embed.layer
                assert isinstance(layer, nn.Linear)
                entities.append(normed(swish(linear(layer, np.concatenate([myself, entity])))))
    if not entities:
        return np.zeros(EMBEDDING_SIZE)
    inner = attention.attention
    keys = [linear(inner.key, entity) for entity in entities]
    values = [linear(inner.value, entity) for entity in entities]
    results = []
    for entity in entities:
        query = linear(inner.query, entity)
        seen = np.zeros(EMBEDDING_SIZE)
        for head in range(4):
            part = slice(32 * head, 32 * head + 32)
            scores = np.array([query[part] @ key[part] / math.sqrt(128) for key in keys])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            seen[part] = sum(w * value[part] for w, value in zip(weights, values, strict=True))
        results.append(normed(linear(inner.out, seen) + entity))
    return np.asarray(np.mean(results, axis=0))


@pytest.mark.parametrize("num_encoded", [0, 3])
def test_result_is_that_of_the_entities_that_are_there(num_encoded: int) -> None:
    attention = attention_of((5, 4), (3, 2), num_encoded=num_encoded, std=0.3)
    crowds = [crowd_of(4, 5, 4), crowd_of(4, 3, 2, seed=1)]
    crowds[0][0, 2:] = 0
    crowds[1][0, 0] = 0  # a gap in front
    crowds[0][1], crowds[1][1] = 0, 0  # nobody at all
    crowds[0][2] = 0
    encoded = torch.randn((4, num_encoded), generator=seeded(3)) if num_encoded else None
    found = attention(crowds, encoded).detach().numpy()
    for row in range(4):
        expected = by_hand(
            attention,
            [crowd[row].double().numpy() for crowd in crowds],
            None if encoded is None else encoded[row].double().numpy(),
        )
        # the mean divides by the number of entities + 1e-7
        assert found[row] == pytest.approx(expected, abs=2e-5)


def test_order_of_entities_does_not_matter_but_their_company_does() -> None:
    attention = attention_of((6, 3), num_encoded=2, std=0.3)
    crowd, encoded = crowd_of(10, 6, 3), torch.randn((10, 2), generator=seeded(2))
    found = attention([crowd], encoded)
    turned = attention([crowd[:, torch.tensor([3, 0, 5, 1, 4, 2])]], encoded)
    torch.testing.assert_close(found, turned, atol=1e-5, rtol=0)
    changed = crowd.clone()
    changed[:, 5] += 1
    assert not torch.allclose(found, attention([changed], encoded), atol=1e-2)
    # an entity looks at the others: the mean over two is not that of each alone
    pair, first, second = crowd.clone(), crowd.clone(), crowd.clone()
    pair[:, 2:] = 0
    first[:, 1:] = 0
    second[:, [0, 2, 3, 4, 5]] = 0
    alone = (attention([first], encoded) + attention([second], encoded)) / 2
    assert not torch.allclose(attention([pair], encoded), alone, atol=1e-2)


def test_empty_places_never_matter() -> None:
    attention = attention_of((6, 3), std=0.3)
    few = crowd_of(10, 6, 3)
    few[:, 4:] = 0
    nearly = few.clone()
    nearly[:, 4:] = 0.05  # squares sum to 0.0075
    found = attention([few], None)
    torch.testing.assert_close(found, attention([nearly], None), atol=1e-5, rtol=0)
    larger = attention_of((9, 3), std=0.3)
    padded = functional.pad(few, (0, 0, 0, 3))
    torch.testing.assert_close(found, larger([padded], None), atol=1e-5, rtol=0)


def test_without_any_entity_the_result_is_zero_and_so_is_every_gradient() -> None:
    attention = attention_of((6, 3), num_encoded=2, std=0.3)
    encoded = torch.randn((4, 2), requires_grad=True)
    found = attention([torch.zeros(4, 6, 3)], encoded)
    assert found.eq(0).all()
    found.sum().backward()
    assert encoded.grad is not None
    assert torch.isfinite(encoded.grad).all()
    assert encoded.grad.abs().max() < 1e-6


def test_first_weights_are_as_small_as_ml_agents_make_them() -> None:
    torch.manual_seed(0)
    layer = attention_layer(300, 200)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(0.125 / 128), rel=0.01)
    assert layer.bias.eq(0).all()


def learnt(target: str) -> float:
    """Share of rows in which a small network finds the entity with the largest first number."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    attention = EntityAttention([(5, 3)], 0, "swish")
    head = nn.Linear(EMBEDDING_SIZE, 1)
    optimizer = torch.optim.Adam([*attention.parameters(), *head.parameters()], lr=1e-3)
    generator = seeded(1)

    def batch() -> tuple[Tensor, Tensor]:
        crowd = torch.rand((64, 5, 3), generator=generator) * 0.8 + 0.2
        absent = torch.rand((64, 5, 1), generator=generator) < 0.4
        absent[:, 0] = False
        crowd = crowd.masked_fill(absent, 0.0)
        best = crowd[:, :, 0].amax(dim=1, keepdim=True)
        return crowd, best if target == "largest" else best[torch.randperm(64)]

    for _ in range(400):
        crowd, best = batch()
        loss = functional.mse_loss(head(attention([crowd], None)), best)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
        optimizer.step()
    crowd, best = batch()
    return functional.l1_loss(head(attention([crowd], None)), best).item()


def test_largest_of_some_entities_can_be_learnt() -> None:
    # the largest of 1 to 5 numbers has a deviation of 0.2; answering at random misses by as much
    assert learnt("largest") < 0.06
    assert learnt("shuffled") > 0.1


def test_one_attention_is_that_of_torch() -> None:
    """Torch's own scores, with the scale of the head: queries are made smaller to fit."""
    torch.manual_seed(0)
    ours = ResidualSelfAttention()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.3)
    theirs = nn.MultiheadAttention(EMBEDDING_SIZE, 4, batch_first=True)
    with torch.no_grad():
        scale = math.sqrt(32 / 128)  # theirs divides by sqrt(32), ours by sqrt(128)
        layers = (ours.query, ours.key, ours.value)
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        theirs.in_proj_weight[:128] *= scale
        theirs.in_proj_bias[:128] *= scale
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    entities = torch.randn((3, 5, 128), generator=seeded())
    padding = torch.tensor([[0.0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [1, 1, 1, 1, 0]])
    rows = functional.layer_norm(entities, (128,))
    changed, _ = theirs(rows, rows, rows, key_padding_mask=padding.bool())
    mixed = functional.layer_norm(changed + rows, (128,))
    means = [row[keep.bool()].mean(dim=0) for row, keep in zip(mixed, 1 - padding, strict=True)]
    torch.testing.assert_close(ours(entities, padding), torch.stack(means), atol=1e-5, rtol=0)
