"""The executor moves the simulated arm where chunks say, refuses what it must, and stops the arm when told to."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from corft_msgs.msg import ActionChunk, ExecutionStatus
from corft_msgs.srv import ResetScene
from rclpy.node import Node
from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, DEACTIVATE, NodeProcess, call, change_state, spin_until, state_of
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from corft.chunk_messages import chunk_message
from corft_core.contract import Contract
from corft_core.planning import make_planner

pytestmark = pytest.mark.ros

SCENE = CONTRACT.parent / "scene.yaml"
HORIZON = 10
STILL_RAD_S = 0.02


class Operator(Node):
    """Sends chunks as a policy would, and watches the arm."""

    def __init__(self) -> None:
        super().__init__("operator")
        self.contract = Contract.load(CONTRACT)
        self.chunks = self.create_publisher(ActionChunk, "action_chunk", 1)
        self.statuses: list[ExecutionStatus] = []
        self.stamp_ns, self.position, self.speed, self.fingers_m = 0, np.zeros(7), 0.0, 0.0
        self.number = 0
        self.executors = 0
        self.create_subscription(JointState, "joint_states", self._on_joints, 1)
        self.create_subscription(ExecutionStatus, "execution_status", self.statuses.append, 10)

    @property
    def arm_node(self) -> str:
        """Name of the executor under test."""
        return f"executor_{self.executors}"

    def _on_joints(self, message: JointState) -> None:
        self.stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        names = list(message.name)
        order = [names.index(name) for name in self.contract.robot.joints]
        self.position = np.array(message.position)[order]
        self.speed = float(np.max(np.abs(np.array(message.velocity)[order])))
        self.fingers_m = message.position[names.index(self.contract.gripper.joint)]

    def chunk(self, target: np.ndarray, opening: float = 1.0, step_rad: float = 0.06) -> ActionChunk:
        """A chunk from the present position towards ``target``, ``step_rad`` an action."""
        away = target - self.position
        length = max(float(np.max(np.abs(away))), 1e-9)
        part = np.minimum(step_rad * np.arange(1, HORIZON + 1) / length, 1.0)
        actions = np.column_stack([self.position + part[:, None] * away, np.full(HORIZON, opening)])
        self.number += 1
        return chunk_message(self.contract, self.stamp_ns, actions, chunk_number=self.number, policy_id="test",
                             value=float("nan"), inference_s=0.0)

    def send(self, message: ActionChunk) -> ExecutionStatus:
        """The first status about this chunk."""
        self.chunks.publish(message)
        found: list[ExecutionStatus] = []

        def seen() -> bool:
            found.extend(s for s in self.statuses if s.chunk_number == message.chunk_number)
            return bool(found)

        spin_until(self, seen, f"a status about chunk {message.chunk_number}")
        return found[0]

    def drive(self, target: np.ndarray, opening: float = 1.0, timeout_s: float = 40.0) -> list[ExecutionStatus]:
        """Send chunks, each from a new observation, until the arm stands at ``target``."""
        answers = []
        deadline_s = time.monotonic() + timeout_s
        while np.max(np.abs(self.position - target)) > 0.02 or self.speed > STILL_RAD_S:
            assert time.monotonic() < deadline_s, f"{self.position} is not {target}; {answers[-1]}"
            answers.append(self.send(self.chunk(target, opening)))
            after_ns = self.stamp_ns + 200_000_000
            spin_until(self, lambda after_ns=after_ns: self.stamp_ns > after_ns, "joint states")
        return answers

    def start_moving(self) -> None:
        """Send one long chunk and wait until the arm is under way."""
        goal = self.position.copy()
        goal[0] += 0.6 if goal[0] < 0 else -0.6
        answer = self.send(self.chunk(goal))
        assert answer.state == ExecutionStatus.EXECUTING, answer
        spin_until(self, lambda: self.speed > 0.2, "the arm to move")

    def wait_still(self) -> float:
        """Simulated seconds until the arm stood."""
        begin_ns = self.stamp_ns
        spin_until(self, lambda: self.speed < STILL_RAD_S, "the arm to stand")
        return (self.stamp_ns - begin_ns) * 1e-9

    def watch(self, duration_s: float) -> float:
        """Largest joint difference [rad] seen during simulated ``duration_s``."""
        begin, until_ns, moved = self.position.copy(), self.stamp_ns + round(duration_s * 1e9), 0.0
        while self.stamp_ns < until_ns:
            rclpy.spin_once(self, timeout_sec=0.1)
            moved = max(moved, float(np.max(np.abs(self.position - begin))))
        return moved


@pytest.fixture(scope="module")
def operator(ros_domain: int) -> Iterator[Operator]:
    rclpy.init()
    node = Operator()
    cell = NodeProcess("cell_node", {"contract": CONTRACT, "image_rate_hz": 0.0})
    try:
        spin_until(node, lambda: node.stamp_ns > 0, "joint states of the cell")
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        cell.stop()


@pytest.fixture
def executor(operator: Operator) -> Iterator[NodeProcess]:
    """An active executor, not enabled, on the running cell with the arm at home."""
    assert call(operator, ResetScene, "cell/reset", ResetScene.Request(scene_id="ind/0")).success
    operator.statuses.clear()
    # A name of its own: discovery keeps the last test's services for a while.
    operator.executors += 1
    # A long hand-off: on a busy machine planning must not come too late.
    process = NodeProcess("executor_node", {"contract": CONTRACT, "scene": SCENE, "use_sim_time": True,
                                            "handoff_s": 0.2}, name=operator.arm_node)
    try:
        assert change_state(operator, operator.arm_node, CONFIGURE, ACTIVATE) == [True, True]
        spin_until(operator, lambda: operator.chunks.get_subscription_count() == 1, "the executor's subscription")
        spin_until(operator, lambda: operator.count_publishers("execution_status") == 1 and operator.statuses, "status")
        operator.wait_still()
        yield process
    finally:
        process.stop()
        print(process.output)


def enable(operator: Operator, on: bool = True) -> None:
    def done() -> bool:  # until the executor has seen a joint state
        return bool(call(operator, SetBool, f"{operator.arm_node}/enable", SetBool.Request(data=on)).success)

    spin_until(operator, done, "the executor to be enabled")
    fresh_ns = operator.stamp_ns + 500_000_000
    spin_until(operator, lambda: operator.stamp_ns > fresh_ns, "joint states")


def test_moves_where_the_chunks_say_and_refuses_the_rest(operator, executor):
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


def test_stops_above_the_table_when_a_chunk_goes_into_it(operator, executor):
    planner = make_planner("embedded", operator.contract, SCENE)
    into_table = planner.forward_kinematics(operator.position)
    into_table[:3, 3] = (0.5, 0.0, -0.1)
    free = make_planner("embedded", operator.contract)
    goal = free.inverse_kinematics(into_table, operator.position)
    assert goal is not None and planner.in_collision(goal)
    enable(operator)
    reasons = []
    for _ in range(14):
        reasons.append(operator.send(operator.chunk(goal)).reason)
        after_ns = operator.stamp_ns + 300_000_000
        spin_until(operator, lambda after_ns=after_ns: operator.stamp_ns > after_ns, "joint states")
    assert reasons[0] == "", "far from the table the chunk is fine"
    assert reasons[-1] in ("COLLISION", "WORKSPACE")
    operator.wait_still()
    tool_m = planner.forward_kinematics(operator.position)[2, 3]
    assert 0.0 < tool_m < 0.15
    assert planner.in_collision(operator.position) == []


def test_stop_service_brakes_until_enabled_and_home_is_planned(operator, executor):
    enable(operator)
    operator.start_moving()
    assert call(operator, Trigger, f"{operator.arm_node}/stop", Trigger.Request()).success
    assert operator.wait_still() < 0.8
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
    assert operator.wait_still() < 0.8
    assert operator.watch(0.5) < 0.01
    assert state_of(operator, operator.arm_node) == "inactive"
    assert change_state(operator, operator.arm_node, ACTIVATE) == [True]
    assert operator.send(operator.chunk(operator.position)).reason == "DISABLED"


def test_sigterm_stops_the_arm(operator, executor):
    enable(operator)
    operator.start_moving()
    executor.process.send_signal(signal.SIGTERM)
    assert operator.wait_still() < 0.8
    assert operator.watch(0.5) < 0.01
    assert executor.wait() == 0
