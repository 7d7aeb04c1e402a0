"""What a policy answers. No torch in here: a robot that asks a policy on another machine needs none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ChunkPrediction:
    """What the policy would do from each of B observations.

    `actions` float64 (B, H, A): absolute, as the features' action names say; step j is to be reached (j + 1) / rate_hz
    after the observation. `value` float64 (B,): the critic's value, NaN without a critic. `steps` float64 (B,): how
    many steps of the chunk to execute, None or NaN = the caller's replan interval.

    Of a token policy: `forwards`, passes of its decoder; `kept`, share of the first guess's tokens that stayed;
    `fixed`, share of tokens that were right while one in front of them was still wrong. Means over B.
    """

    actions: NDArray[np.float64]
    value: NDArray[np.float64]
    steps: NDArray[np.float64] | None = None
    forwards: int = 0
    kept: float = math.nan
    fixed: float = math.nan
