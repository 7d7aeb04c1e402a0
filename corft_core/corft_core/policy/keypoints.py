"""Where attention maps look: the mean position under a softmax, with a backward pass of its own.

Autograd would keep and walk three arrays of the maps' size; for the small networks of this package that is half of a
training step on a CPU. With homogeneous positions (x, y, 1) one product gives a map's sums and its normaliser, and the
gradient of the logits is one product too: d logit_n = p_n (x_n − x̄) · dx̄.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Locate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        logits = weight @ tokens.transpose(-1, -2)
        mass = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
        places = torch.cat([positions, torch.ones_like(positions[:, :1])], 1)
        sums = mass @ places
        points, total = sums[..., :2] / sums[..., 2:], sums[..., 2:]
        ctx.save_for_backward(weight, tokens, places, mass, points, total)
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, tokens, places, mass, points, total = ctx.saved_tensors
        slope = torch.cat([grad, -(grad * points).sum(-1, keepdim=True)], -1) / total
        logits = (slope @ places.t()).mul_(mass)
        to_weight = (logits @ tokens).sum(0) if ctx.needs_input_grad[0] else None
        to_tokens = logits.transpose(-1, -2) @ weight if ctx.needs_input_grad[1] else None
        return to_weight, to_tokens, None


def locate(weight: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """Mean positions of softmax maps, in the positions' units.

    weight (cameras, maps, C) · tokens (B, cameras, N, C) are the logits; positions (N, 2) → (B, cameras, maps, 2).
    """
    return _Locate.apply(weight, tokens, positions)
