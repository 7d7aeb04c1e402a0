"""Time along a joint path: TOPP-RA through waypoints, Ruckig for stops and point-to-point moves.

TOPP-RA: Pham and Pham, "A New Approach to Time-Optimal Path Parameterization Based on Reachability Analysis", 2018.
It switches the acceleration at once; a moving average over the speed along the path makes the jerk finite.
Ruckig: Berscheid and Kröger, "Jerk-limited Real-time Trajectory Generation with Arbitrary Target States", 2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ruckig
import toppra
from toppra import algorithm, constraint
from toppra.interpolator import AbstractGeometricPath

from corft_core.contract import Limits
from corft_core.planning.interface import Array, PlanningError, check_joints, check_path
from corft_core.trajectory import JointPath

# Acceleration builds up over at least this long, whatever the jerk limit: faster changes are lost between the points
# of a sent path, and wear the gears for nothing.
RISE_S = 0.025
STEP_S = 0.02          # between the points of a path
_DISTINCT_RAD = 1e-6   # waypoints closer than this are one
_AT_REST_RAD_S = 1e-6
_GRID_STEP_RAD = 0.03
_MIN_GRID, _MAX_GRID = 30, 400
_ATTEMPTS = 12
_TOLERANCE = 1e-3      # of a limit: a measured start velocity may exceed it by this share, and is clipped
_ROUNDING = 1e-4       # of a limit
_PER_SEGMENT = 8       # samples at which limits are checked


def time_parametrise(names: Sequence[str], waypoints: Array, limits: Limits, start_velocity: Array | None = None,
                     velocity_scale: float = 1.0, acceleration_scale: float = 1.0) -> JointPath:
    """Fast motion along the C2 cubic spline through ``waypoints`` (N, J), from ``start_velocity`` to rest.

    The path carries velocities and accelerations, which make a piecewise quintic: it stays within ``scale * limits``
    of velocity and acceleration, and within the jerk limit (that of the contract, or the acceleration limit over
    RISE_S), at every moment, not just at its points. It begins and ends without acceleration along the path. Waypoints
    that coincide are merged. Raises PlanningError.
    """
    waypoints = check_path(waypoints, names, "waypoints")
    for what, scale in (("velocity_scale", velocity_scale), ("acceleration_scale", acceleration_scale)):
        if not 0 < scale <= 1:
            raise PlanningError(f"{what} must be in (0, 1], got {scale}")
    v_max = np.array(limits.velocity_rad_s) * velocity_scale
    a_max = np.array(limits.acceleration_rad_s2) * acceleration_scale
    j_max = np.minimum(np.array(limits.jerk_rad_s3), np.array(limits.acceleration_rad_s2) / RISE_S)
    velocity = np.zeros(len(names)) if start_velocity is None else check_joints(start_velocity, names, "start velocity")
    fast = [f"{name} {value:.3f} of {limit:.3f} rad/s"
            for name, value, limit in zip(names, velocity, v_max, strict=True) if abs(value) > limit * (1 + _TOLERANCE)]
    if fast:
        raise PlanningError(f"the start velocity exceeds the limit: {'; '.join(fast)}")
    velocity = np.clip(velocity, -v_max, v_max)
    moving = bool(np.any(np.abs(velocity) > _AT_REST_RAD_S))
    points = _distinct(waypoints)
    if len(points) == 1:
        if moving:
            raise PlanningError("a single waypoint leaves no way to stop from the start velocity; "
                                "use brake_path to stop")
        return JointPath(tuple(names), np.zeros(1), points, np.zeros_like(points), np.zeros_like(points))
    # A swing from full acceleration to full deceleration takes the window; a tenth more for the path's own curvature.
    window_s = max(2 * STEP_S, float(np.max(2.2 * a_max / j_max)))
    # Below 1, for what lies between the samples; a start velocity may be the limit itself.
    allowed = np.array([1 + _ROUNDING if moving else 0.9995, 0.999, 0.995])
    shrink_v = shrink_a = 0.99
    worst = np.zeros(3)
    for attempt in range(_ATTEMPTS):
        allowed_v = np.maximum(v_max * shrink_v, np.minimum(v_max, 1.0001 * np.abs(velocity)))
        profile = _solve(names, points, allowed_v, a_max * shrink_a, velocity if moving else None, window_s, attempt)
        path = _smoothed(names, profile, window_s)
        worst = np.array([float(np.max(peak / limit)) for peak, limit in zip(peaks(path), (v_max, a_max, j_max),
                                                                            strict=True)])
        if np.all(worst <= allowed):
            return path
        slower = max(1.0, worst[2] / 0.97) ** (1 / 3)
        shrink_v *= min(1.0, 0.99 / worst[0]) / slower
        shrink_a *= min(1.0, 0.99 / worst[1]) / slower**2
    raise PlanningError(f"no timing within the limits was found: the best reaches {worst[0]:.3f} of the velocity, "
                        f"{worst[1]:.3f} of the acceleration and {worst[2]:.3f} of the jerk limit. The waypoints may "
                        "turn too sharply for the start velocity.")


def peaks(path: JointPath) -> tuple[Array, Array, Array]:
    """Largest |velocity|, |acceleration| and |jerk|, each (J,), of the quintic through a path's points."""
    if path.velocities is None or path.accelerations is None:
        raise ValueError("the path needs velocities and accelerations")
    if len(path.times_s) < 2:
        zeros = np.zeros(len(path.names))
        return zeros, zeros, zeros
    h = np.diff(path.times_s)[:, None, None]
    p0, v0, a0 = path.positions[:-1, None], path.velocities[:-1, None], path.accelerations[:-1, None]
    d, v1, a1 = path.positions[1:, None] - p0, path.velocities[1:, None], path.accelerations[1:, None]
    c3 = (20 * d - (8 * v1 + 12 * v0) * h - (3 * a0 - a1) * h**2) / (2 * h**3)
    c4 = (-30 * d + (14 * v1 + 16 * v0) * h + (3 * a0 - 2 * a1) * h**2) / (2 * h**4)
    c5 = (12 * d - 6 * (v1 + v0) * h + (a1 - a0) * h**2) / (2 * h**5)
    t = np.linspace(0.0, 1.0, _PER_SEGMENT + 1)[None, :, None] * h
    curves = (v0 + t * (a0 + t * (3 * c3 + t * (4 * c4 + t * 5 * c5))),
              a0 + t * (6 * c3 + t * (12 * c4 + t * 20 * c5)),
              6 * c3 + t * (24 * c4 + t * 60 * c5))
    velocity, acceleration, jerk = (np.abs(curve).max(axis=(0, 1)) for curve in curves)
    return velocity, acceleration, jerk


def brake_path(names: Sequence[str], q: Array, qd: Array, qdd: Array, limits: Limits,
               step_s: float = 0.02) -> JointPath:
    """Jerk-limited stop from position, velocity and acceleration (J,) [rad, rad/s, rad/s²], sampled every ``step_s``.

    All joints come to rest together, along a straight line where the limits let them. The path starts at ``q`` at
    time 0 and carries velocities and accelerations; where it ends follows from the limits, so check it.
    Raises PlanningError.
    """
    q, qd, qdd = (check_joints(value, names, what) for value, what in
                  ((q, "position"), (qd, "velocity"), (qdd, "acceleration")))
    request = _ruckig_request(q, qd, qdd, limits)
    request.control_interface = ruckig.ControlInterface.Velocity
    request.target_velocity = [0.0] * len(names)
    return _ruckig_path(names, request, step_s)


def point_to_point(names: Sequence[str], q: Array, goal: Array, limits: Limits, qd: Array | None = None,
                   qdd: Array | None = None, step_s: float = 0.02) -> JointPath:
    """Jerk-limited move from a state to rest at ``goal`` (J,), without regard to obstacles. Raises PlanningError."""
    zeros = np.zeros(len(names))
    q, goal, qd, qdd = (check_joints(value, names, what) for value, what in
                        ((q, "position"), (goal, "goal"), (zeros if qd is None else qd, "velocity"),
                         (zeros if qdd is None else qdd, "acceleration")))
    request = _ruckig_request(q, qd, qdd, limits)
    request.max_velocity = list(limits.velocity_rad_s)
    request.target_position = list(goal)
    return _ruckig_path(names, request, step_s)


def _ruckig_request(q: Array, qd: Array, qdd: Array, limits: Limits) -> ruckig.InputParameter:
    request = ruckig.InputParameter(len(q))
    request.current_position, request.current_velocity, request.current_acceleration = list(q), list(qd), list(qdd)
    request.max_acceleration = list(limits.acceleration_rad_s2)
    request.max_jerk = list(limits.jerk_rad_s3)
    request.synchronization = ruckig.Synchronization.Phase
    return request


def _ruckig_path(names: Sequence[str], request: ruckig.InputParameter, step_s: float) -> JointPath:
    if step_s <= 0:
        raise PlanningError(f"step_s must be positive, got {step_s}")
    trajectory = ruckig.Trajectory(len(names))
    result = ruckig.Ruckig(len(names)).calculate(request, trajectory)
    if result not in (ruckig.Result.Working, ruckig.Result.Finished):
        raise PlanningError(f"no jerk-limited motion from this state: Ruckig says {result}; check that velocity and "
                            "acceleration are within the contract's limits")
    # Even steps, the last not much shorter than the others.
    count = max(1, int(np.ceil(trajectory.duration / step_s - 0.25)))
    times = np.append(step_s * np.arange(count), trajectory.duration) if trajectory.duration > 0 else np.zeros(1)
    samples = np.array([trajectory.at_time(float(time)) for time in times])
    return JointPath(tuple(names), times, samples[:, 0], samples[:, 1], samples[:, 2])


def _distinct(waypoints: Array) -> Array:
    kept = [waypoints[0]]
    for point in waypoints[1:]:
        if np.max(np.abs(point - kept[-1])) > _DISTINCT_RAD:
            kept.append(point)
    return np.array(kept)


@dataclass(frozen=True)
class _Profile:
    """Motion along toppra's ``spline``: distance, speed and constant acceleration (N,) from each time on."""

    spline: Any
    times_s: Array
    distance: Array
    speed: Array
    acceleration: Array

    def at(self, times_s: Array) -> tuple[Array, Array, Array]:
        """Integral of the distance, distance and speed at ``times_s``; at constant speed beyond both ends."""
        h = np.diff(self.times_s)
        s, v, a = self.distance, self.speed, self.acceleration
        area = np.concatenate([[0.0], np.cumsum(h * (s[:-1] + h * (v[:-1] / 2 + h * a[:-1] / 6)))])
        k = np.clip(np.searchsorted(self.times_s, times_s, side="right") - 1, 0, len(s) - 1)
        t = times_s - self.times_s[k]
        a = np.where(t < 0, 0.0, a[k])
        return (area[k] + t * (s[k] + t * (v[k] / 2 + t * a / 6)), s[k] + t * (v[k] + t * a / 2), v[k] + t * a)


class _From(AbstractGeometricPath):   # type: ignore[misc]
    """A spline from a distance on."""

    def __init__(self, spline: Any, begin: float):
        self._spline, self._begin = spline, begin

    def __call__(self, distance: Any, order: int = 0) -> Any:
        return self._spline(distance, order)

    @property
    def dof(self) -> int:
        return int(self._spline.dof)

    @property
    def path_interval(self) -> Array:
        return np.array([self._begin, self._spline.path_interval[1]])

    @property
    def waypoints(self) -> Any:
        return self._spline.waypoints


def _solve(names: Sequence[str], points: Array, v_max: Array, a_max: Array, velocity: Array | None, window_s: float,
           attempt: int) -> _Profile:
    """One TOPP-RA solution. In motion it begins as far along the path as the moving average lags behind."""
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    start: object = (2, np.zeros(len(names)))
    speed = 0.0
    if velocity is not None:
        speed = float(np.linalg.norm(velocity))
        start = (1, velocity / speed)   # unit tangent, so that the speed along the path is the joint speed
    spline = toppra.SplineInterpolator(knots, points, bc_type=(start, (2, np.zeros(len(names)))))
    cells = int(np.clip(knots[-1] / _GRID_STEP_RAD, max(_MIN_GRID, 3 * len(points)), _MAX_GRID)) * (1 + attempt % 3)
    begin = speed * window_s / 2
    grid = np.union1d(np.linspace(min(begin, 0.9 * knots[-1]), knots[-1], cells + 1), knots[knots > begin])
    grid = grid[np.concatenate([[True], np.diff(grid) > 1e-9 * knots[-1]])]
    grid[-1] = knots[-1]
    scheme = constraint.DiscretizationType.Interpolation
    limits = [constraint.JointVelocityConstraint(np.stack([-v_max, v_max], axis=1)),
              constraint.JointAccelerationConstraint(np.stack([-a_max, a_max], axis=1), discretization_scheme=scheme)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver = algorithm.TOPPRA(limits, _From(spline, float(grid[0])), gridpoints=grid, solver_wrapper="seidel")
        _, path_speed, _ = solver.compute_parameterization(speed, 0.0)
    if begin > grid[0] or path_speed is None or not np.all(np.isfinite(path_speed)):
        reason = "cannot stop before the last waypoint from its start velocity" if speed else "turns too sharply"
        raise PlanningError(f"the path through {len(points)} waypoints has no timing within the limits: it {reason}")
    mean = (path_speed[1:] + path_speed[:-1]) / 2
    if np.any(mean <= 0):
        raise PlanningError("the path stops before its end; merge waypoints that nearly coincide")
    spans = np.diff(grid) / mean
    acceleration = np.append(np.diff(path_speed) / spans, 0.0)
    return _Profile(spline, np.concatenate([[0.0], np.cumsum(spans)]), grid, path_speed, acceleration)


def _smoothed(names: Sequence[str], profile: _Profile, window_s: float) -> JointPath:
    """The profile with its speed averaged over the last ``window_s``: the same curve, with finite jerk."""
    total_s = float(profile.times_s[-1]) + window_s
    times = np.linspace(0.0, total_s, max(2, int(np.ceil(total_s / STEP_S)) + 1))
    area, distance, speed = profile.at(times)
    area_before, distance_before, speed_before = profile.at(times - window_s)
    s = np.clip((area - area_before) / window_s, 0.0, profile.distance[-1])
    v, a = (distance - distance_before) / window_s, (speed - speed_before) / window_s
    s[0], s[-1], v[-1], a[0], a[-1] = 0.0, profile.distance[-1], 0.0, 0.0, 0.0
    tangent, curvature = profile.spline(s, 1), profile.spline(s, 2)
    return JointPath(tuple(names), times, profile.spline(s), tangent * v[:, None],
                     curvature * v[:, None] ** 2 + tangent * a[:, None])
