"""Stage 1, imitation: masked error between predicted and demonstrated chunk (CO-RFT, supervised stage)."""

from __future__ import annotations

import torch
from torch import Tensor

from corft_core.policy.actor import Actor, Observation


def bc_loss(
    actor: Actor, observation: Observation, actions: Tensor, valid: Tensor, keyframe: Tensor,
    keyframe_weight: float = 0.0, weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Mean imitation loss over samples, optionally weighted, plus the auxiliary keyframe error.

    actions (B, H, A) normalised, valid (B, H) recorded steps, keyframe (B, J), weight (B,) with mean about 1.
    """
    imitation, error = actor.losses(observation, actions, valid, keyframe)
    loss = imitation.mean() if weight is None else (imitation * weight).mean()
    info = {"loss": float(loss.detach()), "keyframe_error": float(error.detach().mean())}
    return loss + keyframe_weight * error.mean(), info


@torch.no_grad()
def action_error(actor: Actor, observation: Observation, actions: Tensor, valid: Tensor) -> float:
    """Mean absolute error of one sampled chunk in normalised units, padded steps left out."""
    error = (actor.sample(observation)[:, 0] - actions).abs().mean(-1)
    return float((error * valid).sum() / valid.sum().clamp_min(1))
