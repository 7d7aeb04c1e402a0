"""Jerk-limited stops: along the path that was checked, or every joint as fast as it can."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.limits import MotionLimits, worst_excess
from corft_core.execution.spline import State
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
STEP_S = 0.01  # of the stop's knots
LONGER = 1.1  # from one length to the next that is tried
# Steps to go on as before, and over which the slowing down then builds up and fades. Where the path itself turns
# sharply at the hand-off only a later or a gentler beginning is possible.
SHAPES = ((0, 4), (0, 12), (6, 4))


def brake_along(path: JointPath, from_s: float, limits: MotionLimits, longest_s: float) -> JointPath | None:
    """``path`` from ``from_s`` on, slowed down to rest: same curve, shortest of the stops tried.

    The rate of progress falls from 1 to 0 with a trapezoidal deceleration; the lengths tried grow by ``LONGER``. None
    when none of up to ``longest_s`` keeps ``limits``. The result starts at time 0 and ends at rest, on ``path``.
    """
    least = float(np.max(np.abs(path.sample(from_s)[1]) / limits.acceleration)) / STEP_S
    steps = max(8, int(np.ceil(least)))
    while steps * STEP_S <= longest_s:
        for coast, ramp in SHAPES:
            if steps - coast >= max(2 * ramp, least + ramp):
                stop = _slowed(path, from_s, steps, coast, ramp)
                if worst_excess(stop, limits) is None:
                    return stop
        steps = max(steps + 1, int(steps * LONGER))
    return None


def _slowed(path: JointPath, from_s: float, steps: int, coast: int, ramp: int) -> JointPath:
    """The stop that takes ``steps`` of STEP_S, of which ``coast`` are as before; knots every STEP_S."""
    borders = np.array([0, coast, coast + ramp, steps - ramp]) * STEP_S
    peak = 1.0 / ((steps - coast - ramp) * STEP_S)
    jerks = np.array([0.0, -peak, 0.0, peak]) / (ramp * STEP_S)
    times: Array = np.arange(steps + 1, dtype=np.float64) * STEP_S
    phase = np.searchsorted(borders, times + 1e-9, side="right") - 1
    # Progress, rate and its derivative where each phase begins.
    begin = np.zeros((4, 3))
    begin[0] = 0.0, 1.0, 0.0
    for k in range(3):
        begin[k + 1] = _constant_jerk(begin[k], jerks[k], borders[k + 1] - borders[k])
    progress, rate, change = _constant_jerk(begin[phase].T, jerks[phase], times - borders[phase])
    position, velocity, acceleration = path.sample(from_s + progress)
    velocities = velocity * rate[:, None]
    accelerations = acceleration * (rate**2)[:, None] + velocity * change[:, None]
    velocities[-1] = accelerations[-1] = 0.0
    return JointPath(path.names, times, position, velocities, accelerations)


def _constant_jerk(state: Array, jerk: Array, t: Array) -> Array:
    """(3, …): position, velocity and acceleration ``t`` after ``state`` (3, …)."""
    s, v, a = state
    return np.stack([s + t * (v + t * (a / 2 + t * jerk / 6)), v + t * (a + t * jerk / 2), a + t * jerk])


def brake_joints(names: tuple[str, ...], start: State, limits: MotionLimits) -> JointPath:
    """From ``start`` to rest, every joint on its own and as fast as its limits allow; leaves the path it was on.

    Three phases of constant jerk a joint, each a whole number of STEP_S, so the knots describe the motion exactly.
    """
    counts, jerks = _phases(start, limits)
    steps = max(2, int(np.max(np.sum(counts, axis=0))))
    borders = np.cumsum(counts, axis=0)
    jerk = np.zeros((steps, len(names)))
    index = np.arange(steps)[:, None]
    for k in range(3):
        begin = borders[k] - counts[k]
        jerk += np.where((index >= begin) & (index < borders[k]), jerks[k], 0.0)
    acceleration = start.acceleration + _summed(STEP_S * jerk)
    velocity = start.velocity + _summed(STEP_S * (acceleration[:-1] + jerk * STEP_S / 2))
    position = start.position + _summed(
        STEP_S * (velocity[:-1] + STEP_S * (acceleration[:-1] / 2 + jerk * STEP_S / 6)))
    velocity[-1] = acceleration[-1] = 0.0
    return JointPath(names, np.arange(steps + 1, dtype=np.float64) * STEP_S, position,
                     velocity, acceleration)


def _summed(steps: Array) -> Array:
    return np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])


def _phases(start: State, limits: MotionLimits) -> tuple[NDArray[np.int64], Array]:
    """Steps (3, J) and jerk (3, J) of the three phases: to the peak deceleration, at it, back to zero."""
    v, a = start.velocity, start.acceleration
    coast = v + a * np.abs(a) / (2 * limits.jerk)
    sign = np.where(coast != 0, np.sign(coast), np.where(a < 0, -1.0, 1.0))
    reserve = np.maximum(sign * v + a**2 / (2 * limits.jerk), 0.0)
    peak = np.maximum(np.minimum(np.sqrt(limits.jerk * reserve), limits.acceleration), -sign * a)
    first = np.maximum((sign * a + peak) / limits.jerk, 0.0)
    hold = np.maximum(reserve - peak**2 / limits.jerk, 0.0) / np.maximum(peak, 1e-12)
    counts = np.ceil(np.stack([first, hold, peak / limits.jerk]) / STEP_S - 1e-9).astype(np.int64)
    counts[[0, 2]] = np.maximum(counts[[0, 2]], 1)
    counts[1] = np.where(peak > 1e-9, counts[1], 0)
    for _ in range(1000):
        n1, n2, n3 = counts * STEP_S
        top = -(v + n1 * a / 2) / (n1 / 2 + n2 + n3 / 2)  # the acceleration in the middle that ends at rest
        jerks = np.stack([(top - a) / n1, np.zeros_like(top), -top / n3])
        broken = np.abs(np.stack([jerks[0], top, jerks[2]])) > (1 + 1e-9) * np.stack(
            [limits.jerk, np.maximum(limits.acceleration, np.abs(a)), limits.jerk])
        if not np.any(broken):
            break
        counts += broken
    return counts, jerks
