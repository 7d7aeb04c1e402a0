"""Action experts: observation embedding → chunk of H normalised actions.

Both heads answer the same two questions: `loss` (how far from the demonstrated chunk, per sample) and `sample`. A
sample may be given a `plan` (B, H, A), the normalised actions expected for its steps, of which the first `frozen` are
executed anyway (real-time chunking), and a `noise_scale`, by which samples differ less than what was imitated. A head
may use them or not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from corft_core.policy.config import HeadConfig

if TYPE_CHECKING:
    from corft_core.policy.tokens.decoding import Decoded


def masked_chunk_mean(squared: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid steps and action dimensions, per sample: squared (B, H, A), valid (B, H) → (B,).

    Padded steps count neither above nor below the fraction line, so a padded tail teaches nothing.
    """
    mask = valid.to(squared.dtype)
    return (squared.mean(-1) * mask).sum(-1) / mask.sum(-1).clamp_min(1.0)


class _Trunk(nn.Module):
    def __init__(self, width: int, layers: int, out: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)) for _ in range(layers - 1)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, out))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class Head(nn.Module, ABC):
    """What all action experts answer.

    `stochastic`: whether samples differ. `inpaints`: whether a sample goes on from the frozen steps of a plan.
    `decoded`: what the last sample took, of heads that decode tokens. `progress`: how far stage 1 has come, 0 … 1.
    """

    stochastic: bool
    inpaints = False
    decoded: Decoded | None = None
    progress = 1.0

    def fit_actions(self, chunks: Tensor) -> None:
        """Look at the training data's normalised chunks (N, H, A) before the first step; not every head needs to."""

    @abstractmethod
    def loss(
        self, embedding: Tensor, actions: Tensor, valid: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Imitation loss per sample (B,) towards chunks (B, H, A), of which the steps `valid` (B, H) count."""

    @abstractmethod
    def sample(
        self, embedding: Tensor, samples: int = 1, generator: torch.Generator | None = None,
        plan: Tensor | None = None, frozen: int = 0, noise_scale: float = 1.0,
    ) -> Tensor:
        """Chunks (B, samples, H, A). plan (B, H, A): actions expected for their steps, of which the first `frozen` are
        executed whatever the chunk says."""


class ChunkHead(Head):
    """Deterministic chunk, trained by the mean squared error (CO-RFT's action expert)."""

    stochastic = False

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.horizon, self.action_dim = horizon, action_dim
        self.enter = nn.Linear(embedding, config.width)
        self.trunk = _Trunk(config.width, config.layers, horizon * action_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, E) → (B, H, A)."""
        return self.trunk(self.enter(embedding)).unflatten(-1, (self.horizon, self.action_dim))

    def loss(
        self, embedding: Tensor, actions: Tensor, valid: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Masked mean squared error per sample, (B,)."""
        return masked_chunk_mean((self(embedding) - actions).square(), valid)

    def sample(self, embedding: Tensor, samples: int = 1, generator: torch.Generator | None = None,
               plan: Tensor | None = None, frozen: int = 0, noise_scale: float = 1.0) -> Tensor:
        """(B, samples, H, A); all samples are equal, whatever the plan."""
        return self(embedding)[:, None].expand(-1, samples, -1, -1)


class FlowHead(Head):
    """Flow matching: a velocity field carries Gaussian noise to chunks along straight lines.

    Training: x_t = (1 − t) noise + t chunk, target chunk − noise. Sampling: Euler steps from t = 0 to 1.
    """

    stochastic = True
    inpaints = True
    frequencies: Tensor

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.horizon, self.action_dim = horizon, action_dim
        self.steps, self.draws = config.flow_steps, config.flow_draws
        self.register_buffer("frequencies", torch.exp(torch.linspace(0.0, math.log(64.0), 16)), persistent=False)
        self.enter = nn.Linear(embedding, config.width)
        self.noisy = nn.Linear(horizon * action_dim, config.width)
        self.clock = nn.Linear(32, config.width)
        self.trunk = _Trunk(config.width, config.layers, horizon * action_dim)

    def _velocity(self, context: Tensor, x: Tensor, time: Tensor) -> Tensor:
        phase = time[..., None] * self.frequencies
        clock = self.clock(torch.cat([phase.sin(), phase.cos()], -1))
        return self.trunk(context + self.noisy(x) + clock)

    def loss(
        self, embedding: Tensor, actions: Tensor, valid: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Masked flow-matching error per sample, mean over `flow_draws` (time, noise) draws, (B,)."""
        batch, device = embedding.shape[0], embedding.device
        size = self.horizon * self.action_dim
        time = torch.rand(batch, self.draws, generator=generator, device=device)
        noise = torch.randn(batch, self.draws, size, generator=generator, device=device)
        chunk = actions.flatten(1)[:, None]
        x = (1.0 - time[..., None]) * noise + time[..., None] * chunk
        velocity = self._velocity(self.enter(embedding)[:, None], x, time)
        error = (velocity - (chunk - noise)).square().unflatten(-1, (self.horizon, self.action_dim))
        return masked_chunk_mean(error.mean(1), valid)

    def sample(self, embedding: Tensor, samples: int = 1, generator: torch.Generator | None = None,
               plan: Tensor | None = None, frozen: int = 0, noise_scale: float = 1.0) -> Tensor:
        """(B, samples, H, A) independent chunks.

        Noise scaled below 1 starts nearer to the middle of what was imitated, and so ends there: fewer of the
        operator's rare, imprecise motions.
        The first ``frozen`` steps are those of ``plan`` (B, H, A), which will be executed whatever is drawn: along
        the way they are held where the plan would be at that time, so the rest is drawn to go on from them.
        """
        size = self.horizon * self.action_dim
        x = noise_scale * torch.randn(embedding.shape[0], samples, size, generator=generator, device=embedding.device)
        context = self.enter(embedding)[:, None]
        known = 0 if plan is None else frozen * self.action_dim
        noise, goal = x[..., :known].clone(), 0.0 if plan is None else plan.flatten(1)[:, None, :known]
        for step in range(self.steps):
            time = torch.full(x.shape[:2], step / self.steps, device=x.device)
            x = x + self._velocity(context, x, time) / self.steps
            reached = (step + 1) / self.steps
            x[..., :known] = (1.0 - reached) * noise + reached * goal
        return x.unflatten(-1, (self.horizon, self.action_dim))


def make_head(embedding: int, horizon: int, action_dim: int, config: HeadConfig) -> Head:
    """The action expert that `config.kind` names."""
    if config.kind == "tokens":
        from corft_core.policy.tokens.head import TokenHead

        return TokenHead(embedding, horizon, action_dim, config)
    return (FlowHead if config.kind == "flow" else ChunkHead)(embedding, horizon, action_dim, config)
