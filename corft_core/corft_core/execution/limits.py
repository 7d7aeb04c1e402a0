"""The limits that every path leaving the executor keeps, and the check that it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.trajectory import JointPath

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


def dense(path: JointPath) -> tuple[Array, Array, Array, Array]:
    """Times (M,), positions, velocities, accelerations (M, J) of a path, SAMPLES_PER_SEGMENT a segment.

    Interpolated as a joint trajectory controller does: quintic, or cubic where the path has no accelerations.
    """
    if path.velocities is None:
        raise ValueError("the path needs velocities")
    if len(path.times_s) == 1:
        rest = np.zeros_like(path.positions)
        return path.times_s, path.positions, path.velocities, rest if path.accelerations is None else path.accelerations
    span = np.diff(path.times_s)[:, None, None]
    p0, v0 = path.positions[:-1, None], path.velocities[:-1, None]
    p1, v1 = path.positions[1:, None], path.velocities[1:, None]
    t = np.linspace(0.0, 1.0, SAMPLES_PER_SEGMENT + 1)[None, :, None] * span
    d = p1 - p0
    if path.accelerations is None:
        a0 = (6 * d - (4 * v0 + 2 * v1) * span) / span**2
        a1 = (-6 * d + (2 * v0 + 4 * v1) * span) / span**2
    else:
        a0, a1 = path.accelerations[:-1, None], path.accelerations[1:, None]
    c3 = (20 * d - (8 * v1 + 12 * v0) * span - (3 * a0 - a1) * span**2) / (2 * span**3)
    c4 = (-30 * d + (14 * v1 + 16 * v0) * span + (3 * a0 - 2 * a1) * span**2) / (2 * span**4)
    c5 = (12 * d - 6 * (v1 + v0) * span + (a1 - a0) * span**2) / (2 * span**5)
    positions = p0 + t * (v0 + t * (a0 / 2 + t * (c3 + t * (c4 + t * c5))))
    velocities = v0 + t * (a0 + t * (3 * c3 + t * (4 * c4 + t * 5 * c5)))
    accelerations = a0 + t * (6 * c3 + t * (12 * c4 + t * 20 * c5))
    joints = len(path.names)
    times = (path.times_s[:-1, None, None] + t)[:, :, 0].ravel()
    return times, positions.reshape(-1, joints), velocities.reshape(-1, joints), accelerations.reshape(-1, joints)


def worst_excess(path: JointPath, limits: MotionLimits, tolerance: float = 1e-3) -> Excess | None:
    """The worst relative violation along ``path`` (positions: absolute), or None when it keeps the limits.

    ``tolerance`` is relative for velocity and acceleration, rad for positions.
    """
    times, positions, velocities, accelerations = dense(path)
    worst: Excess | None = None
    worst_amount = tolerance
    below, above = limits.low - positions, positions - limits.high
    for quantity, amount, values, allowed in (
            ("position", below, positions, limits.low), ("position", above, positions, limits.high),
            ("velocity", np.abs(velocities) / limits.velocity - 1, velocities, limits.velocity),
            ("acceleration", np.abs(accelerations) / limits.acceleration - 1, accelerations, limits.acceleration)):
        row, joint = np.unravel_index(int(np.argmax(amount)), amount.shape)
        if amount[row, joint] > worst_amount:
            worst_amount = float(amount[row, joint])
            worst = Excess(path.names[joint], quantity, float(values[row, joint]), float(allowed[joint]),
                           float(times[row]))
    return worst
