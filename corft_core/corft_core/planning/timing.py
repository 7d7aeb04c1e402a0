"""Time along a joint path: TOPP-RA through waypoints, Ruckig for stops and point-to-point moves.

TOPP-RA: Pham and Pham, "A New Approach to Time-Optimal Path Parameterization Based on Reachability Analysis", 2018.
Ruckig: Berscheid and Kröger, "Jerk-limited Real-time Trajectory Generation with Arbitrary Target States", 2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import ruckig
import toppra
from toppra import algorithm, constraint

from corft_core.contract import Limits
from corft_core.planning.interface import Array, PlanningError, check_joints, check_path
from corft_core.trajectory import JointPath

_DISTINCT_RAD = 1e-6   # waypoints closer than this are one
_AT_REST_RAD_S = 1e-6
_GRID_STEP_RAD = 0.03
_MIN_GRID, _MAX_GRID = 30, 400
_ATTEMPTS = 8
_TOLERANCE = 1e-3      # of a limit: a measured start velocity may exceed it by this share, and is clipped
_ROUNDING = 1e-4       # of a limit


def time_parametrise(names: Sequence[str], waypoints: Array, limits: Limits, start_velocity: Array | None = None,
                     velocity_scale: float = 1.0, acceleration_scale: float = 1.0) -> JointPath:
    """Time-optimal motion along the C2 cubic spline through ``waypoints`` (N, J), from ``start_velocity`` to rest.

    The returned positions and velocities make a piecewise cubic that stays within ``scale * limits`` at every
    moment, not just at its points. Waypoints that coincide are merged. Raises PlanningError.
    """
    waypoints = check_path(waypoints, names, "waypoints")
    for what, scale in (("velocity_scale", velocity_scale), ("acceleration_scale", acceleration_scale)):
        if not 0 < scale <= 1:
            raise PlanningError(f"{what} must be in (0, 1], got {scale}")
    v_max = np.array(limits.velocity_rad_s) * velocity_scale
    a_max = np.array(limits.acceleration_rad_s2) * acceleration_scale
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
        return JointPath(tuple(names), np.zeros(1), points, np.zeros_like(points))
    shrink_v = shrink_a = 0.999
    worst_v = worst_a = 0.0
    for attempt in range(_ATTEMPTS):
        allowed_v = np.maximum(v_max * shrink_v, np.minimum(v_max, 1.0001 * np.abs(velocity)))
        path = _solve(names, points, allowed_v, a_max * shrink_a, velocity if moving else None, attempt)
        worst_v, worst_a = (float(np.max(peak / limit)) for peak, limit in zip(cubic_peaks(path), (v_max, a_max),
                                                                              strict=True))
        # Above 1 only by rounding, and only when the start velocity is the limit itself.
        if worst_v <= 1 + _ROUNDING and worst_a <= 1:
            return path
        shrink_v *= min(1.0, 0.999 / worst_v)
        shrink_a *= min(1.0, 0.999 / worst_a)
    raise PlanningError(f"no timing within the limits was found: the best reaches {worst_v:.3f} of the velocity and "
                        f"{worst_a:.3f} of the acceleration limit. The waypoints may turn too sharply for the start "
                        "velocity.")


def cubic_peaks(path: JointPath) -> tuple[Array, Array]:
    """Largest |velocity| and |acceleration| (J,) of the cubic Hermite curve through positions and velocities."""
    if path.velocities is None or len(path.times_s) < 2:
        zeros = np.zeros(len(path.names))
        return zeros, zeros
    h = np.diff(path.times_s)[:, None]
    d = np.diff(path.positions, axis=0) / h
    v0, v1 = path.velocities[:-1], path.velocities[1:]
    a0, a1 = (6 * d - 4 * v0 - 2 * v1) / h, (-6 * d + 2 * v0 + 4 * v1) / h
    peak_v = np.maximum(np.abs(v0), np.abs(v1))
    # The velocity is a parabola; its vertex counts where the acceleration changes sign within the segment.
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(a0 * a1 < 0, v0 - a0**2 * h / (2 * (a1 - a0)), 0.0)
    return np.maximum(peak_v, np.abs(vertex)).max(axis=0), np.maximum(np.abs(a0), np.abs(a1)).max(axis=0)


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


def _solve(names: Sequence[str], points: Array, v_max: Array, a_max: Array, velocity: Array | None,
           attempt: int) -> JointPath:
    """One TOPP-RA solution, at its grid points, where its path acceleration changes."""
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    start: object = (2, np.zeros(len(names)))
    speed = 0.0
    if velocity is not None:
        speed = float(np.linalg.norm(velocity))
        start = (1, velocity / speed)   # unit tangent, so that the speed along the path is the joint speed
    spline = toppra.SplineInterpolator(knots, points, bc_type=(start, (2, np.zeros(len(names)))))
    cells = int(np.clip(knots[-1] / _GRID_STEP_RAD, max(_MIN_GRID, 3 * len(points)), _MAX_GRID)) * (1 + attempt % 3)
    grid = np.union1d(np.linspace(0.0, knots[-1], cells + 1), knots)
    grid = grid[np.concatenate([[True], np.diff(grid) > 1e-9 * knots[-1]])]
    grid[-1] = knots[-1]
    scheme = constraint.DiscretizationType.Interpolation
    limits = [constraint.JointVelocityConstraint(np.stack([-v_max, v_max], axis=1)),
              constraint.JointAccelerationConstraint(np.stack([-a_max, a_max], axis=1), discretization_scheme=scheme)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver = algorithm.TOPPRA(limits, spline, gridpoints=grid, solver_wrapper="seidel")
        _, path_speed, _ = solver.compute_parameterization(speed, 0.0)
    if path_speed is None or not np.all(np.isfinite(path_speed)):
        reason = "cannot stop before the last waypoint from its start velocity" if speed else "turns too sharply"
        raise PlanningError(f"the path through {len(points)} waypoints has no timing within the limits: it {reason}")
    mean = (path_speed[1:] + path_speed[:-1]) / 2
    if np.any(mean <= 0):
        raise PlanningError("the path stops before its end; merge waypoints that nearly coincide")
    times = np.concatenate([[0.0], np.cumsum(np.diff(grid) / mean)])
    velocities = spline(grid, 1) * path_speed[:, None]
    return JointPath(tuple(names), times, spline(grid), velocities)
