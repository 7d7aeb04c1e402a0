"""Stage 1, imitation: masked error between predicted and demonstrated chunk (CO-RFT, supervised stage)."""

from __future__ import annotations

import torch
from torch import Tensor

from corft_core.policy.actor import Actor, Observation


def bc_loss(
    actor: Actor, observation: Observation, actions: Tensor, valid: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Mean imitation loss over samples, optionally weighted.

    actions (B, H, A) normalised, valid (B, H) recorded steps, weight (B,) with mean about 1.
    """
    per_sample = actor.loss(observation, actions, valid)
    loss = per_sample.mean() if weight is None else (per_sample * weight).mean()
    return loss, {"loss": float(loss.detach())}


@torch.no_grad()
def action_error(actor: Actor, observation: Observation, actions: Tensor, valid: Tensor) -> float:
    """Mean absolute error of one sampled chunk in normalised units, padded steps left out."""
    error = (actor.sample(observation)[:, 0] - actions).abs().mean(-1)
    return float((error * valid).sum() / valid.sum().clamp_min(1))
