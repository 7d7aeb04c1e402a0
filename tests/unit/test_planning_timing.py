"""Timing of joint paths: limits hold everywhere on the curve, whatever the waypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from corft_core.contract import Contract
from corft_core.planning import PlanningError
from corft_core.planning.timing import RISE_S, brake_path, peaks, point_to_point, time_parametrise
from corft_core.trajectory import JointPath

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
NAMES, LIMITS = CONTRACT.robot.joints, CONTRACT.limits
V_MAX, A_MAX, J_MAX = (np.array(v) for v in (LIMITS.velocity_rad_s, LIMITS.acceleration_rad_s2, LIMITS.jerk_rad_s3))
J_PATH = np.minimum(J_MAX, A_MAX / RISE_S)
steps = arrays(np.float64, st.tuples(st.integers(1, 8), st.just(7)), elements=st.floats(-0.5, 0.5, width=32))
unit = arrays(np.float64, 7, elements=st.floats(-1, 1, width=32))


def curve(path: JointPath, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return path.sample(np.linspace(0, path.duration_s, count))


@settings(max_examples=25, deadline=None)
@given(steps, st.floats(0.1, 1.0))
def test_the_curve_through_any_waypoints_keeps_the_limits(moves: np.ndarray, scale: float) -> None:
    waypoints = np.cumsum(np.vstack([np.zeros(7), moves]), axis=0)
    path = time_parametrise(NAMES, waypoints, LIMITS, None, scale, scale)
    _, velocity, acceleration = curve(path)
    assert np.all(np.abs(velocity) <= scale * V_MAX * (1 + 1e-6))
    assert np.all(np.abs(acceleration) <= scale * A_MAX * (1 + 1e-6))
    np.testing.assert_allclose(path.positions[0], waypoints[0], atol=1e-9)
    np.testing.assert_allclose(path.positions[-1], waypoints[-1], atol=2e-6)
    assert path.velocities is not None
    np.testing.assert_allclose(path.velocities[[0, -1]], 0.0, atol=1e-9)
    jerk = np.diff(acceleration, axis=0) / max(path.duration_s / (len(acceleration) - 1), 1e-6)
    assert np.all(np.abs(jerk) <= J_PATH * 1.02)
    assert np.all(np.abs(acceleration[[0, -1]]) <= 1e-6 * A_MAX)


@settings(max_examples=15, deadline=None)
@given(steps)
def test_the_curve_passes_through_every_waypoint(moves: np.ndarray) -> None:
    waypoints = np.cumsum(np.vstack([np.zeros(7), moves]), axis=0)
    path = time_parametrise(NAMES, waypoints, LIMITS)
    dense = path.sample(np.linspace(0.0, path.duration_s, 4000))[0]
    for point in waypoints:
        assert np.min(np.max(np.abs(dense - point), axis=1)) < 2e-3


@settings(max_examples=15, deadline=None)
@given(unit, st.floats(0.05, 0.9))
def test_it_starts_with_the_running_velocity(direction: np.ndarray, speed: float) -> None:
    velocity = 0.8 * speed * V_MAX * direction
    assume(np.max(np.abs(velocity)) > 1e-3)
    # Far enough ahead to stop, and the way the arm moves already.
    path = time_parametrise(NAMES, np.stack([np.zeros(7), velocity * 0.5, velocity]), LIMITS, velocity)
    assert path.velocities is not None
    np.testing.assert_allclose(path.velocities[0], velocity, atol=1e-6)
    fastest, hardest, jerkiest = peaks(path)
    assert np.all(fastest <= V_MAX * (1 + 1e-4)) and np.all(hardest <= A_MAX) and np.all(jerkiest <= J_PATH)


def test_a_single_joint_takes_the_time_of_the_trapezoid() -> None:
    # 1 rad with 2.17 rad/s and 7.5 rad/s²: 0.289 s and 0.314 rad to speed up, the same to slow down, cruise between;
    # a finite jerk adds twice the time in which the acceleration builds up.
    waypoints = np.zeros((2, 7))
    waypoints[1, 0] = 1.0
    duration = time_parametrise(NAMES, waypoints, LIMITS).duration_s
    ramp_s = 2.17 / 7.5
    assert duration == pytest.approx(2 * ramp_s + (1.0 - 2.17 * ramp_s) / 2.17 + 2 * RISE_S, rel=0.02)


def test_the_start_velocity_may_be_the_limit_itself() -> None:
    velocity = np.zeros(7)
    velocity[0] = V_MAX[0]
    waypoints = np.zeros((3, 7))
    waypoints[:, 0] = [0.0, 0.6, 1.2]
    path = time_parametrise(NAMES, waypoints, LIMITS, velocity)
    assert path.velocities is not None
    assert path.velocities[0, 0] == pytest.approx(V_MAX[0], rel=1e-3)


def test_no_room_to_stop_is_an_error() -> None:
    waypoints = np.zeros((2, 7))
    waypoints[1, 0] = 0.01
    with pytest.raises(PlanningError, match="cannot stop before the last waypoint"):
        time_parametrise(NAMES, waypoints, LIMITS, np.array([2.0, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(PlanningError, match="leaves no way to stop"):
        time_parametrise(NAMES, waypoints[:1], LIMITS, np.array([2.0, 0, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5])
def test_scales_outside_their_range_are_refused(scale: float) -> None:
    with pytest.raises(PlanningError, match=r"velocity_scale must be in \(0, 1\]"):
        time_parametrise(NAMES, np.zeros((2, 7)), LIMITS, velocity_scale=scale)


@settings(max_examples=40, deadline=None)
@given(unit, unit)
def test_braking_ends_at_rest_within_the_limits(velocity: np.ndarray, acceleration: np.ndarray) -> None:
    qd, qdd = velocity * V_MAX, acceleration * A_MAX
    path = brake_path(NAMES, np.zeros(7), qd, qdd, LIMITS)
    assert path.velocities is not None and path.accelerations is not None
    np.testing.assert_allclose(path.velocities[0], qd, atol=1e-9)
    np.testing.assert_allclose(path.velocities[-1], 0.0, atol=1e-9)
    np.testing.assert_allclose(path.accelerations[-1], 0.0, atol=1e-6)
    assert np.all(np.abs(path.accelerations) <= A_MAX * (1 + 1e-6))
    jerk = np.abs(np.diff(path.accelerations, axis=0)) / np.diff(path.times_s)[:, None]
    assert np.all(jerk <= J_MAX * (1 + 1e-6))


def test_braking_along_one_direction_stays_on_the_line() -> None:
    qd = 0.5 * np.linspace(0.2, 1.0, 7)
    path = brake_path(NAMES, np.zeros(7), qd, np.zeros(7), LIMITS, step_s=0.01)
    moved = path.positions @ qd / (qd @ qd)
    np.testing.assert_allclose(path.positions, moved[:, None] * qd, atol=1e-6)


def test_braking_at_rest_stays_put() -> None:
    path = brake_path(NAMES, np.ones(7), np.zeros(7), np.zeros(7), LIMITS)
    np.testing.assert_array_equal(path.positions, np.ones((len(path.times_s), 7)))


def test_point_to_point_reaches_its_goal_at_rest() -> None:
    goal = np.linspace(-0.5, 0.5, 7)
    path = point_to_point(NAMES, np.zeros(7), goal, LIMITS, qd=np.full(7, 0.3))
    assert path.velocities is not None and path.accelerations is not None
    np.testing.assert_allclose(path.positions[-1], goal, atol=1e-9)
    np.testing.assert_allclose(path.velocities[0], 0.3, atol=1e-9)
    np.testing.assert_allclose(path.velocities[-1], 0.0, atol=1e-9)
    assert np.all(np.abs(path.velocities) <= V_MAX * (1 + 1e-9))
    assert np.all(np.diff(path.times_s) > 0.001)
