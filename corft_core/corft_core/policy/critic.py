"""Critic expert: values of every prefix of a chunk, Q_i = Q(s, a_1 … a_i), i = 1 … H.

Both forms are causal: a later action never changes an earlier prefix's value. P is the number of valued prefixes:
all H of them, or 1 where the critic values whole chunks only (Q-chunking). M is the number of atoms of a
distributional head, 1 for plain values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corft_core.policy.config import CriticConfig
from corft_core.policy.distribution import atoms, expectation

FIRST_SCALE = 0.1
"""Deviation of a new critic's values, so that none of them lies outside the feasible range [0, 1] by much [ours]."""


class PrefixCritic(nn.Module):
    """What both forms share: the valued prefix lengths, and values from what the network puts out."""

    support: Tensor

    def __init__(self, horizon: int, config: CriticConfig) -> None:
        super().__init__()
        self.horizon, self.kind, self.ensemble = horizon, config.head, config.ensemble
        self.lengths = tuple(range(1, horizon + 1)) if config.prefixes else (horizon,)
        """Actions that each of the P values has seen."""
        self.atoms = 1 if config.head == "scalar" else config.atoms
        if self.atoms > 1:
            self.register_buffer("support", atoms(self.kind, 0.0, 1.0, self.atoms))

    @property
    def distributional(self) -> bool:
        return self.atoms > 1

    @torch.no_grad()
    def set_range(self, low: float, high: float) -> None:
        """Feasible range of values, covered by the atoms of a distributional head."""
        if self.distributional:
            self.support.copy_(atoms(self.kind, low, high, self.atoms))

    def logits(self, embedding: Tensor, actions: Tensor) -> Tensor:
        """(B, E), (B, n, ≥ H, A) → (ensemble, B, n, P, M): log-probabilities of the atoms, or the value (M = 1)."""
        raise NotImplementedError

    def values(self, logits: Tensor) -> Tensor:
        """(…, M) → (…)."""
        return expectation(logits, self.support) if self.distributional else logits[..., 0]

    def forward(self, embedding: Tensor, actions: Tensor) -> Tensor:
        """(B, E), (B, n, ≥ H, A) → (ensemble, B, n, P)."""
        return self.values(self.logits(embedding, actions))


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


class MaskedPrefixCritic(PrefixCritic):
    """A multilayer perceptron per prefix, evaluated as one block-triangular network.

    Without prefixes the whole chunk is the one group's action, and its perceptron is as wide as all groups together.
    """

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: CriticConfig) -> None:
        super().__init__(horizon, config)
        self.groups = len(self.lengths)
        inputs, self.width = action_dim, config.width
        if not config.prefixes:
            inputs, self.width = action_dim * horizon, config.width * horizon
        members, width, groups = config.ensemble, self.width, self.groups
        self.state = nn.Parameter(torch.randn(members, embedding, groups * width) * embedding**-0.5)
        self.action = _PrefixLinear(members, groups, inputs, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.layers))
        self.hidden = nn.ModuleList(_PrefixLinear(members, groups, width, width) for _ in range(config.layers - 1))
        self.out = nn.Parameter(torch.randn(members, 1, groups, width * self.atoms) * FIRST_SCALE * width**-0.5)
        self.out_bias = nn.Parameter(torch.zeros(members, 1, groups * self.atoms))

    def _group_norm(self, x: Tensor, norm: nn.Module) -> Tensor:
        return nn.functional.gelu(norm(x.unflatten(-1, (self.groups, self.width)))).flatten(-2)

    def logits(self, embedding: Tensor, actions: Tensor) -> Tensor:
        batch, count = actions.shape[:2]
        state = torch.einsum("be,keg->kbg", embedding, self.state)  # once per state, shared by its n chunks
        read = actions[:, :, : self.horizon].reshape(1, batch * count, -1).expand(self.ensemble, -1, -1)
        x = self.action(read).unflatten(1, (batch, count)) + state[:, :, None]
        x = x.flatten(1, 2)
        for norm, hidden in zip(self.norms, self.hidden, strict=False):
            x = hidden(self._group_norm(x, norm))
        x = self._group_norm(x, self.norms[-1]).unflatten(-1, (self.groups, self.width))
        if self.atoms == 1:
            logits = ((x * self.out).sum(-1) + self.out_bias)[..., None]
        else:
            out = self.out.view(self.ensemble, self.groups, self.width, self.atoms)
            logits = torch.einsum("kbpw,kpwm->kbpm", x, out)
            logits = logits + self.out_bias.view(self.ensemble, 1, self.groups, self.atoms)
        return logits.unflatten(1, (batch, count))


class _CausalTransformer(nn.Module):
    def __init__(self, embedding: int, horizon: int, action_dim: int, config: CriticConfig, atoms: int) -> None:
        super().__init__()
        self.state = nn.Linear(embedding, config.width)
        self.action = nn.Linear(action_dim, config.width)
        self.place = nn.Parameter(torch.randn(horizon + 1, config.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        last = nn.Linear(config.width, atoms)
        nn.init.normal_(last.weight, 0.0, FIRST_SCALE * config.width**-0.5)
        nn.init.zeros_(last.bias)
        self.out = nn.Sequential(nn.LayerNorm(config.width), last)
        self.register_buffer("mask", torch.ones(horizon + 1, horizon + 1).triu(1).bool(), persistent=False)

    def forward(self, embedding: Tensor, actions: Tensor) -> Tensor:
        tokens = torch.cat([self.state(embedding)[:, None], self.action(actions)], 1) + self.place
        return self.out(self.layers(tokens, mask=self.mask)[:, 1:])


class TransformerPrefixCritic(PrefixCritic):
    """Tokens [state, a_1 … a_H] under a causal mask; the i-th action token's output is Q_i (CO-RFT)."""

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: CriticConfig) -> None:
        super().__init__(horizon, config)
        self.members = nn.ModuleList(
            _CausalTransformer(embedding, horizon, action_dim, config, self.atoms) for _ in range(config.ensemble)
        )

    def logits(self, embedding: Tensor, actions: Tensor) -> Tensor:
        batch, count = actions.shape[:2]
        repeated = embedding.repeat_interleave(count, 0)
        flat = actions[:, :, : self.horizon].flatten(0, 1)
        everything = torch.stack([member(repeated, flat).unflatten(0, (batch, count)) for member in self.members])
        return everything[..., -len(self.lengths) :, :]


def make_critic(embedding: int, horizon: int, action_dim: int, config: CriticConfig) -> PrefixCritic:
    """The critic expert that `config.kind` names, over config.horizon (or else `horizon`) actions."""
    cls = MaskedPrefixCritic if config.kind == "masked_mlp" else TransformerPrefixCritic
    return cls(embedding, config.horizon or horizon, action_dim, config)


class StateValue(nn.Module):
    """V(s) of an embedded observation, for implicit Q-learning and for regression weights without an action critic."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(embedding, embedding), nn.LayerNorm(embedding), nn.GELU(), nn.Linear(embedding, embedding),
            nn.LayerNorm(embedding), nn.GELU(), nn.Linear(embedding, 1),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, E) → (B,)."""
        return self.layers(embedding)[:, 0]


def rank_chunks(values: Tensor, rule: str) -> Tensor:
    """Scores (B, n) from prefix values (ensemble, B, n, P): smallest ensemble member, last prefix or mean.

    Prefixes of equal length are compared only with each other: a maximum over lengths favours whichever
    prefix head happens to be biased upwards.
    """
    pessimistic = values.amin(0)
    return pessimistic[..., -1] if rule == "last" else pessimistic.mean(-1)
