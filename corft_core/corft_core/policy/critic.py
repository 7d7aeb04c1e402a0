"""Critic expert: values of every prefix of a chunk, Q_i = Q(s, a_1 … a_i), i = 1 … H.

Both forms are causal: a later action never changes an earlier prefix's value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corft_core.policy.config import CriticConfig


class _PrefixLinear(nn.Module):
    """Ensemble of linear maps between prefix groups; group i reads groups 1 … i only (block lower-triangular)."""

    def __init__(self, ensemble: int, horizon: int, inputs: int, outputs: int) -> None:
        super().__init__()
        fan = inputs * (horizon + 1) / 2
        self.weight = nn.Parameter(torch.randn(ensemble, horizon * inputs, horizon * outputs) * fan**-0.5)
        self.bias = nn.Parameter(torch.zeros(ensemble, 1, horizon * outputs))
        mask = torch.ones(horizon, horizon).triu()  # row = input group, column = output group
        self.register_buffer(
            "mask", mask.repeat_interleave(inputs, 0).repeat_interleave(outputs, 1), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight * self.get_buffer("mask"))


class MaskedPrefixCritic(nn.Module):
    """A multilayer perceptron per prefix, evaluated as one block-triangular network."""

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: CriticConfig) -> None:
        super().__init__()
        self.horizon, self.width, self.ensemble = horizon, config.width, config.ensemble
        groups = horizon * config.width
        self.state = nn.Parameter(torch.randn(config.ensemble, embedding, groups) * embedding**-0.5)
        self.action = _PrefixLinear(config.ensemble, horizon, action_dim, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.layers))
        self.hidden = nn.ModuleList(
            _PrefixLinear(config.ensemble, horizon, config.width, config.width) for _ in range(config.layers - 1)
        )
        self.out = nn.Parameter(torch.randn(config.ensemble, 1, horizon, config.width) * 0.1 * config.width**-0.5)
        self.out_bias = nn.Parameter(torch.zeros(config.ensemble, 1, horizon))

    def _group_norm(self, x: Tensor, norm: nn.Module) -> Tensor:
        return nn.functional.gelu(norm(x.unflatten(-1, (self.horizon, self.width)))).flatten(-2)

    def forward(self, embedding: Tensor, actions: Tensor) -> Tensor:
        """(B, E), (B, n, H, A) → (ensemble, B, n, H)."""
        batch, count = actions.shape[:2]
        state = torch.einsum("be,keg->kbg", embedding, self.state)  # once per state, shared by its n chunks
        flat = actions.reshape(1, batch * count, -1).expand(self.ensemble, -1, -1)
        x = self.action(flat).unflatten(1, (batch, count)) + state[:, :, None]
        x = x.flatten(1, 2)
        for norm, hidden in zip(self.norms, self.hidden, strict=False):
            x = hidden(self._group_norm(x, norm))
        x = self._group_norm(x, self.norms[-1]).unflatten(-1, (self.horizon, self.width))
        values = (x * self.out).sum(-1) + self.out_bias
        return values.unflatten(1, (batch, count))


class _CausalTransformer(nn.Module):
    def __init__(self, embedding: int, horizon: int, action_dim: int, config: CriticConfig) -> None:
        super().__init__()
        self.state = nn.Linear(embedding, config.width)
        self.action = nn.Linear(action_dim, config.width)
        self.place = nn.Parameter(torch.randn(horizon + 1, config.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, 1))
        self.register_buffer("mask", torch.ones(horizon + 1, horizon + 1).triu(1).bool(), persistent=False)

    def forward(self, embedding: Tensor, actions: Tensor) -> Tensor:
        tokens = torch.cat([self.state(embedding)[:, None], self.action(actions)], 1) + self.place
        return self.out(self.layers(tokens, mask=self.mask))[:, 1:, 0]


class TransformerPrefixCritic(nn.Module):
    """Tokens [state, a_1 … a_H] under a causal mask; the i-th action token's output is Q_i (CO-RFT)."""

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: CriticConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            _CausalTransformer(embedding, horizon, action_dim, config) for _ in range(config.ensemble)
        )

    def forward(self, embedding: Tensor, actions: Tensor) -> Tensor:
        """(B, E), (B, n, H, A) → (ensemble, B, n, H)."""
        batch, count = actions.shape[:2]
        repeated = embedding.repeat_interleave(count, 0)
        flat = actions.flatten(0, 1)
        return torch.stack([member(repeated, flat).unflatten(0, (batch, count)) for member in self.members])


def make_critic(embedding: int, horizon: int, action_dim: int, config: CriticConfig) -> nn.Module:
    """The critic expert that `config.kind` names."""
    cls = MaskedPrefixCritic if config.kind == "masked_mlp" else TransformerPrefixCritic
    return cls(embedding, horizon, action_dim, config)


def rank_chunks(values: Tensor, rule: str) -> Tensor:
    """Scores (B, n) from prefix values (ensemble, B, n, H): smallest ensemble member, last prefix or mean.

    Prefixes of equal length are compared only with each other: a maximum over lengths favours whichever
    prefix head happens to be biased upwards.
    """
    pessimistic = values.amin(0)
    return pessimistic[..., -1] if rule == "last" else pessimistic.mean(-1)
