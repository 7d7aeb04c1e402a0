"""Policy extraction at run time: draw chunks, rank them by the critic, climb its gradient, choose how much to execute.

Prefixes of unequal length are never compared: each prefix head has a bias of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from corft_core.policy.actor import Actor, Critic, Observation
from corft_core.policy.config import SelectionConfig
from corft_core.policy.critic import rank_chunks


@dataclass(frozen=True)
class Choice:
    """`chunk` (B, H, A) normalised; `value` (B,) its score, NaN without a critic; `steps` (B,) of it to execute, NaN
    where the caller decides."""

    chunk: Tensor
    value: Tensor
    steps: Tensor


def choose_chunk(
    actor: Actor, critic: Critic | None, observation: Observation, selection: SelectionConfig,
    generator: torch.Generator | None = None, plan: Tensor | None = None, frozen: int = 0,
) -> Choice:
    """The critic's favourite of `selection.samples` chunks; of equal scores the first drawn.

    `plan` (B, H, A) and `frozen` as the heads take them.
    """
    count = selection.samples if critic is not None and actor.head.stochastic else 1
    chunks = actor.sample(observation, count, generator, plan, frozen, selection.noise_scale)
    unknown = torch.full((len(chunks),), float("nan"), device=chunks.device)
    if critic is None:
        return Choice(chunks[:, 0], unknown, unknown)
    embedding = critic.embed(observation)
    values = critic(embedding, chunks)
    value, best = rank_chunks(values, selection.rank).max(1)
    chosen = chunks.gather(1, best[:, None, None, None].expand(-1, 1, *chunks.shape[2:]))[:, 0]
    steps = unknown
    if selection.adaptive and count > 1:
        steps = agreed_steps(values, best, critic.values.lengths)
    if selection.gradient_steps:
        chosen = climb(critic, embedding, chosen, selection)
        value = rank_chunks(critic(embedding, chosen[:, None]), selection.rank)[:, 0]
    return Choice(chosen, value, steps)


def climb(critic: Critic, embedding: Tensor, chunk: Tensor, selection: SelectionConfig) -> Tensor:
    """Move chunks (B, H, A) along the gradient of their score; the RMS of each step is `gradient_step_size`.

    Actions that the critic does not read stay as they are.
    """
    with torch.inference_mode(False), torch.enable_grad():
        embedding, moved = embedding.clone(), chunk.clone()
        for _ in range(selection.gradient_steps):
            leaf = moved.detach().requires_grad_()
            score = rank_chunks(critic(embedding, leaf[:, None]), selection.rank)
            gradient, = torch.autograd.grad(score.sum(), leaf)
            size = gradient.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-12)
            moved = leaf.detach() + selection.gradient_step_size * gradient / size
    return moved


def agreed_steps(values: Tensor, chosen: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Steps to execute: the longest prefix that every critic puts above the mean of the drawn chunks, (B,).

    values (ensemble, B, n, P), chosen (B,). Beyond it the critics disagree whether the chunk is better than any
    other, so a new look is worth more than its rest. NaN where they agree on no prefix.
    """
    picked = chosen[None, :, None, None].expand(len(values), -1, 1, values.shape[-1])
    advantage = values.gather(2, picked)[:, :, 0] - values.mean(2)
    agreed = advantage.amin(0) > 0  # (B, P)
    steps = torch.where(agreed, _on_device(lengths, values.device), 0).amax(1).float()
    return torch.where(steps > 0, steps, float("nan"))


@lru_cache(maxsize=16)
def _on_device(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept, because a copy from the host waits for a GPU."""
    return torch.tensor(lengths, device=device)
