"""Stage 2, CO-RFT and its neighbours: each equation a pure function, losses as (inputs) → (loss, info).

B batch, P valued prefixes (all lengths 1 … H, or one), K critics, n policy chunks, M atoms of a distributional head.
Values lie in [0, 1]: see data/returns.py for the reward scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from corft_core.learning import processes

WEIGHT_LOG_RANGE = (-6.0, 3.0)
"""Bounds of the log advantage weight [study]."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` (broadcast) is true; 0 when nothing is."""
    weight = mask.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


# Targets


def state_value(q: Tensor, bootstrap: str) -> Tensor:
    """V(s) from Q(s, A) of the policy's chunks: smallest critic, then mean or best chunk; (K, B, n) → (B,)."""
    smallest = q.amin(0)
    return smallest.mean(1) if bootstrap == "mean" else smallest.amax(1)


def state_distribution(q: Tensor, probabilities: Tensor, bootstrap: str) -> Tensor:
    """Distribution whose mean is `state_value`: q (K, B, n), probabilities (K, B, n, M) → (B, M)."""
    smallest, member = q.min(0)
    picked = probabilities.gather(0, member[None, ..., None].expand(1, *probabilities.shape[1:]))[0]  # (B, n, M)
    if bootstrap == "mean":
        return picked.mean(1)
    best = smallest.argmax(1)[:, None, None]
    return picked.gather(1, best.expand(-1, 1, picked.shape[2]))[:, 0]


def smoothed(chunk: Tensor, noise: float, clip: float) -> Tensor:
    """TD3's target policy smoothing over a whole chunk: clipped Gaussian noise on every action."""
    return chunk + (noise * torch.randn_like(chunk)).clamp(-clip, clip) if noise else chunk


def chunked_targets(known: Tensor, discount: Tensor, following: Tensor, valid: Tensor) -> Tensor:
    """CO-RFT's chunked TD target per prefix, G_i = Σ_{j<i} γ^j r_{t+j} + γ^i V(s_{t+i}); all (B, P).

    known: discounted reward of the prefix; discount: γ^i, 0 after a terminal; following: V(s_{t+i}).
    """
    return torch.where(valid, known + discount * following, 0.0)


def shared_targets(targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's note: the longest prefix's target G_h for every prefix; (B, P) → (B, P), mask (B, P)."""
    return targets[:, -1:].expand_as(targets), valid[:, -1:].expand_as(valid)


# Critic


def td_loss(q: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, float]]:
    """CO-RFT's chunked TD error mean_i (Q_i − G_i)².

    q (K, B, P); targets (B, P); valid (B, P) prefixes that have a target.
    """
    loss = masked_mean((q - targets).square(), valid)
    return loss, {"td_loss": float(loss.detach()), "target": float(masked_mean(targets, valid))}


def distributional_td_loss(logits: Tensor, distribution: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of HL-Gauss and C51, mean over prefixes: logits (K, B, P, M), target distribution (B, P, M).

    Its smallest value, the target's entropy, is left out, so that 0 is perfect as in `td_loss`.
    """
    entropy = -torch.special.xlogy(distribution, distribution).sum(-1)
    loss = masked_mean(-(distribution * logits.log_softmax(-1)).sum(-1) - entropy, valid)
    return loss, {"td_loss": float(loss.detach())}


def conservative_loss(
    q_data: Tensor, q_policy: Tensor, v_mu: Tensor, valid: Tensor, calibrated: bool = True, form: str = "mean",
    q_random: Tensor | None = None, bound: str = "policy",
) -> tuple[Tensor, dict[str, float]]:
    """Calibrated conservative term over prefixes: E_{A~pi} max(Q_i(s, A), V_mu(s)) − Q_i(s, A_D).

    q_data (K, B, P); q_policy (K, B, n, P); v_mu (B,) Monte-Carlo return-to-go; valid (B, P).
    form "logsumexp" is Cal-QL's code: log mean exp over policy chunks and random chunks q_random (K, B, m, P). The
    bound V_mu holds for policy chunks, with bound "all" for random ones too. Importance weights are left out: neither
    head tells the density of its chunks.
    """
    floor = v_mu[None, :, None, None]
    bounded = torch.maximum(q_policy, floor) if calibrated else q_policy
    if form == "mean":
        above = bounded.mean(2)
    else:
        if q_random is not None:
            q_random = torch.maximum(q_random, floor) if calibrated and bound == "all" else q_random
            bounded = torch.cat([bounded, q_random], 2)
        above = bounded.logsumexp(2) - math.log(bounded.shape[2])
    loss = masked_mean(above - q_data, valid)
    return loss, {
        "conservative_loss": float(loss.detach()),
        "q_policy": float(masked_mean(q_policy.detach().mean(2), valid)),
        "q_data": float(masked_mean(q_data.detach(), valid)),
        "bounded_share": float((q_policy.detach() < floor).float().mean()),
    }


def expectile_loss(
    target: Tensor, value: Tensor, expectile: float, valid: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """IQL's |τ − 1(u < 0)| u² with u = target − V(s), all (B,); τ = 0.5 is half the mean squared error."""
    error = target - value
    side = torch.where(error < 0, 1.0 - expectile, expectile)
    loss = masked_mean(side * error.square(), valid)
    return loss, {"value_loss": float(loss.detach()), "state_value": float(value.detach().mean())}


# Policy


def policy_advantage(q_data: Tensor, q_policy: Tensor, recorded: Tensor) -> Tensor:
    """mean_i [Q_i(s, A_D) − E_{A~pi} Q_i(s, A)] over recorded steps, mean over critics.

    q_data (K, N, P), q_policy (K, N, n, P), recorded (N, P) → (N,). Only prefixes of equal length are subtracted.
    """
    difference = q_data.mean(0) - q_policy.mean((0, 2))
    weight = recorded.to(difference.dtype)
    return (difference * weight).sum(1) / weight.sum(1).clamp_min(1.0)


def advantage_weights(advantage: Tensor, temperature: float) -> Tensor:
    """exp(clip(T · A / std A, −6, 3)) scaled to mean 1, (N,) → (N,)."""
    scaled = temperature * advantage / advantage.std().clamp_min(1e-8)
    weight = scaled.clamp(*WEIGHT_LOG_RANGE).exp()
    return weight / weight.mean()


def actor_loss(
    q: Tensor, imitation: Tensor, mode: str, q_weight: float = 0.1, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a deterministic actor.

    q (B, P) prefix values of its chunks, imitation (B,) its imitation loss per sample, weight (B,) advantage weights.
    "paper": −mean_i Q_i. "anchored": imitation − q_weight · mean Q / mean |Q| (TD3+BC's scaling).
    "weighted_anchor": the same with advantage-weighted imitation.
    """
    value = q.mean()
    info = {"actor_q": float(value.detach()), "actor_bc": float(imitation.detach().mean())}
    if mode == "paper":
        return -value, info
    anchor = imitation.mean() if mode == "anchored" or weight is None else (weight * imitation).mean()
    scale = processes.mean(q.detach().abs().mean())  # of the joined batch, under torchrun
    return anchor - q_weight * value / scale.clamp_min(1e-6), info
