"""Intervals for the figures that are reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of samples behind it; NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int


def success_rate(successes: Sequence[bool], confidence: float = 0.95) -> Estimate:
    """Success rate with its Wilson score interval (E. B. Wilson, 1927)."""
    n = len(successes)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = sum(successes) / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Estimate(rate, max(0.0, centre - half), min(1.0, centre + half), n)


def bootstrap_mean(values: Sequence[float], confidence: float = 0.95, draws: int = 4000, seed: int = 0) -> Estimate:
    """Mean with a percentile bootstrap interval; of paired differences it gives the interval of their mean."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    data = np.asarray(values, dtype=np.float64)
    means = data[np.random.default_rng(seed).integers(0, n, (draws, n))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(data.mean()), float(low), float(high), n)
