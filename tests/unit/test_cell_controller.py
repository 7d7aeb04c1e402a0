"""The cell's trajectory controller behaves as joint_trajectory_controller does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.cell.controller import JointTrajectoryController, TrajectoryRejected
from corft_core.trajectory import JointPath

JOINTS = ("a", "b")


def controller(positions=(0.0, 0.0), **options):
    return JointTrajectoryController(JOINTS, np.array(positions), **options)


def path(times, positions, velocities=None, accelerations=None, names=JOINTS):
    return JointPath(names, np.array(times), np.array(positions, dtype=float),
                     None if velocities is None else np.array(velocities, dtype=float),
                     None if accelerations is None else np.array(accelerations, dtype=float))


def test_positions_alone_are_joined_by_lines_from_the_desired_state():
    jtc = controller()
    jtc.accept(path([1.0, 3.0], [[1, -2], [1, 2]]), now_s=10.0)
    assert jtc.desired(10.5).positions == pytest.approx([0.5, -1.0])
    assert jtc.desired(12.0).positions == pytest.approx([1.0, 0.0])
    assert jtc.desired(12.0).velocities == pytest.approx([0.0, 2.0])


def test_velocities_make_a_cubic():
    jtc = controller()
    jtc.accept(path([2.0], [[1, 0]], [[0, 0]]), now_s=0.0)
    # 3 t² − 2 t³ at t = 1/4 and 1/2 of the way
    assert jtc.desired(0.5).positions[0] == pytest.approx(3 / 16 - 2 / 64)
    assert jtc.desired(1.0).positions[0] == pytest.approx(0.5)
    assert jtc.desired(1.0).velocities[0] == pytest.approx(1.5 / 2)


def test_accelerations_make_a_quintic():
    jtc = controller()
    jtc.accept(path([1.0], [[1, 0]], [[0, 0]], [[0, 0]]), now_s=0.0)
    t = 0.3
    assert jtc.desired(t).positions[0] == pytest.approx(10 * t**3 - 15 * t**4 + 6 * t**5)


def test_the_arm_holds_the_last_point():
    jtc = controller()
    jtc.accept(path([1.0], [[1, 2]]), now_s=0.0)
    assert not jtc.done(0.5)
    assert jtc.done(1.0)
    assert jtc.desired(50.0).positions == pytest.approx([1, 2])
    assert jtc.desired(50.0).velocities == pytest.approx([0, 0])


def test_a_new_trajectory_replaces_the_running_one_at_once():
    jtc = controller()
    jtc.accept(path([2.0], [[2, 0]]), now_s=0.0)
    jtc.accept(path([1.0], [[0, 0]]), now_s=1.0)
    assert jtc.desired(1.0).positions == pytest.approx([1, 0])
    assert jtc.desired(1.5).positions == pytest.approx([0.5, 0])


def test_a_start_in_the_future_drops_the_old_trajectory_and_is_kept():
    jtc = controller()
    jtc.accept(path([1.0], [[9, 9]]), now_s=0.0)
    jtc.accept(path([1.0], [[2, 0]]), now_s=0.0, start_s=1.0)
    assert jtc.desired(1.0).positions == pytest.approx([1, 0])
    assert jtc.desired(2.0).positions == pytest.approx([2, 0])


def test_a_start_in_the_past_skips_what_has_passed():
    jtc = controller()
    jtc.accept(path([1.0, 2.0, 3.0], [[1, 0], [2, 0], [3, 0]]), now_s=12.5, start_s=11.0)
    assert jtc.desired(12.5).positions == pytest.approx([1.5, 0])
    assert jtc.desired(14.0).positions == pytest.approx([3, 0])


def test_joints_are_matched_by_name():
    jtc = controller()
    jtc.accept(path([1.0], [[5, 7]], names=("b", "a")), now_s=0.0)
    assert jtc.desired(1.0).positions == pytest.approx([7, 5])


@pytest.mark.parametrize(("bad", "reason"), [
    (lambda: path([1.0], [[1]], names=("a",)), "missing joints"),
    (lambda: path([1.0], [[1, 2, 3]], names=("a", "b", "c")), "unknown joints"),
    (lambda: path([1.0], [[1, 2, 3]], names=("a", "b", "b")), "twice"),
    (lambda: path([0.0, 1.0], [[0, 0], [1, 1]]), "first point"),
    (lambda: path([1.0], [[1, 1]], [[0.5, 0]]), "velocity is not zero"),
])
def test_rejected_trajectories_leave_the_running_one(bad, reason):
    jtc = controller()
    jtc.accept(path([1.0], [[1, 1]]), now_s=0.0)
    with pytest.raises(TrajectoryRejected, match=reason):
        jtc.accept(bad(), now_s=0.5)
    assert jtc.desired(1.0).positions == pytest.approx([1, 1])


def test_a_trajectory_that_ended_is_rejected():
    with pytest.raises(TrajectoryRejected, match=r"ended 2\.000 s ago"):
        controller().accept(path([1.0], [[1, 1]]), now_s=5.0, start_s=2.0)


def test_a_moving_end_can_be_allowed():
    jtc = controller(allow_nonzero_velocity_at_trajectory_end=True)
    jtc.accept(path([1.0], [[1, 1]], [[0.5, 0]]), now_s=0.0)
    assert jtc.desired(2.0).velocities == pytest.approx([0, 0])


values = st.floats(-3.0, 3.0)
points = st.lists(st.tuples(values, values), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(first=points, second=points, handover=st.floats(0.0, 3.0), order=st.sampled_from(["linear", "cubic", "quintic"]))
def test_any_splice_is_continuous_and_ends_at_the_last_point(first, second, handover, order):
    def made(rows):
        zeros = np.zeros((len(rows), 2))
        return path(0.5 * np.arange(1, len(rows) + 1), rows, zeros if order != "linear" else None,
                    zeros if order == "quintic" else None)

    jtc = controller()
    jtc.accept(made(first), now_s=0.0)
    before = jtc.desired(handover)
    jtc.accept(made(second), now_s=handover)
    after = jtc.desired(handover)
    np.testing.assert_allclose(after.positions, before.positions, atol=1e-9)
    if order != "linear":
        np.testing.assert_allclose(after.velocities, before.velocities, atol=1e-9)
    np.testing.assert_allclose(jtc.desired(handover + 10).positions, second[-1], atol=1e-12)
