"""Targets of the critic: which recorded states follow each prefix, and what they are worth.

Two sources of state values behind `co_rft.target_source`:
- table: some tens of demonstrations fit a table, so the values of all recorded states are refreshed now and then and
  a step's targets are looked up. That saves the passes of actor and critic over s_{t+1..t+h} in every step.
- network: EMA copies of actor and critic are evaluated on s_{t+1..t+h} in every step (TD3).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corft_core.data.chunks import ChunkTable
from corft_core.learning.co_rft import chunked_targets, shared_targets, state_distribution, state_value
from corft_core.learning.sft import part
from corft_core.policy.actor import Actor, Critic
from corft_core.policy.critic import PrefixCritic
from corft_core.policy.distribution import categorical_projection, hl_gauss, two_hot


@dataclass(frozen=True)
class PrefixTable:
    """The chunk table's columns of the P prefixes that a critic values, as tensors on the training device."""

    known_return: Tensor
    """(N, P)."""
    following: Tensor
    """(N, P) frame whose observation follows the prefix."""
    discount: Tensor
    """(N, P)."""
    valid: Tensor
    """(N, P) the prefix has a target."""
    recorded: Tensor
    """(N, P) the prefix's last action was recorded."""
    longest: Tensor
    """(N,) column of the longest prefix that has a target (0 where none has)."""
    mc_return: Tensor
    """(N,)."""
    low: float
    high: float
    """Feasible range of values."""

    @classmethod
    def build(cls, table: ChunkTable, lengths: tuple[int, ...], device: torch.device) -> PrefixTable:
        """Columns for prefixes of these lengths."""
        columns = np.array(lengths) - 1

        def tensor(array: np.ndarray, kind: torch.dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, kind)

        valid = table.target_valid[:, columns]
        return cls(
            known_return=tensor(table.known_return[:, columns], torch.float32),
            following=tensor(table.bootstrap_index[:, columns], torch.int64),
            discount=tensor(table.bootstrap_discount[:, columns], torch.float32),
            valid=tensor(valid, torch.bool),
            recorded=tensor(table.valid[:, columns], torch.bool),
            longest=tensor(np.maximum(valid.sum(1) - 1, 0), torch.int64),
            mc_return=tensor(table.mc_return, torch.float32),
            low=table.value_range[0],
            high=table.value_range[1],
        )


@dataclass(frozen=True)
class StateValues:
    """Values of some states: `value` (…), and for C51 `probabilities` (…, M)."""

    value: Tensor
    probabilities: Tensor | None = None

    def __getitem__(self, index: Tensor) -> StateValues:
        return StateValues(self.value[index], None if self.probabilities is None else self.probabilities[index])

    @classmethod
    def join(cls, parts: list[StateValues]) -> StateValues:
        several = [p.probabilities for p in parts if p.probabilities is not None]
        return cls(torch.cat([p.value for p in parts]), torch.cat(several) if several else None)


@dataclass(frozen=True)
class Targets:
    """Targets of a batch: `value` (B, P), `valid` (B, P), for a distributional critic `distribution` (B, P, M)."""

    value: Tensor
    valid: Tensor
    distribution: Tensor | None


@torch.no_grad()
def policy_values(critic: PrefixCritic, embedding: Tensor, chunks: Tensor, bootstrap: str) -> StateValues:
    """V(s) = Q_h(s, pi(s)) for embeddings (B, E) and the policy's chunks (B, n, H, A); smallest critic."""
    logits = critic.logits(embedding, chunks)[..., -1, :]
    q = critic.values(logits)
    if critic.kind != "c51":
        return StateValues(state_value(q, bootstrap))
    return StateValues(state_value(q, bootstrap), state_distribution(q, logits.softmax(-1), bootstrap))


@torch.no_grad()
def make_targets(
    table: PrefixTable, index: Tensor, following: StateValues, critic: PrefixCritic, shared: bool
) -> Targets:
    """Targets of the frames `index` (B,) from the values of the states that follow each prefix (B, P)."""
    known, discount, valid = table.known_return[index], table.discount[index], table.valid[index]
    value = chunked_targets(known, discount, following.value, valid)
    distribution = None
    if critic.kind == "c51" and following.probabilities is not None:
        distribution = categorical_projection(known, discount, following.probabilities, critic.support)
    elif critic.distributional:
        distribution = hl_gauss(value, critic.support) if critic.kind == "hl_gauss" else two_hot(value, critic.support)
    if shared:
        value, valid = shared_targets(value, valid)
        distribution = None if distribution is None else distribution[:, -1:].expand_as(distribution)
    return Targets(value, valid, distribution)


class TargetNetworks:
    """Copies of critic and actor that follow them slowly: θ' ← θ' + τ (θ − θ') (EMA targets of TD3 and CO-RFT)."""

    def __init__(self, critic: Critic, actor: Actor, tau: float) -> None:
        self.critic = copy.deepcopy(critic).requires_grad_(False).eval()
        self.actor = copy.deepcopy(actor).requires_grad_(False).eval()
        self.tau = tau
        self.followed = [*critic.parameters(), *actor.parameters()]
        self.values: list[Tensor] = [*self.critic.parameters(), *self.actor.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Once after every critic step."""
        torch._foreach_lerp_(self.values, [p.detach() for p in self.followed], self.tau)

    def tensors(self) -> dict[str, Tensor]:
        state = {f"critic.{k}": v for k, v in self.critic.state_dict().items()}
        return state | {f"actor.{k}": v for k, v in self.actor.state_dict().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self.critic.load_state_dict(part(tensors, "critic."))
        self.actor.load_state_dict(part(tensors, "actor."))
