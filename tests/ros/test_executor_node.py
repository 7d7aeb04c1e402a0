"""The executor moves the simulated arm where chunks say, refuses what it must, and stops the arm when told to."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from corft_msgs.msg import ExecutionStatus
from corft_msgs.srv import Approach, ResetScene
from diagnostic_msgs.msg import DiagnosticArray
from ros.arm_operator import (
    BRAKED_S,
    BUSY_MACHINE,
    PARAMETERS,
    SCENE,
    STILL_RAD_S,
    Operator,
    enable,
    executor_on,
    operator_on_a_cell,
)
from ros.graph import (
    ACTIVATE,
    CONFIGURE,
    DEACTIVATE,
    NodeProcess,
    call,
    change_state,
    running,
    spin_until,
    state_of,
)
from std_srvs.srv import Trigger

from corft.chunk_messages import pose_message
from corft_core.planning import make_planner
from corft_core.poses import vectors_of

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def operator(ros_domain: int) -> Iterator[Operator]:
    with operator_on_a_cell() as node:
        yield node


@pytest.fixture
def executor(operator: Operator) -> Iterator[NodeProcess]:
    with executor_on(operator) as process:
        yield process


def test_moves_where_the_chunks_say_and_refuses_the_rest(operator, executor):
    health: dict[str, str] = {}

    def remember(message: DiagnosticArray) -> None:
        health.update((item.key, item.value) for status in message.status if status.name == f"/{operator.arm_node}"
                      for item in status.values)

    operator.create_subscription(DiagnosticArray, "/diagnostics", remember, 10)
    home = np.array(operator.contract.robot.home_rad)
    goal = home + np.array([0.25, -0.1, -0.1, 0.15, 0.1, -0.2, 0.2])

    refused = operator.send(operator.chunk(goal))
    assert refused.reason == "DISABLED" and refused.state == ExecutionStatus.DISABLED
    assert operator.watch(0.3) < 0.01

    enable(operator)
    answers = operator.drive(goal, opening=0.0)
    assert all(answer.reason == "" for answer in answers), [answer.message for answer in answers]
    assert max(answer.tracking_error for answer in operator.statuses) < 0.1
    spin_until(operator, lambda: operator.fingers_m < 0.005, "the gripper to close")
    spin_until(operator, lambda: operator.statuses[-1].state == ExecutionStatus.IDLE, "the motion's end")

    broken = operator.chunk(home)
    broken.trajectory.points[4].positions[2] = float("nan")
    answer = operator.send(broken)
    assert (answer.reason, answer.state) == ("NOT_FINITE", ExecutionStatus.IDLE)
    assert "panda_joint3" in answer.message
    broken = operator.chunk(home)
    broken.trajectory.joint_names[0] = "elbow"
    answer = operator.send(broken)
    assert answer.reason == "WRONG_JOINTS" and "panda_joint1" in answer.message and "elbow" in answer.message
    broken = operator.chunk(home)
    broken.trajectory.points[3].positions = broken.trajectory.points[3].positions[:-1]
    assert operator.send(broken).reason == "MALFORMED"
    jump = operator.chunk(goal + 1.5 * np.array([1, 0, 0, 0, 0, 0, 0]), step_rad=1.5)
    answer = operator.send(jump)
    assert answer.reason == "STEP_TOO_LARGE" and "panda_joint1" in answer.message
    old = operator.chunk(home)
    old.header.stamp.sec -= 5
    assert operator.send(old).reason == "STALE"
    assert operator.watch(0.3) < 0.01
    refused = ("DISABLED", "NOT_FINITE", "WRONG_JOINTS", "MALFORMED", "STEP_TOO_LARGE", "STALE")
    spin_until(operator, lambda: all(health.get(f"chunk refused: {reason}") for reason in refused), "their numbers")


def test_stops_above_the_table_when_a_chunk_goes_into_it(operator, executor):
    planner = make_planner("embedded", operator.contract, SCENE)
    into_table = planner.forward_kinematics(operator.position)
    into_table[:3, 3] = (0.5, 0.0, -0.1)
    free = make_planner("embedded", operator.contract)
    goal = free.inverse_kinematics(into_table, operator.position)
    assert goal is not None and planner.in_collision(goal)
    enable(operator)
    reasons = []
    while not reasons or reasons[-1] not in ("COLLISION", "WORKSPACE"):
        assert len(reasons) < 20, reasons
        reason = operator.send(operator.chunk(goal)).reason
        reasons += [reason] if reason not in BUSY_MACHINE else []
        after_ns = operator.stamp_ns + 300_000_000
        spin_until(operator, lambda after_ns=after_ns: operator.stamp_ns > after_ns, "joint states")
    assert reasons[0] == "", "far from the table the chunk is fine"
    operator.wait_still()
    tool_m = planner.forward_kinematics(operator.position)[2, 3]
    assert 0.0 < tool_m < 0.15
    assert planner.in_collision(operator.position) == []


def test_stop_service_brakes_until_enabled_and_home_is_planned(operator, executor):
    enable(operator)
    operator.start_moving()
    assert call(operator, Trigger, f"{operator.arm_node}/stop", Trigger.Request()).success
    assert operator.wait_still() < BRAKED_S
    answer = operator.send(operator.chunk(np.array(operator.contract.robot.home_rad)))
    assert (answer.state, answer.reason) == (ExecutionStatus.STOPPED, "STOP_REQUESTED")
    assert not call(operator, Trigger, f"{operator.arm_node}/home", Trigger.Request()).success
    enable(operator)
    response = call(operator, Trigger, f"{operator.arm_node}/home", Trigger.Request())
    assert response.success, response.message
    home = np.array(operator.contract.robot.home_rad)
    spin_until(operator, lambda: np.max(np.abs(operator.position - home)) < 0.02 and operator.speed < STILL_RAD_S,
               "the arm to be home")
    assert any(status.state == ExecutionStatus.MOVING for status in operator.statuses)


def test_a_reset_scene_is_a_new_start(operator, executor):
    enable(operator)
    operator.drive(operator.position + np.array([0.6, 0, 0, 0, 0, 0, 0]))
    assert call(operator, ResetScene, "cell/reset", ResetScene.Request(scene_id="ind/1")).success
    operator.statuses.clear()
    spin_until(operator, lambda: any(status.reason == "TELEPORTED" for status in operator.statuses), "the new start")
    operator.drive(np.array(operator.contract.robot.home_rad) + 0.1)


def test_deactivation_stops_the_arm(operator, executor):
    enable(operator)
    operator.start_moving()
    assert change_state(operator, operator.arm_node, DEACTIVATE) == [True]
    assert operator.wait_still() < BRAKED_S
    assert operator.watch(0.5) < 0.01
    assert state_of(operator, operator.arm_node) == "inactive"
    assert change_state(operator, operator.arm_node, ACTIVATE) == [True]
    assert operator.send(operator.chunk(operator.position)).reason == "DISABLED"


def test_sigterm_stops_the_arm(operator, executor):
    enable(operator)
    operator.start_moving()
    executor.process.send_signal(signal.SIGTERM)
    assert operator.wait_still() < BRAKED_S
    assert "braking: SHUTDOWN" in executor.output
    assert operator.watch(0.5) < 0.01
    assert executor.wait() == 0


def test_killed_while_moving_it_leaves_an_arm_that_brakes_and_its_successor_waits_for_the_operator(operator):
    with executor_on(operator) as process:
        enable(operator)
        operator.start_moving()
        process.process.kill()
        killed_ns = operator.stamp_ns
        spin_until(operator, lambda: operator.watch(0.5) < 0.01, "the end of the chunk and of its braking tail")
        assert operator.stamp_ns - killed_ns < 6_000_000_000
    stood = operator.position.copy()
    operator.executors += 1
    with running("executor_node", PARAMETERS, name=operator.arm_node):
        assert change_state(operator, operator.arm_node, CONFIGURE, ACTIVATE) == [True, True]
        operator.statuses.clear()
        spin_until(operator, lambda: any(s.state == ExecutionStatus.DISABLED for s in operator.statuses), "its status")
        enable(operator)
        operator.drive(stood - np.sign(stood[0]) * np.array([0.2, 0, 0, 0, 0, 0, 0]))


def test_park_recover_and_approach_are_planned(operator, executor):
    enable(operator)
    planner = make_planner("embedded", operator.contract, SCENE)
    target = planner.forward_kinematics(operator.position)
    target[:3, 3] += (0.05, 0.1, -0.1)
    request = Approach.Request()
    request.target.pose = pose_message(vectors_of(target))
    request.target.header.frame_id = "somewhere"
    refused = call(operator, Approach, f"{operator.arm_node}/approach", request)
    assert not refused.success and "expected the base frame panda_link0" in refused.message
    request.target.header.frame_id = "panda_link0"
    assert call(operator, Approach, f"{operator.arm_node}/approach", request).success
    spin_until(operator, lambda: np.linalg.norm(planner.forward_kinematics(operator.position)[:3, 3] - target[:3, 3])
               < 0.01 and operator.speed < STILL_RAD_S, "the tool to be there")
    assert call(operator, Trigger, f"{operator.arm_node}/park", Trigger.Request()).success
    home = np.array(operator.contract.robot.home_rad)
    spin_until(operator, lambda: np.max(np.abs(operator.position - home)) < 0.02 and operator.speed < STILL_RAD_S,
               "the arm to be parked")
    assert call(operator, Trigger, f"{operator.arm_node}/recover", Trigger.Request()).success
    spin_until(operator, lambda: "recover" in executor.output, "the word that nothing was to be done")
