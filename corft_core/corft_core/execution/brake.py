"""The fastest stop that keeps acceleration and jerk limits, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.limits import MotionLimits
from corft_core.execution.spline import State
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
MIN_KNOT_S = 1e-3
REST_S = 0.02
# Knots closer than MIN_KNOT_S are merged, which lets the interpolation overshoot by under a percent.
RESERVE = 0.98


def brake(names: tuple[str, ...], start: State, limits: MotionLimits) -> JointPath:
    """Path from ``start`` to rest, every joint as fast as its acceleration and jerk limits allow.

    Three phases of constant jerk a joint, so the knots (every joint's phase borders) describe it exactly. Joints
    stop independently: no stop is shorter, and within the margin the arm stays near the path it was on.
    """
    jerks, ends = _phases(start, limits.scaled(RESERVE))
    knots = np.unique(np.concatenate([[0.0], ends.ravel()]))
    total = float(knots[-1])
    keep = [0.0]
    for knot in knots[1:]:
        if knot - keep[-1] >= MIN_KNOT_S:
            keep.append(float(knot))
    if len(keep) == 1:
        keep.append(max(total, REST_S))
    keep[-1] = max(keep[-1], total)
    times = np.array(keep)
    position, velocity, acceleration = (np.empty((len(times), len(names))) for _ in range(3))
    for row, time in enumerate(times):
        position[row], velocity[row], acceleration[row] = _state_at(time, start, jerks, ends)
    velocity[-1] = 0.0
    acceleration[-1] = 0.0
    return JointPath(names, times, position, velocity, acceleration)


def _phases(start: State, limits: MotionLimits) -> tuple[Array, Array]:
    """Jerk (3, J) and end time (3, J) of the three phases: towards the peak deceleration, at it, back to zero."""
    jerk = limits.jerk
    coast = start.velocity + start.acceleration * np.abs(start.acceleration) / (2 * jerk)
    sign = np.where(coast != 0, np.sign(coast), np.where(start.acceleration < 0, -1.0, 1.0))
    velocity, acceleration = sign * start.velocity, sign * start.acceleration
    reserve = np.maximum(velocity + acceleration**2 / (2 * jerk), 0.0)
    peak = np.minimum(np.sqrt(jerk * reserve), limits.acceleration)
    peak = np.maximum(peak, -acceleration)
    first = np.maximum((acceleration + peak) / jerk, 0.0)
    hold = np.where(peak > 1e-12, np.maximum(reserve - peak**2 / jerk, 0.0) / np.maximum(peak, 1e-12), 0.0)
    last = peak / jerk
    ends = np.cumsum(np.stack([first, hold, last]), axis=0)
    return np.stack([-sign * jerk, np.zeros_like(jerk), sign * jerk]), ends


def _state_at(time: float, start: State, jerks: Array, ends: Array) -> tuple[Array, Array, Array]:
    position, velocity, acceleration = start.position.copy(), start.velocity.copy(), start.acceleration.copy()
    begin = np.zeros_like(position)
    for jerk, end in zip(jerks, ends, strict=True):
        t = np.clip(time - begin, 0.0, end - begin)
        position += t * (velocity + t * (acceleration / 2 + t * jerk / 6))
        velocity += t * (acceleration + t * jerk / 2)
        acceleration += t * jerk
        begin = end
    return position, velocity, acceleration
