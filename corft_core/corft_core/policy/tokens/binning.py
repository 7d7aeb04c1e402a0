"""Actions as tokens: every dimension cut into equal bins (RT-2, OpenVLA, PD-VLA: 256)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BinTokenizer(nn.Module):
    """Normalised chunks (…, H, A) ↔ tokens (…, H · A) in 0 … bins − 1, step by step, dimension by dimension.

    `fit` sets every dimension's range from training data; it is saved with the weights. Values outside the range
    take the first or the last bin. A bin stands for its centre: the error is at most half a bin.
    """

    low: Tensor
    high: Tensor

    def __init__(self, action_dim: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("low", torch.full((action_dim,), -3.0))
        self.register_buffer("high", torch.full((action_dim,), 3.0))

    @torch.no_grad()
    def fit(self, chunks: Tensor) -> None:
        """Range of every dimension over chunks (N, H, A). A dimension that never moves keeps a range of 1e-3."""
        flat = chunks.reshape(-1, chunks.shape[-1])
        low, high = flat.amin(0), flat.amax(0)
        spread = (high - low).clamp_min(1e-3)
        # Half a bin beyond both ends, so that the extremes are the centres of the outermost bins.
        margin = spread / (2 * (self.bins - 1))
        self.low.copy_((low + high - spread) / 2 - margin)
        self.high.copy_((low + high + spread) / 2 + margin)

    def encode(self, chunks: Tensor) -> Tensor:
        """Tokens (…, H · A) of chunks (…, H, A)."""
        place = (chunks - self.low) / (self.high - self.low) * self.bins
        return place.floor().long().clamp(0, self.bins - 1).flatten(-2)

    def decode(self, tokens: Tensor) -> Tensor:
        """Chunks (…, H, A) of tokens (…, H · A)."""
        steps = tokens.unflatten(-1, (-1, len(self.low)))
        return self.low + (steps + 0.5) / self.bins * (self.high - self.low)
