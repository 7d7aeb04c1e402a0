"""What stops the arm besides chunks: emergency stop, a second policy, no controller; and what a dry run sends."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from corft_msgs.msg import ExecutionStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros.arm_operator import BRAKED_S, BUSY_MACHINE, SCENE, Operator, enable, executor_on, operator_on_a_cell
from ros.graph import call, spin_until
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from corft_core.planning import load_scene, make_planner

pytestmark = pytest.mark.ros
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def operator(ros_domain: int) -> Iterator[Operator]:
    with operator_on_a_cell() as node:
        yield node


def try_to_enable(operator: Operator) -> tuple[bool, str]:
    answer = call(operator, SetBool, f"{operator.arm_node}/enable", SetBool.Request(data=True))
    return answer.success, answer.message


def set_parameter(operator: Operator, name: str, value: float | str) -> bool:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return bool(call(operator, SetParameters, f"{operator.arm_node}/set_parameters", request).results[0].successful)


def wait_for_reason(operator: Operator, reason: str) -> ExecutionStatus:
    operator.statuses.clear()
    spin_until(operator, lambda: any(status.reason == reason for status in operator.statuses), reason)
    return next(status for status in operator.statuses if status.reason == reason)


def test_the_emergency_stop_holds_until_it_is_released_and_the_executor_enabled(operator: Operator) -> None:
    button = operator.create_publisher(Bool, "estop", LATCHED)
    with executor_on(operator):
        enable(operator)
        operator.start_moving()
        button.publish(Bool(data=True))
        status = wait_for_reason(operator, "EMERGENCY_STOP")
        assert status.state in (ExecutionStatus.HOLDING, ExecutionStatus.STOPPED) and "topic estop" in status.message
        assert operator.wait_still() < BRAKED_S
        assert try_to_enable(operator)[0] is False, "while it is pressed"
        released = call(operator, SetBool, f"{operator.arm_node}/estop", SetBool.Request(data=False))
        assert not released.success and "topic estop" in released.message, "the service does not undo the button"
        button.publish(Bool(data=False))
        answer = operator.send(operator.chunk(operator.position))
        assert answer.state == ExecutionStatus.STOPPED, "released is not enabled"
        enable(operator)
        operator.start_moving()
        assert call(operator, SetBool, f"{operator.arm_node}/estop", SetBool.Request(data=True)).success
        assert operator.wait_still() < BRAKED_S
        assert not try_to_enable(operator)[0]
        assert call(operator, SetBool, f"{operator.arm_node}/estop", SetBool.Request(data=False)).success
        enable(operator)
        button.publish(Bool(data=True))
        wait_for_reason(operator, "EMERGENCY_STOP")
    with executor_on(operator):  # another one, with a memory of its own: the button is still pressed
        spin_until(operator, lambda: "topic estop" in try_to_enable(operator)[1], "the latched stop")
    operator.destroy_publisher(button)


def test_an_emergency_stop_that_nobody_released_outlives_sigterm_and_ends_with_ctrl_c(
        operator: Operator, tmp_path: Path) -> None:
    def stops() -> list[str]:
        return [file.read_text() for file in tmp_path.glob("corft/stops/*")]

    for number in (signal.SIGTERM, signal.SIGINT):
        with executor_on(operator, environment={"ROS_HOME": str(tmp_path)}) as executor:
            assert call(operator, SetBool, f"{operator.arm_node}/estop", SetBool.Request(data=True)).success
            assert len(stops()) == 1 and "emergency stop was called" in stops()[0]
            executor.stop(number)
        assert len(stops()) == (number == signal.SIGTERM)
        shutil.rmtree(tmp_path / "corft")


def test_a_required_emergency_stop_that_nobody_publishes_stops_the_arm(operator: Operator) -> None:
    with executor_on(operator, estop_required=True):
        success, message = try_to_enable(operator)
        assert not success and "nobody publishes /estop" in message
        button = operator.create_publisher(Bool, "estop", 1)  # not latched: heard all the same
        spin_until(operator, lambda: try_to_enable(operator)[0], "the publisher to be seen")
        enable(operator)
        operator.start_moving()
        operator.destroy_publisher(button)
        status = wait_for_reason(operator, "EMERGENCY_STOP")
        assert "nobody publishes /estop" in status.message
        assert operator.wait_still() < BRAKED_S


def test_the_chunks_of_a_second_policy_are_refused_by_name_while_the_first_one_drives(operator: Operator) -> None:
    with executor_on(operator):
        enable(operator)
        second = Operator("second_policy")
        try:
            spin_until(second, lambda: second.stamp_ns > 0 and second.chunks.get_subscription_count() == 1)
            goal = operator.position + np.array([0.5, 0, 0, 0, 0, 0, 0])
            other_goal = operator.position - np.array([0.5, 0, 0, 0, 0, 0, 0])
            start = operator.position[0]
            refused = []

            def refuses() -> bool:
                """The second one's chunk, while the first one's is younger than a second: at once, on most machines."""
                operator.statuses.clear()
                first = operator.send(operator.chunk(goal))
                rclpy.spin_once(second, timeout_sec=0.1)
                second.chunks.publish(second.chunk(other_goal))
                operator.watch(0.3)
                refused.extend(s for s in operator.statuses if s.reason == "OTHER_SOURCE" and s.source == "/operator")
                return first.source == "/operator" and len(refused) >= 6

            spin_until(operator, refuses, "the refusals")
            assert "/second_policy sends chunks while /operator drives the arm" in refused[0].message
            assert operator.position[0] > start - 0.01
            operator.watch(1.5)
            spin_until(second, lambda: second.send(second.chunk(other_goal)).reason == "",
                       "the second one's turn, the first being silent")
        finally:
            second.destroy_node()


def test_without_its_controller_the_executor_says_so_and_stays(operator: Operator) -> None:
    with executor_on(operator, controller="nobody", controller_timeout=0.5) as process:
        success, message = try_to_enable(operator)
        assert not success and "nobody listens to /nobody/joint_trajectory" in message
        spin_until(operator, lambda: "nobody does not answer for its parameters" in process.output, "the warning")


def test_a_dry_run_shows_what_it_would_send_and_never_sends_it(operator: Operator) -> None:
    shown: list[JointTrajectory] = []
    sent: list[JointTrajectory] = []
    operator.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", sent.append, 10)
    with executor_on(operator, execute=False, markers=True) as process:
        topic = f"{operator.arm_node}/dry_run/joint_trajectory"
        operator.create_subscription(JointTrajectory, topic, shown.append, 10)
        operator.create_subscription(JointTrajectory, f"{operator.arm_node}/dry_run/joint_trajectory", shown.append, 10)
        markers: list[MarkerArray] = []
        operator.create_subscription(MarkerArray, f"{operator.arm_node}/markers", markers.append, 10)
        spin_until(operator, lambda: operator.count_publishers(topic) == 1, "the dry run's topic")
        operator.watch(0.5)
        start = operator.position.copy()
        goal = start + np.array([0.4, 0, 0, 0, 0, 0, 0])
        for _ in range(4):  # every one starts from where the arm stands, since it does not follow
            assert operator.send(operator.chunk(goal)).reason in ("", *BUSY_MACHINE)
            assert operator.watch(0.3) < 0.005
        spin_until(operator, lambda: len(shown) >= 2 and markers, "trajectories and markers")
        for message in shown:
            assert abs(message.points[0].positions[0] - start[0]) < 0.05
            assert not np.any(message.points[-1].velocities), "at rest at the end"
        assert call(operator, Trigger, f"{operator.arm_node}/home", Trigger.Request()).success
        spin_until(operator, lambda: "panda_joint1 would move most" in process.output, "the line in the log")
        assert "from the measured arm" in process.output
        path = markers[0].markers[0]
        assert path.header.frame_id == "panda_link0" and path.action == Marker.ADD and len(path.points) > 10
    assert sent == []


def test_the_speed_scale_takes_force_while_running(operator: Operator) -> None:
    with executor_on(operator):
        enable(operator)
        assert set_parameter(operator, "speed_scale", 0.25)
        goal = operator.position + np.array([0.6, 0, 0, 0, 0, 0, 0])
        answer = operator.follow(goal, step_rad=0.09)
        assert answer.speed_scale == 0.25 and answer.state == ExecutionStatus.EXECUTING
        start, end_ns = operator.position.copy(), operator.stamp_ns + 1_200_000_000
        while operator.stamp_ns < end_ns:
            rclpy.spin_once(operator, timeout_sec=0.1)
        moved = abs(operator.position[0] - start[0])
        assert 0.02 < moved < 0.5, "at full speed it would be 0.6 rad on"
        assert not set_parameter(operator, "speed_scale", 3.0)


def test_an_object_that_comes_into_the_way_stops_the_arm_before_it(operator: Operator, tmp_path: Path) -> None:
    planner = make_planner("embedded", operator.contract)  # before: it may take seconds on a busy machine
    with executor_on(operator) as process:
        enable(operator)
        goal = operator.position + np.array([0.9, 0, 0, 0, 0, 0, 0])
        at_m = planner.forward_kinematics(goal)[:3, 3].round(3).tolist()
        scene = tmp_path / "scene.yaml"
        scene.write_text(f"frame: panda_link0\nobjects:\n  - {{name: visitor, box_m: [0.1, 0.1, 0.1], position_m: "
                         f"{at_m}}}\n")
        spin_until(operator, lambda: not operator.send(operator.chunk(goal, step_rad=0.03, steps=30)).reason, "a chunk")
        spin_until(operator, lambda: operator.speed > 0.2, "the arm to move")
        assert set_parameter(operator, "scene", str(scene))
        status = wait_for_reason(operator, "SCENE_CHANGED")
        assert "visitor" in status.message
        operator.wait_still()
        planner.set_scene(load_scene(scene, "panda_link0"))
        assert planner.in_collision(goal) and not planner.in_collision(operator.position)
        spin_until(operator, lambda: operator.send(operator.chunk(goal)).reason == "COLLISION",
                   "a chunk that is cut before the object, or refused")
        operator.wait_still()
        assert set_parameter(operator, "scene", "none")
        spin_until(operator, lambda: "scene: empty" in process.output, "the scene")
        assert set_parameter(operator, "scene", str(tmp_path / "missing.yaml"))
        spin_until(operator, lambda: "the scene stays as it was" in process.output, "the refusal")
        operator.drive(goal)


def test_what_the_gripper_holds_is_kept_from_the_table_until_it_is_released(operator: Operator, tmp_path: Path) -> None:
    planner = make_planner("embedded", operator.contract, SCENE)
    pose = planner.forward_kinematics(np.array(operator.contract.robot.home_rad))
    pose[2, 3] -= 0.2
    low = planner.inverse_kinematics(pose, np.array(operator.contract.robot.home_rad))
    assert low is not None and not planner.in_collision(low), "the empty hand may go there"
    holding = tmp_path / "holding.yaml"
    holding.write_text(SCENE.read_text().replace("objects:\n", "objects:\n  - {name: rod, box_m: [0.03, 0.03, 0.3], "
                       "position_m: [0, 0, 0.26], attached_to: panda_hand, touch_links: [panda_leftfinger, "
                       "panda_rightfinger]}\n", 1))
    with executor_on(operator) as process:
        enable(operator)
        assert set_parameter(operator, "scene", str(holding))
        spin_until(operator, lambda: "scene: rod" in process.output, "the rod in the scene")
        answer = operator.follow(low, step_rad=0.03, steps=30)
        assert answer.reason == "COLLISION" and "rod" in answer.message, answer
        operator.wait_still()
        assert planner.forward_kinematics(operator.position)[2, 3] > pose[2, 3] + 0.05, "stopped before the table"
        assert set_parameter(operator, "scene", str(SCENE))
        spin_until(operator, lambda: process.output.count("scene: ") > 1, "the scene without it")
        operator.drive(low)
