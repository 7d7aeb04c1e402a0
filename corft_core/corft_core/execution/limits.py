"""The limits that every path leaving the executor keeps, and the check that it does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.trajectory import JointPath, evaluate

Array = NDArray[np.float64]
SAMPLES_PER_SEGMENT = 8
# Acceleration builds up over at least this long, whatever the jerk limit: faster changes are lost between the knots
# of a streamed path, and wear the gears for nothing.
RISE_S = 0.025


@dataclass(frozen=True)
class MotionLimits:
    """Joint limits, each (J,): positions in rad, velocity rad/s, acceleration rad/s², jerk rad/s³."""

    low: Array
    high: Array
    velocity: Array
    acceleration: Array
    jerk: Array

    @classmethod
    def of(cls, contract: Contract, position_limits: Array) -> MotionLimits:
        """The contract's limits with ``position_limits`` (2, J), as a MotionPlanner gives them (margin included)."""
        limits = contract.limits
        acceleration = np.array(limits.acceleration_rad_s2)
        return cls(np.asarray(position_limits[0], dtype=np.float64), np.asarray(position_limits[1], dtype=np.float64),
                   np.array(limits.velocity_rad_s), acceleration,
                   np.minimum(np.array(limits.jerk_rad_s3), acceleration / RISE_S))

    def scaled(self, factor: float) -> MotionLimits:
        """The same positions, with velocity, acceleration and jerk times ``factor``."""
        return MotionLimits(self.low, self.high, self.velocity * factor, self.acceleration * factor,
                            self.jerk * factor)


    def at_speed(self, share: float) -> MotionLimits:
        """What a motion may use that is passed through at ``share`` of its speed."""
        return MotionLimits(self.low, self.high, self.velocity / share, self.acceleration / share**2,
                            self.jerk / share**3)


@dataclass(frozen=True)
class Excess:
    """The worst violation of a path: ``quantity`` of ``joint`` is ``value`` at ``time_s``, allowed is ``limit``."""

    joint: str
    quantity: str
    value: float
    limit: float
    time_s: float

    def __str__(self) -> str:
        return (f"{self.quantity} of {self.joint} would be {self.value:.3f} at {self.time_s:.2f} s, "
                f"limit {self.limit:.3f}")


def dense(path: JointPath) -> tuple[Array, Array]:
    """Times (M,) and position, velocity, acceleration and jerk (4, M, J), SAMPLES_PER_SEGMENT + 1 a segment.

    Interpolated as a joint trajectory controller does. Both sides of a knot are there: jerk may step. Not in the order
    of time.
    """
    if len(path.times_s) == 1:
        position, velocity, acceleration = (value[None] for value in path.sample(float(path.times_s[0])))
        return path.times_s, np.stack([position, velocity, acceleration, np.zeros_like(position)])
    # In units of each segment's span all segments are sampled at the same places: one product of matrices.
    spans = np.diff(path.times_s)
    scaled = path.coefficients * (spans[None, :] ** np.arange(6)[:, None])[:, :, None]
    values = (_sampler() @ scaled.reshape(6, -1)).reshape(4, SAMPLES_PER_SEGMENT + 1, len(spans), len(path.names))
    values /= (spans[None, :] ** np.arange(4)[:, None])[:, None, :, None]
    times = path.times_s[:-1] + np.linspace(0.0, 1.0, SAMPLES_PER_SEGMENT + 1)[:, None] * spans
    return times.ravel(), values.reshape(4, -1, len(path.names))


@lru_cache(maxsize=1)
def _sampler() -> Array:
    """(4 * (SAMPLES_PER_SEGMENT + 1), 6): position and its derivatives along a segment from its polynomial."""
    unit = np.eye(6)[:, :, None]
    return evaluate(unit, np.linspace(0.0, 1.0, SAMPLES_PER_SEGMENT + 1)).transpose(0, 2, 1).reshape(-1, 6)


def worst_excess(path: JointPath, limits: MotionLimits, tolerance: float = 1e-3) -> Excess | None:
    """The worst relative violation along ``path`` (positions: absolute), or None when it keeps the limits.

    ``tolerance`` is relative for velocity, acceleration and jerk, rad for positions.
    """
    times, states = dense(path)
    lowest, highest = states.min(axis=1), states.max(axis=1)  # (4, J)
    derivatives = (limits.velocity, limits.acceleration, limits.jerk)
    shares = np.maximum(-lowest[1:], highest[1:]) / np.stack(derivatives) - 1
    if max(shares.max(), (limits.low - lowest[0]).max(), (highest[0] - limits.high).max()) <= tolerance:
        return None
    worst: Excess | None = None
    worst_amount = tolerance
    outside = (("position", limits.low - states[0], states[0], limits.low),
               ("position", states[0] - limits.high, states[0], limits.high),
               *((quantity, np.abs(values) / limit - 1, values, limit) for quantity, values, limit in zip(
                   ("velocity", "acceleration", "jerk"), states[1:], derivatives, strict=True)))
    for quantity, amount, values, allowed in outside:
        row, joint = np.unravel_index(int(np.argmax(amount)), amount.shape)
        if amount[row, joint] > worst_amount:
            worst_amount = float(amount[row, joint])
            worst = Excess(path.names[joint], quantity, float(values[row, joint]), float(allowed[joint]),
                           float(times[row]))
    return worst
