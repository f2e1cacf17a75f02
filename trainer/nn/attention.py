"""From a varying number of entities to features: residual self-attention with padding left out.

A variable-length observation has room for a fixed number of entities; unused places hold zeros.
Whoever reads it may not depend on the order of entities, or on how many places are unused.

Source: Baker et al. (2019), "Emergent Tool Use From Multi-Agent Autocurricula", appendix B;
layers, sizes and initialisation are ML-Agents'.

Letters: B rows, E places for entities (of all observations together), Q embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config.behavior_settings import Activation
from trainer.nn.mlp import ACTIVATIONS, layer_norm

EMBEDDING_SIZE = 128
NUM_HEADS = 4
PADDING_BELOW = 0.01  # an entity whose squares sum to less is an unused place
MASKED_SCORE = -1e6  # its weight in the softmax is exactly 0, unless all are masked
NO_ENTITY = 1e-7  # keeps the mean over no entities at 0


def attention_layer(num_inputs: int, num_outputs: int) -> nn.Linear:
    """Gives a dense layer that starts as small as ML-Agents' attention, with a bias of 0."""
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.normal_(layer.weight, std=math.sqrt(0.125 / EMBEDDING_SIZE))
    nn.init.zeros_(layer.bias)
    return layer


def is_padding(entities: Tensor) -> Tensor:
    """Finds unused places; (B, E, size) -> (B, E), 1 where nobody is and 0 elsewhere."""
    return (entities.square().sum(dim=2) < PADDING_BELOW).to(entities.dtype)


class EntityEmbedding(nn.Module):
    """Embeds each entity, beside what the agent knows of itself if it knows anything.

    The weights are those of one layer over (self, entity); self's share is worked out once per row.
    """

    def __init__(self, entity_size: int, self_size: int, activation: Activation) -> None:
        super().__init__()
        self.self_size = self_size
        self.activation: str = activation
        self.layer = attention_layer(self_size + entity_size, EMBEDDING_SIZE)

    def forward(self, entities: Tensor, myself: Tensor | None) -> Tensor:
        """(B, E, entity size), (B, self size) -> (B, E, Q)."""
        weight = self.layer.weight
        embedded = functional.linear(entities, weight[:, self.self_size :], self.layer.bias)
        if myself is not None:
            shared = functional.linear(myself, weight[:, : self.self_size])  # (B, Q)
            embedded = embedded + shared.unsqueeze(1)  # the same for every entity of a row
        return ACTIVATIONS[self.activation](embedded)


class ResidualSelfAttention(nn.Module):
    """Lets entities look at each other, and gives the mean of what they then are."""

    def __init__(self) -> None:
        super().__init__()
        self.query = attention_layer(EMBEDDING_SIZE, EMBEDDING_SIZE)
        self.key = attention_layer(EMBEDDING_SIZE, EMBEDDING_SIZE)
        self.value = attention_layer(EMBEDDING_SIZE, EMBEDDING_SIZE)
        self.out = attention_layer(EMBEDDING_SIZE, EMBEDDING_SIZE)

    def forward(self, entities: Tensor, padding: Tensor) -> Tensor:
        """(B, E, Q), (B, E) with 1 for unused places -> (B, Q)."""
        normed = layer_norm(entities)
        query, key, value = (
            layer(normed).unflatten(2, (NUM_HEADS, -1)).transpose(1, 2)  # (B, heads, E, Q / heads)
            for layer in (self.query, self.key, self.value)
        )
        # by the embedding's size, not the head's, as ML-Agents does
        scores = query @ (key / math.sqrt(EMBEDDING_SIZE)).transpose(2, 3)  # (B, heads, E, E)
        hidden = padding[:, None, None, :]  # as keys, for every head and query
        scores = scores * (1 - hidden) + hidden * MASKED_SCORE
        seen = torch.softmax(scores, dim=3) @ value  # (B, heads, E, Q / heads)
        changed = self.out(seen.transpose(1, 2).flatten(2))  # (B, E, Q)
        mixed = layer_norm(changed + normed)
        present = 1 - padding  # (B, E)
        total = (mixed * present.unsqueeze(2)).sum(dim=1)  # (B, Q)
        return total / (present.sum(dim=1, keepdim=True) + NO_ENTITY)


class EntityAttention(nn.Module):
    """All variable-length observations of an agent to one vector of `EMBEDDING_SIZE`."""

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], num_encoded: int, activation: Activation
    ) -> None:
        """Builds the layers.

        Args:
            shapes: (places, entity size) of each variable-length observation, at least one.
            num_encoded: size of what was made of all other observations; 0 without any.
            activation: behind the embeddings.
        """
        super().__init__()
        self.activation: str = activation
        self_size = EMBEDDING_SIZE if num_encoded else 0
        self.myself = attention_layer(num_encoded, EMBEDDING_SIZE) if num_encoded else None
        self.embeddings = nn.ModuleList(
            EntityEmbedding(entity_size, self_size, activation) for _, entity_size in shapes
        )
        self.attention = ResidualSelfAttention()
        places = sum(places for places, _ in shapes)
        # embeddings, queries and the like; scores before and behind the softmax
        self.floats_per_row = places * 10 * EMBEDDING_SIZE + 3 * NUM_HEADS * places**2

    def forward(self, crowds: Sequence[Tensor], encoded: Tensor | None) -> Tensor:
        """(B, places, entity size)..., (B, num_encoded) or None -> (B, Q)."""
        myself = None
        if self.myself is not None:
            assert encoded is not None, "there are other observations"
            myself = ACTIVATIONS[self.activation](self.myself(encoded))
        embedded = [
            embed(crowd, myself) for embed, crowd in zip(self.embeddings, crowds, strict=True)
        ]
        padding = [is_padding(crowd) for crowd in crowds]
        mixed: Tensor = self.attention(torch.cat(embedded, dim=1), torch.cat(padding, dim=1))
        return mixed
