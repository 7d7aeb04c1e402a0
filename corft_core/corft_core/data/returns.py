"""Returns of sparse-reward episodes: reward upsampling, Monte-Carlo return-to-go, prefix returns.

An episode that ended by success is followed by its synthetic copies of the rewarded step (reward upsampling,
CO-RFT: about 5) and then by an absorbing state of value 0. Rewards are scaled by 1 / Σ_{j<k} γ^j, so that the
return of the success step is 1 and every feasible value lies in [0, 1] whatever k is. A truncated episode has no
known future: nothing is claimed beyond its last observation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def upsampling_scale(gamma: float, copies: int) -> float:
    """1 / Σ_{j<copies} γ^j: keeps the success step's return at 1."""
    return 1.0 / float(np.sum(gamma ** np.arange(copies)))


def upsampled_rewards(reward: Floats, terminal: bool, gamma: float, copies: int, tail: int) -> Floats:
    """Scaled rewards of one episode (T,) with `tail` steps after its end, (T + tail,).

    The last step's reward is repeated `copies − 1` times after a terminal end (never after a truncation).
    """
    extended = np.concatenate([reward, np.zeros(tail)])
    if terminal:
        extended[len(reward) : len(reward) + copies - 1] = reward[-1]
    return extended * upsampling_scale(gamma, copies)


def discounted_return_to_go(reward: Floats, gamma: float) -> Floats:
    """Σ_{j≥0} γ^j r_{t+j} for every t of one episode, (T,) → (T,)."""
    result = np.zeros(len(reward))
    running = 0.0
    for t in range(len(reward) - 1, -1, -1):
        running = float(reward[t]) + gamma * running
        result[t] = running
    return result


def prefix_returns(reward: Floats, horizon: int, gamma: float, steps: int) -> Floats:
    """Σ_{j<i} γ^j r_{t+j} for t < steps and prefix lengths i = 1 … H, (steps, H); needs steps + H − 1 rewards."""
    windows = np.lib.stride_tricks.sliding_window_view(reward, horizon)[:steps]
    return np.cumsum(windows * gamma ** np.arange(horizon), axis=1)
