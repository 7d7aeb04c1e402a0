"""A cubic spline from the running motion through a chunk's waypoints to rest, within joint limits (steps 4 and 7).

Uniform cubic B-spline with knots every ``knot_s``: twice continuously differentiable, and what a joint trajectory
controller interpolates from positions, velocities and accelerations at the knots is exactly this spline. Per joint,

    minimise  Σ_j dt · (q(t_j) − w_j)²  +  smoothing_s⁶ · ∫ (d³q/dt³)² dt

over the control points, with position, velocity and acceleration of the start given and rest at the end (the braking
tail). Velocity, acceleration and jerk of a B-spline lie in the hull of its control points' differences, so the limits
are linear constraints; the quadratic program is only solved for joints that would break one without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from corft_core.execution.limits import MotionLimits
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
SOLVED = (1, 2)  # daqp: optimal, optimal with soft constraints


@dataclass(frozen=True)
class State:
    """Joint positions, velocities and accelerations, each (J,)."""

    position: Array
    velocity: Array
    acceleration: Array

    @classmethod
    def at_rest(cls, position: Array) -> State:
        """Standing at ``position``."""
        zeros = np.zeros_like(position)
        return cls(np.array(position, dtype=np.float64), zeros, zeros.copy())


@dataclass(frozen=True)
class Fit:
    """The spline sampled at its knots, from time 0, and the largest distance to a waypoint with its joint."""

    path: JointPath
    residual_rad: float
    residual_joint: int
    residual_waypoint: int


@dataclass(frozen=True)
class _Differences:
    """Maps of n segments: control points = fixed·(3,) + free·(n-2,); first, second, third differences of both.

    ``bending`` (n-2, n-2) and ``bending_start`` (n-2, 3): the third differences' part of the normal equations.
    """

    fixed: tuple[Array, ...]
    free: tuple[Array, ...]
    bending: Array
    bending_start: Array


@lru_cache(maxsize=64)
def _differences(segments: int) -> _Differences:
    points = segments + 3
    fixed, free = np.zeros((points, 3)), np.zeros((points, segments - 2))
    fixed[:3] = np.eye(3)
    free[3:segments, :segments - 3] = np.eye(segments - 3)
    free[segments:, -1] = 1.0  # three equal control points: at rest at the end
    all_fixed = tuple(np.diff(fixed, order, axis=0) for order in range(4))
    all_free = tuple(np.diff(free, order, axis=0) for order in range(4))
    return _Differences(all_fixed, all_free, all_free[3].T @ all_free[3], all_free[3].T @ all_fixed[3])


def _start_points(start: State, knot_s: float) -> Array:
    """The three control points (3, J) that give the start state."""
    middle = start.position - start.acceleration * knot_s**2 / 6
    bend = start.acceleration * knot_s**2 / 2
    return np.stack([middle + bend - start.velocity * knot_s, middle, middle + bend + start.velocity * knot_s])


def _basis(times_s: Array, knot_s: float, segments: int) -> Array:
    """(M, n+3) values of the basis functions at ``times_s``."""
    index = np.clip((times_s / knot_s).astype(int), 0, segments - 1)
    u = times_s / knot_s - index
    values = np.stack([(1 - u)**3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1) / 6
    basis = np.zeros((len(times_s), segments + 3))
    basis[np.arange(len(times_s))[:, None], index[:, None] + np.arange(4)] = values
    return basis


def fit(names: tuple[str, ...], start: State, due_s: Array, waypoints: Array, tail_s: float, limits: MotionLimits,
        knot_s: float, smoothing_s: float) -> Fit | None:
    """Spline from ``start`` at 0 past ``waypoints`` (M, J) at ``due_s`` (M,) to rest ``tail_s`` after the last.

    None when no such spline keeps ``limits``. ``due_s`` is increasing and positive.
    """
    segments = max(4, int(np.ceil((due_s[-1] + tail_s) / knot_s - 1e-9)))
    maps = _differences(segments)
    first = _start_points(start, knot_s)
    basis = _basis(due_s, knot_s, segments)
    step_s = float(due_s[-1] / len(due_s))
    tracking = basis @ maps.free[0]
    weight = smoothing_s**6 / knot_s**5
    hessian = step_s * tracking.T @ tracking + weight * maps.bending
    hessian[np.diag_indices_from(hessian)] += 1e-12
    gradient = step_s * tracking.T @ (basis @ maps.fixed[0] @ first - waypoints) + weight * maps.bending_start @ first
    unlimited = np.linalg.solve(hessian, -gradient).astype(np.float64)
    free = _within_limits(unlimited, first, hessian, gradient, maps, limits, knot_s)
    if free is None:
        return None
    points = maps.fixed[0] @ first + maps.free[0] @ free
    error = np.abs(basis @ points - waypoints)
    waypoint, joint = np.unravel_index(int(np.argmax(error)), error.shape)
    position = (points[:-2] + 4 * points[1:-1] + points[2:]) / 6
    velocity = (points[2:] - points[:-2]) / (2 * knot_s)
    acceleration = (points[:-2] - 2 * points[1:-1] + points[2:]) / knot_s**2
    position[0], velocity[0], acceleration[0] = start.position, start.velocity, start.acceleration
    velocity[-1] = acceleration[-1] = 0.0
    path = JointPath(names, (np.arange(segments + 1) * knot_s).astype(np.float64), position, velocity, acceleration)
    return Fit(path, float(error[waypoint, joint]), int(joint), int(waypoint))


def _within_limits(free: Array, first: Array, hessian: Array, gradient: Array, maps: _Differences,
                   limits: MotionLimits, knot_s: float) -> Array | None:
    """``free`` with the joints that break a limit solved again with the limits as constraints; None if infeasible."""
    # Rows that involve a free control point: position from control point 3, its k-th difference from row 3 - k.
    rows = [slice(3 - order, None) for order in range(4)]
    bounds = (None, limits.velocity * knot_s, limits.acceleration * knot_s**2, limits.jerk * knot_s**3)
    offsets = [maps.fixed[order][rows[order]] @ first for order in range(4)]
    moving = [maps.free[order][rows[order]] for order in range(4)]
    values = [offset + matrix @ free for offset, matrix in zip(offsets, moving, strict=True)]
    broken = np.any((values[0] < limits.low) | (values[0] > limits.high), axis=0)
    for order in (1, 2, 3):
        broken |= np.any(np.abs(values[order]) > bounds[order], axis=0)
    if not np.any(broken):
        return free
    import daqp  # here: what only needs this package's types, for example a launch file, must not need the solver

    free = free.copy()
    # Position bounds are bounds of the free control points themselves, the rest are rows scaled to ±1.
    for joint in np.flatnonzero(broken):
        scales = [1.0 / bounds[order][joint] for order in (1, 2, 3)]  # type: ignore[index]
        matrix = np.concatenate([moving[order] * scale for order, scale in zip((1, 2, 3), scales, strict=True)])
        offset = np.concatenate([offsets[order][:, joint] * scale
                                 for order, scale in zip((1, 2, 3), scales, strict=True)])
        count = len(hessian)
        upper = np.concatenate([np.full(count, limits.high[joint]), 1.0 - offset])
        lower = np.concatenate([np.full(count, limits.low[joint]), -1.0 - offset])
        solution, _, status, _ = daqp.solve(hessian, np.ascontiguousarray(gradient[:, joint]), matrix, upper, lower,
                                            iter_limit=2000)
        if status not in SOLVED:
            return None
        free[:, joint] = solution
    return free
