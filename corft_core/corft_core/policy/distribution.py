"""Distributional values: a value as probabilities over M fixed atoms instead of one number.

Two ways to make the target probabilities: HL-Gauss smears a number over bins and trains by cross-entropy (Farebrother
et al. 2024, arXiv 2403.03950); C51 carries the whole distribution of the next state through the Bellman equation
(Bellemare et al. 2017, arXiv 1707.06887).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIGMA_BINS = 0.75
"""HL-Gauss: deviation of the smeared target in bin widths [Farebrother et al.]."""
MARGIN_SIGMAS = 3.0
"""HL-Gauss: bins beyond the feasible range in deviations, else targets at its ends are pulled inwards [ours]."""


def atoms(kind: str, low: float, high: float, count: int) -> Tensor:
    """The `count` atoms (M,) of values between low and high: evenly spaced, "hl_gauss" with a margin on both sides."""
    if kind == "hl_gauss":
        margin_bins = MARGIN_SIGMAS * SIGMA_BINS
        width = (high - low) / (count - 1 - 2 * margin_bins)
        low, high = low - margin_bins * width, high + margin_bins * width
    return torch.linspace(low, high, count)


def expectation(logits: Tensor, support: Tensor) -> Tensor:
    """Mean value, (…, M) → (…)."""
    return (logits.softmax(-1) * support).sum(-1)


def hl_gauss(value: Tensor, support: Tensor) -> Tensor:
    """Values (…) as histograms (…, M): a Gaussian of 0.75 bins integrated over each bin (HL-Gauss, eq. 3)."""
    width = support[1] - support[0]
    edges = torch.cat([support - width / 2, support[-1:] + width / 2])
    cumulated = torch.erf((edges - value[..., None]) / (math.sqrt(2.0) * SIGMA_BINS * width))
    return cumulated.diff(dim=-1) / (cumulated[..., -1:] - cumulated[..., :1]).clamp_min(1e-8)


def categorical_projection(known: Tensor, discount: Tensor, probabilities: Tensor, support: Tensor) -> Tensor:
    """Distribution of known + discount · Z on the atoms again (C51, algorithm 1).

    known, discount (…), probabilities (…, M) of Z. Mass between two atoms is shared linearly, mass outside goes to
    the nearest end: the mean is kept wherever nothing is cut off.
    """
    width = support[1] - support[0]
    moved = (known[..., None] + discount[..., None] * support).clamp(support[0], support[-1])
    place = ((moved - support[0]) / width).clamp(0, len(support) - 1)
    lower = place.floor().long().clamp_max(len(support) - 2)
    share = place - lower
    result = torch.zeros_like(moved)
    result.scatter_add_(-1, lower, probabilities * (1.0 - share))
    result.scatter_add_(-1, lower + 1, probabilities * share)
    return result


def two_hot(value: Tensor, support: Tensor) -> Tensor:
    """A certain value (…) on the atoms (…, M): its two neighbours share it linearly."""
    certain = torch.zeros((*value.shape, len(support)), device=value.device)
    certain[..., 0] = 1.0
    return categorical_projection(value, torch.zeros_like(value), certain, support)
