"""Memory: the embeddings of the last k observations → one embedding, in the three forms of RoboVLMs' policy heads.

Each form leaves the current embedding its straight path and adds what it makes of all k. Frames that were not seen
(an episode that has just begun) count for nothing, whatever stands in their place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corft_core.policy.config import HistoryConfig


@dataclass(frozen=True)
class Past:
    """Which frames each of B observations consists of: `frame` (B, k), the oldest first, the current one last;
    `seen` (B, k), False where the episode had not begun."""

    frame: Tensor
    seen: Tensor


class Memory(nn.Module, ABC):
    """(embeddings (B, k, E), seen (B, k)) → (B, E)."""

    def forward(self, embeddings: Tensor, seen: Tensor) -> Tensor:
        return embeddings[:, -1] + self.recall(embeddings, seen)

    @abstractmethod
    def recall(self, embeddings: Tensor, seen: Tensor) -> Tensor:
        """What the k observations add to the current one, (B, E)."""


class WindowMemory(Memory):
    """All k side by side, through a perceptron."""

    def __init__(self, width: int, config: HistoryConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.steps * (width + 1), width), nn.GELU(), nn.Linear(width, width),
        )

    def recall(self, embeddings: Tensor, seen: Tensor) -> Tensor:
        known = embeddings * seen[..., None]
        return self.layers(torch.cat([known.flatten(1), seen.to(known.dtype)], 1))


class LstmMemory(Memory):
    """One after the other, through an LSTM that starts anew with the oldest."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(width, width), nn.Linear(width, width)

    def recall(self, embeddings: Tensor, seen: Tensor) -> Tensor:
        hidden = carried = torch.zeros_like(embeddings[:, 0])
        for step in range(embeddings.shape[1]):
            known = seen[:, step, None]
            after = self.cell(embeddings[:, step], (hidden, carried))
            hidden, carried = (torch.where(known, new, old) for new, old in zip(after, (hidden, carried), strict=True))
        return self.out(hidden)


class TransformerMemory(Memory):
    """All k as tokens with places of their own; the current one's token looks at the others."""

    def __init__(self, width: int, config: HistoryConfig) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(config.steps, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def recall(self, embeddings: Tensor, seen: Tensor) -> Tensor:
        tokens = self.layers(embeddings + self.place, src_key_padding_mask=~seen)
        return self.out(tokens[:, -1])


def make_memory(width: int, config: HistoryConfig) -> Memory | None:
    """The memory that `config.kind` names, None for a single observation."""
    if config.steps == 1:
        return None
    if config.kind == "window":
        return WindowMemory(width, config)
    return LstmMemory(width) if config.kind == "lstm" else TransformerMemory(width, config)
