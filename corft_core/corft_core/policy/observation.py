"""Observation encoder: backbone tokens, instruction and proprioception → one embedding.

Each camera's token grid is modulated by the instruction (FiLM), then read out by attention maps: every map gives
the position it looks at (a spatial soft-argmax) and the map set gives pooled features. The instruction therefore
decides *what* is located, and positions come out at finer resolution than the grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from corft_core.policy.config import EncoderConfig


def grid_positions(tokens: int) -> Tensor:
    """(tokens, 2) coordinates in [-1, 1]: row-major x, y of a square grid, else a line."""
    side = math.isqrt(tokens)
    if side * side == tokens and side > 1:
        line = torch.linspace(-1.0, 1.0, side)
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], -1)
    line = torch.linspace(-1.0, 1.0, tokens) if tokens > 1 else torch.zeros(1)
    return torch.stack([line, torch.zeros(tokens)], -1)


class ObservationEncoder(nn.Module):
    """(tokens (B, cameras, N, C), text (B, L), state (B, S)) → embedding (B, E).

    `fit_inputs` sets fixed standardisation of tokens and text from training data; it is saved with the weights.
    """

    token_mean: Tensor
    token_scale: Tensor
    text_mean: Tensor
    text_scale: Tensor

    def __init__(
        self, cameras: int, vision_shape: tuple[int, int], text_dim: int, state_dim: int, config: EncoderConfig
    ) -> None:
        super().__init__()
        tokens, channels = vision_shape
        width, maps = config.token_width, config.keypoints
        self.register_buffer("token_mean", torch.zeros(channels))
        self.register_buffer("token_scale", torch.ones(channels))
        self.register_buffer("text_mean", torch.zeros(text_dim))
        self.register_buffer("text_scale", torch.ones(1))
        self.positions = nn.Parameter(grid_positions(tokens), requires_grad=False)
        self.project = nn.Linear(channels, width)
        self.place = nn.Parameter(torch.randn(cameras, tokens, width) * 0.02)
        self.film = nn.Linear(text_dim, 2 * width)
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(config.token_layers - 1))
        self.attend = nn.Linear(width, maps)
        self.value = nn.Linear(maps * width, config.value_width) if config.value_width else None
        read_out = cameras * (2 * maps + config.value_width)
        self.dropout = nn.Dropout(config.dropout)
        self.fuse = nn.Sequential(
            nn.Linear(read_out + text_dim + state_dim, config.embedding),
            nn.LayerNorm(config.embedding),
            nn.GELU(),
            nn.Linear(config.embedding, config.embedding),
            nn.LayerNorm(config.embedding),
            nn.GELU(),
        )

    @torch.no_grad()
    def fit_inputs(self, tokens: Tensor, text: Tensor) -> None:
        """Standardise by these tokens (…, C) and instruction embeddings (K, L)."""
        flat = tokens.reshape(-1, tokens.shape[-1]).float()
        self.token_mean.copy_(flat.mean(0))
        self.token_scale.copy_(flat.std(0).clamp_min(1e-3))
        self.text_mean.copy_(text.mean(0))
        spread = (text - text.mean(0)).square().mean().sqrt()
        self.text_scale.fill_(float(spread) if len(text) > 1 and float(spread) > 1e-6 else 1.0)

    def forward(self, tokens: Tensor, text: Tensor, state: Tensor) -> Tensor:
        """Embedding (B, E)."""
        batch = tokens.shape[0]
        text = ((text - self.text_mean) / self.text_scale).clamp(-5.0, 5.0)
        x = (tokens.float() - self.token_mean) / self.token_scale
        x = self.project(x) + self.place  # (B, cameras, N, width)
        scale, shift = self.film(text)[:, None, None].chunk(2, -1)
        x = torch.relu(torch.addcmul(shift, x, 1.0 + scale))
        for layer in self.mix:
            x = torch.relu(layer(x))
        maps = self.attend(x).transpose(2, 3).softmax(3)  # (B, cameras, maps, N)
        seen = [(maps @ self.positions).flatten(2)]
        if self.value is not None:
            seen.append(self.value((maps @ x).flatten(2)))
        features = self.dropout(torch.cat(seen, -1).reshape(batch, -1))
        return self.fuse(torch.cat([features, text, state], -1))
