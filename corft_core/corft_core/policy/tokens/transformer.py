"""A small causal transformer over action tokens, with a key-value cache that can be rewritten anywhere.

Position p sees the observation and the tokens before p, and says what token p is: input 0 is the observation, input
p > 0 is token p − 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


@dataclass
class Cache:
    """Keys and values of every layer, each (B, length, heads, D). Only what a mask lets through is ever read."""

    keys: list[Tensor]
    values: list[Tensor]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values (B, heads, n, D) of inputs (B, n, W)."""
        return tuple(part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                     for part in self.project(self.before(x)).chunk(3, -1))  # type: ignore[return-value]

    def join(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.feed(self.after(x))


class TokenTransformer(nn.Module):
    """(observation embedding, tokens) → logits of every token."""

    def __init__(self, embedding: int, length: int, vocabulary: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.length, self.heads, self.width = length, heads, width
        self.observe = nn.Linear(embedding, width)
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, observation: Tensor, tokens: Tensor, causal: bool = True) -> Tensor:
        """Logits (B, L, V) of the first L tokens at once; token p reads tokens (B, L) before p only.

        ``causal=False``: every position reads all other positions' inputs, as in PD-VLA's bidirectional mode.
        """
        inputs = torch.cat([self.observe(observation)[:, None], self.embed(tokens[:, :-1])], 1)
        x = inputs + self.place[: inputs.shape[1]]
        for block in self.blocks:
            queries, keys, values = block.parts(x)  # type: ignore[operator]
            x = block.join(x, scaled_dot_product_attention(queries, keys, values, is_causal=causal))  # type: ignore[operator]
        return self.last(x)

    def new_cache(self, observation: Tensor) -> Cache:
        """An empty cache for observations (B, E)."""
        shape = (len(observation), self.length, self.heads, self.width // self.heads)
        return Cache(*([observation.new_zeros(shape) for _ in self.blocks] for _ in range(2)))

    def extend(self, cache: Cache, observation: Tensor, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """Logits (B, n, V) at `positions` (B, n), whose keys and values are written into the cache.

        tokens (B, length): the present ones; position p reads token p − 1 and, through the cache, what lies before.
        seen (B, n): each position attends to positions < seen; p + 1 is causal. Entries behind that are never read:
        rewriting a position is all that cropping the cache takes.
        """
        previous = self.embed(tokens.gather(1, (positions - 1).clamp_min(0)))
        inputs = torch.where((positions == 0)[..., None], self.observe(observation)[:, None], previous)
        x = inputs + self.place[positions]
        mask = (torch.arange(self.length, device=x.device) < seen[..., None])[:, None]
        where = (torch.arange(len(positions), device=x.device)[:, None], positions)
        for block, known_keys, known_values in zip(self.blocks, cache.keys, cache.values, strict=True):
            queries, keys, values = block.parts(x)  # type: ignore[operator]
            known_keys[where], known_values[where] = keys.transpose(1, 2), values.transpose(1, 2)
            x = block.join(x, scaled_dot_product_attention(  # type: ignore[operator]
                queries, known_keys.transpose(1, 2), known_values.transpose(1, 2), attn_mask=mask))
        return self.last(x)
