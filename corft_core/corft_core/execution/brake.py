"""Jerk-limited stops along the path that was checked for collision: the same curve, passed ever more slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.limits import MotionLimits, worst_excess
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
STEP_S = 0.01  # of the stop's knots
FINE_S = 0.0025  # of the samples by which stops are compared
LONGER = 1.1  # from one length to the next that is tried
# Steps to go on as before, and over which the slowing down then builds up and fades. Where the path itself turns
# sharply at the hand-off only a later or a gentler beginning is possible.
COASTS, RAMPS = (0, 3, 6, 10, 15, 20, 30, 45, 65, 90, 130), (4, 8, 16, 32)
APART_S = 0.004  # knots closer together amplify what stamps round
PLAUSIBLE = 1.01  # of a limit at the samples; the whole stop is then checked


def brake_along(path: JointPath, from_s: float, limits: MotionLimits) -> JointPath:
    """``path`` from ``from_s`` on, slowed down to rest: same curve, shortest of the stops tried.

    The rate of progress falls from 1 to 0 with a trapezoidal deceleration; the lengths tried grow by ``LONGER``. Where
    none shorter keeps ``limits`` it is the rest of the path as it is, which ends at rest too. The result starts at 0.
    """
    times: Array = np.arange(from_s, max(path.duration_s, from_s) + FINE_S, FINE_S, dtype=np.float64)
    _, velocity, acceleration = path.sample(times)
    jerk = np.diff(acceleration, axis=0, append=acceleration[-1:]) / FINE_S
    moving = (velocity / limits.acceleration, acceleration / limits.acceleration, velocity / limits.jerk,
              acceleration / limits.jerk, jerk / limits.jerk)
    least = float(np.max(np.abs(velocity[0]) / limits.acceleration)) / STEP_S
    steps = max(8, int(np.ceil(least)))
    while from_s + steps * STEP_S < path.duration_s:
        for coast, ramp in _plausible(moving, steps, least):
            stop = _slowed(path, from_s, steps, coast, ramp)
            if worst_excess(stop, limits) is None:
                return stop
        steps = max(steps + 1, int(steps * LONGER))
    return _rest(path, from_s)


def _plausible(moving: tuple[Array, ...], steps: int, least: float) -> NDArray[np.int64]:
    """(C, 2): coast and ramp of the stops of so many steps that keep the limits at the samples.

    ``moving``: velocity and acceleration as shares of the acceleration limit, and velocity, acceleration and jerk as
    shares of the jerk limit, each (N, J), at samples of the path FINE_S apart.
    """
    shapes = np.array([(coast, ramp) for coast in COASTS for ramp in RAMPS
                       if steps - coast >= max(2 * ramp, 0.8 * least + ramp)], dtype=np.int64).reshape(-1, 2)
    if len(shapes) == 0:
        return shapes
    progress, rate, change, bend = _profile(_knots(steps), steps, shapes[:, :1], shapes[:, 1:])
    index = np.minimum(np.round(progress / FINE_S).astype(int), len(moving[0]) - 1)
    r, c, b = rate[..., None], change[..., None], bend[..., None]
    v_a, a_a, v_j, a_j, j_j = (values[index] for values in moving)
    worst = np.maximum(np.abs(a_a * r**2 + v_a * c), np.abs(j_j * r**3 + 3 * a_j * r * c + v_j * b))
    return shapes[np.max(worst, axis=(1, 2)) <= PLAUSIBLE]


def _knots(steps: int) -> Array:
    return np.arange(steps + 1, dtype=np.float64) * STEP_S


def _profile(times_s: Array, steps: int, coast: Any, ramp: Any) -> tuple[Array, Array, Array, Array]:
    """Progress [s], rate and its two derivatives at ``times_s`` (T,) of a stop of ``steps``; of several, each (C, T),
    for ``coast`` and ``ramp`` (C, 1)."""
    length_s, end_s = ramp * STEP_S, (steps - coast) * STEP_S
    bend = 1.0 / ((steps - coast - ramp) * STEP_S * length_s)
    t = times_s - coast * STEP_S  # since the slowing down began
    rising, falling = np.clip(t, 0.0, length_s), np.clip(t - end_s + length_s, 0.0, length_s)
    level = np.clip(t - length_s, 0.0, None)
    bends = bend * ((t >= end_s - length_s).astype(np.float64) - ((t >= 0) & (t < length_s)))
    rate = 1.0 - bend * (rising**2 / 2 + length_s * level - falling**2 / 2)
    progress = times_s - bend * (rising**3 / 6 + length_s * level * (length_s + level) / 2 - falling**3 / 6)
    return progress, rate, bend * (falling - rising), bends


def _slowed(path: JointPath, from_s: float, steps: int, coast: int, ramp: int) -> JointPath:
    """The stop that takes ``steps`` of STEP_S, of which ``coast`` are as before.

    Knots every STEP_S and where the path has one, since its jerk steps there.
    """
    regular = _knots(steps)
    reached, *_ = _profile(regular, steps, coast, ramp)
    knots = path.times_s[(path.times_s > from_s) & (path.times_s < from_s + reached[-1])] - from_s
    passed = np.interp(knots, reached, regular)
    for _ in range(3):  # Newton
        progress, rate, *_ = _profile(passed, steps, coast, ramp)
        passed = np.clip(passed - (progress - knots) / np.maximum(rate, 0.05), 0.0, regular[-1])
    passed = passed[(passed > APART_S) & (passed < regular[-1] - APART_S)]
    if len(passed):
        near = np.abs(regular[1:-1, None] - passed).min(axis=1) < APART_S
        regular = np.sort(np.concatenate([regular[[0, -1]], regular[1:-1][~near], passed]))
    progress, rate, change, _ = _profile(regular, steps, coast, ramp)
    position, velocity, acceleration = path.sample(from_s + progress)
    velocities = velocity * rate[:, None]
    accelerations = acceleration * (rate**2)[:, None] + velocity * change[:, None]
    velocities[-1] = accelerations[-1] = 0.0
    return JointPath(path.names, regular, position, velocities, accelerations)


def _rest(path: JointPath, from_s: float) -> JointPath:
    """``path`` from ``from_s`` on: its knots after that, one at least, and what it does there."""
    later = path.times_s[path.times_s > from_s + STEP_S / 2]
    times = np.append(from_s, later if len(later) else from_s + STEP_S)
    return JointPath(path.names, times - from_s, *path.sample(times))
