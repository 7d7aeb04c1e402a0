"""What is particular to the embedded planner and to a planner in its own process."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from corft_core.contract import Contract
from corft_core.planning import Box, PlanningError, SceneObject, make_planner, pose_matrix
from corft_core.planning.embedded import EmbeddedPlanner
from corft_core.planning.process import ProcessPlanner

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)
POST = SceneObject("post", Box((0.1, 0.1, 0.8)), pose_matrix([0.37, 0.0, 0.4]))
# Of each joint's range, short of its ends: in a corner of all ranges at once 1 in 10 poses is not found.
shares = arrays(np.float64, 7, elements=st.floats(0.03, 0.97))


@pytest.fixture(scope="module")
def planner() -> EmbeddedPlanner:
    return EmbeddedPlanner(CONTRACT)


@settings(max_examples=30, deadline=None, derandomize=True)  # some poses at the edge of reach are not found
@given(shares)
def test_inverse_kinematics_reaches_the_poses_of_the_arm(planner: EmbeddedPlanner, share: np.ndarray) -> None:
    low, high = planner.position_limits
    pose = planner.forward_kinematics(low + share * (high - low))
    found = planner.inverse_kinematics(pose, HOME)
    assert found is not None
    assert np.all(found >= low) and np.all(found <= high)
    np.testing.assert_allclose(planner.forward_kinematics(found), pose, atol=2e-5)


def test_the_jacobian_is_the_derivative_of_the_pose(planner: EmbeddedPlanner) -> None:
    frame = CONTRACT.robot.tool_frame
    pose = planner.forward_kinematics(HOME)
    error, jacobian = planner._arm.error_and_jacobian(HOME, frame, pose)
    np.testing.assert_allclose(error, 0.0, atol=1e-9)
    for joint in range(7):
        step = np.zeros(7)
        step[joint] = 1e-6
        moved = planner.forward_kinematics(HOME + step)
        seen, _ = planner._arm.error_and_jacobian(HOME, frame, moved)
        np.testing.assert_allclose(seen / 1e-6, jacobian[:, joint], atol=1e-4)


def test_joints_are_taken_in_the_contracts_order() -> None:
    order = np.array([6, 0, 3, 1, 5, 2, 4])
    names = tuple(CONTRACT.robot.joints[k] for k in order)
    limits = replace(CONTRACT.limits, **{
        key: tuple(np.array(getattr(CONTRACT.limits, key))[order])
        for key in ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3")})
    permuted = replace(CONTRACT, robot=replace(CONTRACT.robot, joints=names, home_rad=tuple(HOME[order])),
                       limits=limits)
    planner, shuffled = EmbeddedPlanner(CONTRACT), EmbeddedPlanner(permuted)
    np.testing.assert_array_equal(shuffled.position_limits, planner.position_limits[:, order])
    q = np.linspace(-0.5, 0.5, 7) + HOME
    pose = planner.forward_kinematics(q)
    np.testing.assert_allclose(shuffled.forward_kinematics(q[order]), pose, atol=1e-12)
    found = shuffled.inverse_kinematics(pose, q[order] + 0.05)
    assert found is not None
    np.testing.assert_allclose(shuffled.forward_kinematics(found), pose, atol=2e-5)
    shuffled.set_scene([POST])
    assert ("panda_hand", "post") in shuffled.in_collision(HOME[order])


def test_a_closed_gripper_takes_less_room() -> None:
    # A post beside the closed fingers, where the open left finger would be.
    tool = EmbeddedPlanner(CONTRACT).forward_kinematics(HOME)
    beside = tool @ pose_matrix([0.0, 0.045, 0.0])
    post = SceneObject("post", Box((0.01, 0.01, 0.01)), beside)
    wide = EmbeddedPlanner(CONTRACT, scene=[post])
    narrow = EmbeddedPlanner(CONTRACT, scene=[post], gripper_position=0.0)
    assert wide.in_collision(HOME) == [("panda_leftfinger", "post")]
    assert narrow.in_collision(HOME) == []


def test_a_start_within_the_margin_can_be_left(planner: EmbeddedPlanner) -> None:
    start = HOME.copy()
    start[0] = planner.position_limits[1, 0] + 0.015
    path = planner.plan(start, HOME)
    np.testing.assert_allclose(path.positions[0], start)
    with pytest.raises(PlanningError, match="goal is outside the position limits: panda_joint1"):
        planner.plan(HOME, start)


def test_plans_keep_velocity_and_acceleration_limits_all_along(planner: EmbeddedPlanner) -> None:
    obstructed = EmbeddedPlanner(CONTRACT, scene=[POST])
    path = obstructed.plan(HOME + np.array([0.9, 0, 0, 0, 0, 0, 0]), HOME - np.array([0.9, 0, 0, 0, 0, 0, 0]))
    samples = np.array([path.sample(time) for time in np.linspace(0, path.duration_s, 1000)])
    assert np.all(np.abs(samples[:, 1]) <= np.array(CONTRACT.limits.velocity_rad_s) * (1 + 1e-6))
    assert np.all(np.abs(samples[:, 2]) <= np.array(CONTRACT.limits.acceleration_rad_s2) * (1 + 1e-6))
    assert obstructed.first_collision(samples[:, 0]) is None


def test_queries_in_several_threads_agree(planner: EmbeddedPlanner) -> None:
    planner.set_scene([POST])
    low, high = planner.position_limits
    configurations = np.random.default_rng(0).uniform(low, high, size=(200, 7))
    expected = [planner.in_collision(q) for q in configurations]
    answers: dict[int, list] = {}

    def ask(k: int) -> None:
        answers[k] = [planner.in_collision(q) for q in configurations]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    planner.set_scene([])
    assert [answers[k] for k in range(3)] == [expected] * 3


def test_the_brake_path_stops(planner: EmbeddedPlanner) -> None:
    path = planner.brake_path(HOME, np.full(7, 0.5), np.zeros(7))
    assert path.names == CONTRACT.robot.joints and path.velocities is not None
    np.testing.assert_allclose(path.velocities[-1], 0.0, atol=1e-9)


def test_execution_is_left_to_the_controller(planner: EmbeddedPlanner) -> None:
    with pytest.raises(PlanningError, match="does not execute"):
        planner.execute(planner.plan(HOME, HOME + 0.1))


def test_an_unknown_planner_is_named() -> None:
    with pytest.raises(PlanningError, match="no planner 'chomp'; choose one of embedded, moveit"):
        make_planner("chomp", CONTRACT)


def test_a_contract_that_does_not_fit_the_robot_is_refused() -> None:
    robot = replace(CONTRACT.robot, joints=(*CONTRACT.robot.joints[:6], "wrist_joint"))
    with pytest.raises(PlanningError, match="no joint wrist_joint"):
        EmbeddedPlanner(replace(CONTRACT, robot=robot))
    with pytest.raises(PlanningError, match=r"no joint claw \(gripper\.joint of the contract\)"):
        EmbeddedPlanner(replace(CONTRACT, gripper=replace(CONTRACT.gripper, joint="claw")))


def test_a_planner_process_that_dies_is_an_error_and_not_a_hang() -> None:
    planner = ProcessPlanner("embedded", CONTRACT, [POST])
    assert ("panda_hand", "post") in planner.in_collision(HOME)
    os.kill(planner._process.pid, signal.SIGSEGV)
    with pytest.raises(PlanningError, match="ended with code -11 during in_collision"):
        planner.in_collision(HOME)
    planner.close()
    with pytest.raises(PlanningError, match="was closed"):
        planner.in_collision(HOME)


def test_a_planner_that_cannot_start_says_why() -> None:
    with pytest.raises(PlanningError, match="no planner 'nothing'"):
        ProcessPlanner("nothing", CONTRACT)
