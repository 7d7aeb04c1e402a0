"""The steps of chunk execution one by one, with numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.execution import Chunk, GripperSchedule, Measured, MotionLimits, Reason, RefusedError, State, Watchdog
from corft_core.execution.brake import brake_along
from corft_core.execution.chunk import checked
from corft_core.execution.limits import worst_excess
from corft_core.execution.options import ExecutorOptions
from corft_core.execution.schedule import Waypoints, in_step, refuse_too_few, remaining, stretched
from corft_core.execution.splice import blend_time, blended, check_rtc, delay_steps, ensembled, running_weight
from corft_core.execution.spline import fit
from corft_core.trajectory import JointPath

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
TWO = ("a", "b")
BOUNDS = np.array([[-1.0, -2.0], [1.0, 2.0]])
LIMITS = MotionLimits(BOUNDS[0], BOUNDS[1], np.array([2.0, 1.0]), np.array([5.0, 4.0]), np.array([200.0, 160.0]))
SECOND = 1_000_000_000


def two(positions, gripper=None, names=TWO, stamp_ns=0, dt_s=0.1) -> Chunk:
    positions = np.asarray(positions, dtype=float)
    return Chunk(stamp_ns, names, positions, np.ones(len(positions)) if gripper is None else np.asarray(gripper), dt_s)


def reason_of(chunk: Chunk) -> tuple[Reason, str]:
    with pytest.raises(RefusedError) as refused:
        checked(chunk, TWO, BOUNDS, 0.02, gripper=True)
    return refused.value.refusal.reason, refused.value.refusal.message


def test_columns_are_taken_by_name():
    chunk = checked(two([[1.5, 0.5]], names=("b", "a")), TWO, BOUNDS, 0.02, True)
    np.testing.assert_array_equal(chunk.positions, [[0.5, 1.5]])


def test_positions_within_the_margin_are_clipped_and_openings_too():
    chunk = checked(two([[1.01, 0.0]], gripper=[1.4]), TWO, BOUNDS, 0.02, True)
    np.testing.assert_array_equal(chunk.positions, [[1.0, 0.0]])
    assert chunk.gripper[0] == 1.0


@pytest.mark.parametrize(("chunk", "reason", "words"), [
    (two([[0, np.nan]]), Reason.NOT_FINITE, "action 0 of b is nan"),
    (two([[0, 0], [0, 0]], gripper=[0, np.inf]), Reason.NOT_FINITE, "action 1 of the gripper is inf"),
    (two([[0, 0]], names=("a", "elbow")), Reason.WRONG_JOINTS, "missing b, unknown elbow"),
    (two([[0, 0]], names=("a", "a")), Reason.WRONG_JOINTS, "missing b"),
    (two([[0, 0], [0, 2.1]]), Reason.POSITION_LIMIT, "action 1 of b is 2.100 rad, allowed -2.000 to 2.000"),
    (two([[0, 0, 0]]), Reason.MALFORMED, "got (1, 3)"),
    (two(np.zeros((0, 2))), Reason.MALFORMED, "got (0, 2)"),
    (two([[0, 0]], gripper=[1, 1]), Reason.MALFORMED, "1 values"),
    (two([[0, 0]], dt_s=0.0), Reason.MALFORMED, "0.001 to 10 s"),
    (two([[0, 0]], dt_s=np.nan), Reason.MALFORMED, "got nan"),
])
def test_a_chunk_that_cannot_be_used_is_refused_with_joint_and_amount(chunk, reason, words):
    seen, message = reason_of(chunk)
    assert seen is reason
    assert words in message


def test_elapsed_actions_are_dropped_by_time():
    # Due at 0.1, 0.2, 0.3, 0.4 s; at 0.27 s the third is less than half a step away.
    waypoints = remaining(two([[0, 0], [0.1, 0], [0.2, 0], [0.3, 0]], gripper=[0, 0.1, 0.2, 0.3]),
                          270_000_000, min_actions=1, horizon_s=3.0)
    assert waypoints.dropped == 3
    np.testing.assert_allclose(waypoints.due_s, [0.13])
    np.testing.assert_allclose(waypoints.positions, [[0.3, 0]])
    np.testing.assert_allclose(waypoints.gripper, [0.3])


def test_too_few_actions_left_is_a_refusal():
    with pytest.raises(RefusedError, match="1 of 2 actions are still to come"):
        refuse_too_few(two([[0, 0], [0, 0]]), 100_000_000, min_actions=2)


def test_a_chunk_goes_on_from_where_the_arm_is():
    chunk = two([[0.1, 0], [0.2, 0], [0.3, 0], [0.4, 0], [0.5, 0]])

    def lag_s(before: float, start: float, lag_rad: float = 0.01) -> float:
        moved = in_step(chunk, np.array([before, 0.0]), np.array([start, 0.0]), 250_000_000, lag_rad)
        return moved.stamp_ns * 1e-9

    assert lag_s(0.0, 0.25) == lag_s(0.0, 0.4) == 0.0, "in step with the chunk, or ahead of it"
    assert lag_s(0.0, 0.0) == pytest.approx(0.24, abs=0.011), "it stood: all of the chunk is still to come"
    assert lag_s(0.0, 0.1) == pytest.approx(0.14, abs=0.011)
    assert lag_s(0.0, 0.1, lag_rad=0.2) == 0.0
    assert lag_s(0.7, 0.95) == 0.0, "beside the chunk, and as fast"
    assert in_step(chunk, np.zeros(2), np.zeros(2), -1, 0.01) is chunk


def test_fast_steps_are_slowed_to_the_velocity_limit_and_jumps_refused():
    start = State.at_rest(np.zeros(2))
    # Joint b moves 0.18 rad in 0.1 s: twice what 90 % of 1 rad/s allows. Later steps keep their length.
    waypoints = Waypoints(np.array([0.1, 0.2, 0.3]), np.array([[0, 0.18], [0, 0.2], [0, 0.2]]), np.ones(3))
    np.testing.assert_allclose(stretched(waypoints, start, LIMITS, TWO, 2.5, 0.5).due_s, [0.2, 0.3, 0.4])
    with pytest.raises(RefusedError, match=r"action 0 of b is 0.180 rad from where"):
        stretched(waypoints, start, LIMITS, TWO, 2.5, 0.1)
    steep = Waypoints(np.array([0.1, 0.2]), np.array([[0, 0], [0.9, 0]]), np.ones(2))
    with pytest.raises(RefusedError, match=r"a would move 0.900 rad in 0.10 s after action 0, 5.0 times"):
        stretched(steep, start, LIMITS, TWO, 2.5, 0.5)


def test_gripper_openings_take_force_when_due_and_are_never_averaged():
    schedule = GripperSchedule()
    schedule.replace([(10, 1.0), (20, 0.0), (30, 1.0)], 0)
    assert schedule.take_due(5) is None
    assert schedule.take_due(10) == 1.0
    assert schedule.take_due(11) is None
    schedule.replace([(25, 0.5), (35, 0.7)], 24)  # 20 stays, 30 goes
    assert schedule.take_due(24) == 0.0
    assert schedule.take_due(40) == 0.7


def test_the_blend_fades_from_the_running_motion_to_the_new_chunk():
    waypoints = Waypoints(np.array([0.05, 0.1, 0.2, 0.3]), np.ones((4, 2)), np.zeros(4))
    running = np.zeros((4, 2))
    weight = running_weight(waypoints, 4, ExecutorOptions(), 0.2)
    mixed, offset = blended(waypoints, running, 1.0, weight, 1.5, TWO)
    np.testing.assert_allclose(mixed.positions[:, 0], [0.15625, 0.5, 1, 1])
    assert offset == 1.0
    np.testing.assert_array_equal(mixed.gripper, waypoints.gripper)
    ended, offset = blended(waypoints, running, 0.01, weight, 1.5, TWO)
    np.testing.assert_array_equal(ended.positions, waypoints.positions)
    assert offset == 0.0
    with pytest.raises(RefusedError, match=r"1.000 rad from the running motion at a, at most 0.300"):
        blended(waypoints, running, 1.0, weight, 0.3, TWO)
    assert not np.any(running_weight(waypoints, 4, ExecutorOptions(mode="receding_horizon"), 0.2))


def test_a_change_of_mind_is_blended_for_as_long_as_the_acceleration_limit_needs():
    waypoints = Waypoints(np.array([0.1, 0.2, 0.3]), np.zeros((3, 2)), np.zeros(3))
    options = ExecutorOptions(blend_s=0.2)
    assert blend_time(waypoints, np.full((3, 2), 0.01), LIMITS, options) == 0.2
    # Joint b: 6 · 0.08 / T² = 0.6 · 4 rad/s².
    assert blend_time(waypoints, np.array([[0, 0.05], [0, 0.08], [0, 0.3]]), LIMITS, options) == pytest.approx(0.2**0.5)
    assert blend_time(waypoints, np.ones((3, 2)), LIMITS, options) == 0.5


def test_real_time_chunking_fades_between_the_measured_delay_and_the_last_s_actions():
    # h = 10, s = 4, and 2 actions were over at the hand-off: of the other 8 the last 4 are new.
    waypoints = Waypoints(np.arange(1, 9) * 0.1, np.ones((8, 2)), np.zeros(8), dropped=2)
    weight = running_weight(waypoints, 10, ExecutorOptions(mode="rtc", execute_steps=4), 0.2)
    c = np.array([4, 3, 2, 1]) / 5
    np.testing.assert_allclose(weight[:4], c * np.expm1(c) / np.expm1(1))
    np.testing.assert_array_equal(weight[4:], 0)
    assert np.all(np.diff(weight) <= 0)


def test_real_time_chunking_is_refused_when_it_would_run_dry():
    assert delay_steps(0.13, 0.06, 0.1) == 2
    check_rtc(horizon=10, execute_steps=5, delay=2)
    for steps in (1, 9):
        with pytest.raises(CorftError, match="set execute_steps to 2 to 8"):
            check_rtc(horizon=10, execute_steps=steps, delay=2)
    with pytest.raises(CorftError, match="no execute_steps fits: the policy must answer within 5 steps"):
        check_rtc(horizon=10, execute_steps=5, delay=6)


def test_temporal_ensemble_weighs_the_oldest_most_and_leaves_the_gripper():
    old = two([[0, 0], [0, 0], [0, 0]], gripper=[0, 0, 0])
    new = two([[1, 1], [1, 1], [1, 1]], gripper=[1, 1, 1], stamp_ns=SECOND // 10)
    mixed = ensembled(new, [old], decay=np.log(2))
    # Times 0.2 and 0.3 s are covered by both, weights 1 (old) and 1/2 (new); 0.4 s by the new chunk only.
    np.testing.assert_allclose(mixed.positions[:, 0], [1 / 3, 1 / 3, 1])
    np.testing.assert_array_equal(mixed.gripper, [1, 1, 1])


def test_the_spline_starts_as_told_passes_the_waypoints_and_ends_at_rest():
    start = State(np.array([0.1, -0.2]), np.array([0.3, 0.1]), np.array([0.5, -0.4]))
    due_s = np.arange(1, 9) * 0.1
    waypoints = np.stack([start.position + start.velocity * t for t in due_s])
    result = fit(TWO, start, due_s, waypoints, 0.4, LIMITS, 0.05, 0.04)
    assert result is not None and result.residual_rad < 0.02
    q, qd, qdd = result.path.sample(0.0)
    np.testing.assert_allclose(q, start.position, atol=1e-9)
    np.testing.assert_allclose(qd, start.velocity, atol=1e-9)
    np.testing.assert_allclose(qdd, start.acceleration, atol=1e-9)
    assert result.path.duration_s == pytest.approx(1.2)
    assert np.all(result.path.velocities[-1] == 0) and np.all(result.path.accelerations[-1] == 0)
    assert worst_excess(result.path, LIMITS) is None


def test_the_spline_keeps_limits_that_the_waypoints_break():
    start = State.at_rest(np.zeros(2))
    result = fit(TWO, start, np.array([0.1, 0.2, 0.3, 0.4]), np.array([[0.5, 0], [1, 0], [1, 0], [1, 0]]), 0.4,
                 LIMITS.scaled(0.95), 0.05, 0.02)
    assert result is not None and result.residual_rad > 0.1
    assert worst_excess(result.path, LIMITS) is None


def test_worst_excess_names_joint_quantity_and_time():
    path = JointPath(TWO, np.array([0.0, 1.0]), np.array([[0, 0], [0, 1.5]]), np.zeros((2, 2)), np.zeros((2, 2)))
    excess = worst_excess(path, LIMITS)
    assert excess is not None
    assert (excess.joint, excess.quantity) == ("b", "velocity") or excess.quantity in ("acceleration", "jerk")
    assert "of b would be" in str(excess)


def test_worst_excess_sees_jerk():
    path = JointPath(TWO, np.array([0.0, 0.02]), np.zeros((2, 2)), np.zeros((2, 2)), np.array([[0.0, 0], [0.0, 3.9]]))
    excess = worst_excess(path, LIMITS)
    assert excess is not None and excess.joint == "b" and excess.quantity == "jerk"


def test_a_stop_along_the_path_stays_on_it():
    start = State.at_rest(np.zeros(2))
    due_s = np.arange(1, 16) * 0.1
    waypoints = np.stack([0.7 * np.sin(due_s), 0.3 * np.sin(2 * due_s)], axis=1)
    path = fit(TWO, start, due_s, waypoints, 0.4, LIMITS.scaled(0.9), 0.05, 0.04).path
    for from_s in (0.3, 0.7, 1.2):
        stop = brake_along(path, from_s, LIMITS)
        assert worst_excess(stop, LIMITS) is None
        for ours, its in zip(stop.sample(0.0), path.sample(from_s), strict=True):
            np.testing.assert_allclose(ours, its, atol=1e-12)
        curve = path.sample(np.linspace(from_s, path.duration_s, 4000))[0]
        away = np.linalg.norm(stop.sample(np.linspace(0, stop.duration_s, 300))[0][:, None] - curve, axis=2).min(axis=1)
        assert away.max() < 5e-4
        assert stop.duration_s < 0.6 * (path.duration_s - from_s)
    # Where nothing shorter keeps the limits the path is left to its own end.
    rest = brake_along(path, 0.7, LIMITS.scaled(0.1))
    assert rest.duration_s == pytest.approx(path.duration_s - 0.7)
    times = np.linspace(0, rest.duration_s, 300)
    np.testing.assert_allclose(rest.sample(times)[1], path.sample(times + 0.7)[1], atol=1e-9)
    after = brake_along(path, path.duration_s + 0.1, LIMITS)
    assert np.all(after.velocities == 0) and np.all(after.positions == path.positions[-1])


def test_watchdog_names_what_is_wrong():
    watchdog = Watchdog(CONTRACT)
    home = np.array(CONTRACT.robot.home_rad)
    measured = Measured(SECOND, home, np.zeros(7))
    assert watchdog.stale(SECOND, None).reason is Reason.NO_JOINT_STATE
    assert watchdog.stale(SECOND + SECOND // 2, measured) is None
    assert watchdog.stale(SECOND + 6 * SECOND // 10, measured).reason is Reason.OBSERVATION_STALE
    off = State.at_rest(home + np.array([0, 0, 0.4, 0, 0, 0, 0]))
    refusal = watchdog.off_track(measured, lambda _: off)
    assert refusal.reason is Reason.TRACKING_ERROR and "panda_joint3 is 0.400 rad" in refusal.message
    assert watchdog.off_track(measured, lambda _: None) is None
    moved = Measured(SECOND + SECOND // 50, home + 0.05, np.zeros(7))
    assert watchdog.teleported(measured, moved) is None
    jumped = Measured(SECOND + SECOND // 50, home + 0.3, np.zeros(7))
    assert watchdog.teleported(measured, jumped).reason is Reason.TELEPORTED
