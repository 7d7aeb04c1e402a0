"""What the fault campaign checks limits on: the commands it passed on, and the controller's word where they part."""

from __future__ import annotations

import numpy as np
import pytest
from controller_world import CONTRACT, HOME
from faults.setpoint import TOLERANCE, Motion, Setpoint

from corft_core.cell.controller import JointTrajectoryController
from corft_core.trajectory import JointPath

LATE_S, END_S, PUBLISHED_S = 0.3, 1.0, 0.02


def swing(start: np.ndarray, by_rad: float, duration_s: float) -> JointPath:
    """To ``by_rad`` from ``start``, from rest to rest."""
    goal = start.copy()
    goal[0] += by_rad
    still = np.zeros((1, len(start)))
    return JointPath(CONTRACT.robot.joints, np.array([duration_s]), goal[None], still, still)


def judged(arrival_s: float | None, publishes: bool) -> Motion:
    """Two commands pass the campaign, at 0 and LATE_S; the second reaches the controller at ``arrival_s`` only, or
    never."""
    setpoint, controller = Setpoint(CONTRACT), JointTrajectoryController(CONTRACT.robot.joints, HOME)
    setpoint.arm_at(HOME)
    first, second = swing(HOME, 0.3, 0.9), swing(HOME, -0.02, 0.5)
    for step in range(round(END_S / PUBLISHED_S) + 1):
        now_s = 1.0 + step * PUBLISHED_S
        if step == 0:
            setpoint.command(first, now_s, now_s)
            controller.accept(first, now_s, now_s)
        if np.isclose(now_s, 1.0 + LATE_S):
            setpoint.command(second, now_s, now_s)
        if arrival_s is not None and np.isclose(now_s, 1.0 + arrival_s):
            controller.accept(second, now_s, 1.0 + LATE_S)
        setpoint.advance(now_s)
        if publishes:
            state = controller.desired(now_s)
            setpoint.published(now_s, state.positions, state.velocities, state.accelerations)
    return setpoint.take()


def test_what_passed_counts_while_the_controller_says_the_same() -> None:
    plain, heard = judged(LATE_S, publishes=False), judged(LATE_S, publishes=True)
    assert heard.published_s == 0.0
    np.testing.assert_array_equal(heard.accelerations, plain.accelerations)


def test_a_command_that_never_arrived_is_not_judged() -> None:
    motion = judged(None, publishes=True)
    assert motion.published_s == pytest.approx(END_S - LATE_S, abs=2 * PUBLISHED_S)
    np.testing.assert_allclose(motion.positions[-1], swing(HOME, 0.3, 0.9).positions[-1], atol=1e-6)
    assert max(motion.shares(CONTRACT).values()) <= TOLERANCE
    assert judged(None, publishes=False).positions[-1][0] < HOME[0] + 0.1, "it is, without the controller's word"


def test_a_jump_that_only_the_controller_made_is_a_violation() -> None:
    motion = judged(0.7, publishes=True)  # 0.1 s before its end: the controller has to hurry
    assert motion.published_s > 0.2
    assert max(motion.shares(CONTRACT).values()) > 2.0
    np.testing.assert_allclose(motion.positions[-1][0], HOME[0] - 0.02, atol=1e-6)
