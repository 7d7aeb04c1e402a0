"""Stage 2, CO-RFT: losses over prefix values as pure functions (inputs) → (loss, info).

B batch, H horizon, K critics, n policy chunks. Values lie in [0, 1]: see data/returns.py for the reward scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WEIGHT_LOG_RANGE = (-6.0, 3.0)
"""Bounds of the log advantage weight [study]."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` (broadcast) is true; 0 when nothing is."""
    weight = mask.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


def td_loss(q: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, float]]:
    """CO-RFT's chunked TD error mean_i (Q_i − G_i)².

    q (K, B, H); targets (B, H); valid (B, H) prefixes that have a target.
    """
    loss = masked_mean((q - targets).square(), valid)
    return loss, {"td_loss": float(loss.detach()), "target": float(masked_mean(targets, valid))}


def conservative_loss(
    q_data: Tensor, q_policy: Tensor, v_mu: Tensor, valid: Tensor, calibrated: bool = True, form: str = "mean",
    q_random: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Calibrated conservative term over prefixes: E_{A~pi} max(Q_i(s, A), V_mu(s)) − Q_i(s, A_D).

    q_data (K, B, H); q_policy (K, B, n, H); v_mu (B,) Monte-Carlo return-to-go; valid (B, H).
    form "logsumexp" is Cal-QL's code: log mean exp over policy chunks (bounded below by V_mu) and random chunks
    q_random (K, B, m, H) (never bounded).
    """
    bound = v_mu[None, :, None, None]
    bounded = torch.maximum(q_policy, bound) if calibrated else q_policy
    if form == "mean":
        above = bounded.mean(2)
    else:
        everything = bounded if q_random is None else torch.cat([bounded, q_random], 2)
        above = everything.logsumexp(2) - math.log(everything.shape[2])
    loss = masked_mean(above - q_data, valid)
    return loss, {
        "conservative_loss": float(loss.detach()),
        "q_policy": float(masked_mean(q_policy.detach().mean(2), valid)),
        "q_data": float(masked_mean(q_data.detach(), valid)),
        "bounded_share": float((q_policy.detach() < bound).float().mean()),
    }


def shared_targets(targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's note: the longest prefix's target G_h for every prefix; (B, H) → (B, H), mask (B, H)."""
    return targets[:, -1:].expand_as(targets), valid[:, -1:].expand_as(valid)


def advantage_weights(advantage: Tensor, temperature: float) -> Tensor:
    """exp(clip(T · A / std A, −6, 3)) scaled to mean 1, (N,) → (N,)."""
    scaled = temperature * advantage / advantage.std().clamp_min(1e-8)
    weight = scaled.clamp(*WEIGHT_LOG_RANGE).exp()
    return weight / weight.mean()


def actor_loss(
    q: Tensor, imitation: Tensor, mode: str, q_weight: float = 0.1, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a deterministic actor.

    q (B, H) prefix values of its chunks, imitation (B,) its imitation loss per sample, weight (B,) advantage weights.
    "paper": −mean_i Q_i. "anchored": imitation − q_weight · mean Q / mean |Q| (TD3+BC's scaling).
    "weighted_anchor": the same with advantage-weighted imitation.
    """
    value = q.mean()
    info = {"actor_q": float(value.detach()), "actor_bc": float(imitation.detach().mean())}
    if mode == "paper":
        return -value, info
    anchor = imitation.mean() if mode == "anchored" or weight is None else (weight * imitation).mean()
    return anchor - q_weight * value / q.detach().abs().mean().clamp_min(1e-6), info
