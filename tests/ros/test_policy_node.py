"""policy_node over DDS with a real, tiny checkpoint: stamps, outcomes, refusals."""

from __future__ import annotations

import itertools
import math
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration, Time
from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk, EpisodeEvent, ExecutionStatus
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros.arm_operator import PARAMETERS
from ros.graph import (
    ACTIVATE,
    CONFIGURE,
    CONTRACT,
    DEACTIVATE,
    call,
    change_state,
    ros_context,
    running,
    spin_for,
    spin_until,
)
from ros.tiny_policy import HORIZON, INSTRUCTIONS, REACH_RAD, make_tiny_checkpoint
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from corft_core.contract import Contract

pytestmark = pytest.mark.ros
Result = RunPolicy.Result
SPEED = 2.0
STEP_NS = 10_000_000


class Robot:
    """Publishes /clock at SPEED times real time, at 50 Hz joint states and an idle executor's status, and both cameras'
    images at 20 Hz."""

    def __init__(self, node: Node, contract: Contract) -> None:
        self.node, self.contract, self.now_ns = node, contract, 100 * 10**9
        self.silent: set[str] = set()
        self.frozen: set[str] = set()
        self.turned_rad, self.turning_rad_s = 0.0, 0.0
        self._pictures = random.Random(0)
        self._picture = {camera.name: b"" for camera in contract.cameras}
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._joints = node.create_publisher(JointState, "joint_states", 10)
        self._images = {c.name: node.create_publisher(Image, f"camera_node/{c.name}/image", 10)
                        for c in contract.cameras}
        self._statuses = node.create_publisher(ExecutionStatus, "execution_status", 10)
        self._events = node.create_publisher(EpisodeEvent, "episode_event", 10)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stamp(self) -> Time:
        return Time(sec=self.now_ns // 10**9, nanosec=self.now_ns % 10**9)

    def _run(self) -> None:
        while not self._stop.wait(STEP_NS * 1e-9 / SPEED):
            self.now_ns += STEP_NS
            self._clock.publish(Clock(clock=self.stamp()))
            if self.now_ns % 20_000_000 == 0:
                # The order of joints in the message is not the contract's.
                names = [self.contract.gripper.joint, *reversed(self.contract.robot.joints)]
                self.turned_rad += self.turning_rad_s * 0.02
                *others, last = self.contract.robot.home_rad
                message = JointState(name=names, position=[0.04, last - self.turned_rad, *reversed(others)])
                message.header.stamp = self.stamp()
                self._joints.publish(message)
                if "executor" not in self.silent:
                    self._statuses.publish(ExecutionStatus(state=ExecutionStatus.IDLE))
            if self.now_ns % 50_000_000 == 0:
                for name, publisher in self._images.items():
                    if name not in self.silent:
                        if name not in self.frozen:
                            self._picture[name] = self._pictures.randbytes(128 * 128 * 3)
                        image = Image(height=128, width=128, encoding="rgb8", step=384, data=self._picture[name])
                        image.header.stamp = self.stamp()
                        publisher.publish(image)

    def signal(self, kind: int) -> None:
        event = EpisodeEvent(kind=kind)
        event.header.stamp = self.stamp()
        self._events.publish(event)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class Operator:
    """Action client that remembers chunks and feedback."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.client = ActionClient(node, RunPolicy, "run_policy")
        self.chunks: list[ActionChunk] = []
        self.feedback: list[Any] = []
        node.create_subscription(ActionChunk, "action_chunk", self.chunks.append, 100)

    def send(self, instruction: str = INSTRUCTIONS[0], timeout_s: float = 0.0) -> Any:
        """The goal handle, accepted or not."""
        self.chunks.clear()
        self.feedback.clear()
        goal = RunPolicy.Goal(instruction=instruction)
        goal.timeout = Duration(sec=int(timeout_s), nanosec=round(timeout_s % 1 * 1e9))
        future = self.client.send_goal_async(goal, lambda message: self.feedback.append(message.feedback))
        spin_until(self.node, future.done, "the goal's response")
        return future.result()

    def result(self, handle: Any) -> Any:
        future = handle.get_result_async()
        spin_until(self.node, future.done, "the goal's result")
        return future.result()

    def wait_for_chunks(self, count: int) -> None:
        spin_until(self.node, lambda: len(self.chunks) >= count, f"{count} chunks")


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract.load(CONTRACT)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, contract: Contract) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "co_rft", contract)


@pytest.fixture(scope="module")
def graph(ros_domain: int, contract: Contract, checkpoint: Path) -> Iterator[tuple[Robot, Operator]]:
    """An active policy_node on simulated time, a robot that feeds it and an operator."""
    parameters = {"checkpoint": checkpoint, "contract": CONTRACT, "use_sim_time": True, "torch_threads": 1}
    with ros_context(), running("policy_node", parameters):
        node = rclpy.create_node("policy_test")
        robot = Robot(node, contract)
        try:
            assert change_state(node, "policy_node", CONFIGURE, ACTIVATE) == [True, True]
            operator = Operator(node)
            assert operator.client.wait_for_server(30.0)
            spin_until(node, lambda: node.count_publishers("action_chunk") == 1, "discovery")
            yield robot, operator
        finally:
            robot.stop()


def stamp_ns(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def test_chunks_carry_the_ticks_stamp_and_absolute_joints_by_name(
        graph: tuple[Robot, Operator], contract: Contract) -> None:
    robot, operator = graph
    before_ns = robot.now_ns
    handle = operator.send()
    operator.wait_for_chunks(4)
    spin_until(operator.node, lambda: len(operator.feedback) >= 4, "their feedback")
    robot.signal(EpisodeEvent.SUCCESS)
    result = operator.result(handle)
    assert (result.status, result.result.outcome) == (GoalStatus.STATUS_SUCCEEDED, Result.SUCCESS)
    assert result.result.chunks >= 4
    stamps = [stamp_ns(chunk.header.stamp) for chunk in operator.chunks]
    assert before_ns <= stamps[0]
    assert all((b - a) % 100_000_000 == 0 and b - a >= 500_000_000
               for a, b in itertools.pairwise(stamps)), "every 5 steps of 10 Hz, later only when late"
    assert [chunk.chunk_number for chunk in operator.chunks] == list(range(len(stamps)))
    for chunk in operator.chunks:
        assert chunk.trajectory.header.stamp == chunk.header.stamp
        assert chunk.header.frame_id == "panda_link0" and chunk.policy_id == "tiny-test"
        assert tuple(chunk.trajectory.joint_names) == contract.robot.joints
        times_ns = [stamp_ns(point.time_from_start) for point in chunk.trajectory.points]
        assert times_ns == [(j + 1) * 100_000_000 for j in range(HORIZON)]
        assert len(chunk.gripper) == HORIZON and all(0.0 <= opening <= 1.0 for opening in chunk.gripper)
        assert math.isfinite(chunk.value) and stamp_ns(chunk.inference_time) > 0
        for point in chunk.trajectory.points:
            assert list(point.positions) == pytest.approx(contract.robot.home_rad, abs=REACH_RAD)
    assert [message.chunk_number for message in operator.feedback][:4] == [0, 1, 2, 3]
    for stamp, message in zip(stamps, operator.feedback, strict=False):
        assert 0.0 <= message.latency <= (robot.now_ns - stamp) * 1e-9


def test_a_second_goal_is_rejected_and_cancel_ends_the_chunks(graph: tuple[Robot, Operator]) -> None:
    _, operator = graph
    handle = operator.send()
    assert not operator.send(INSTRUCTIONS[1]).accepted
    operator.wait_for_chunks(1)
    future = handle.cancel_goal_async()
    spin_until(operator.node, future.done, "the cancel response")
    result = operator.result(handle)
    assert (result.status, result.result.outcome) == (GoalStatus.STATUS_CANCELED, Result.CANCELED)
    count = len(operator.chunks)
    spin_for(operator.node, 0.6)
    assert len(operator.chunks) == count


def test_the_timeout_counts_ros_time(graph: tuple[Robot, Operator]) -> None:
    _, operator = graph
    start_s = time.monotonic()
    result = operator.result(operator.send("an instruction nobody taught", timeout_s=2.0)).result
    assert result.outcome == Result.TIMEOUT
    assert 2.0 <= result.elapsed.sec + result.elapsed.nanosec * 1e-9 < 4.0
    assert time.monotonic() - start_s >= 2.0 / SPEED * 0.9
    assert operator.chunks


def test_failure_and_an_event_from_before_the_goal(graph: tuple[Robot, Operator]) -> None:
    robot, operator = graph
    late = EpisodeEvent(kind=EpisodeEvent.SUCCESS)
    late.header.stamp = robot.stamp()
    spin_for(operator.node, 0.1)
    handle = operator.send()
    robot._events.publish(late)
    operator.wait_for_chunks(2)
    robot.signal(EpisodeEvent.FAILURE)
    assert operator.result(handle).result.outcome == Result.FAILURE


def test_a_camera_that_falls_silent_aborts_the_goal_and_is_named(graph: tuple[Robot, Operator]) -> None:
    robot, operator = graph
    handle = operator.send()
    operator.wait_for_chunks(1)
    robot.silent.add("wrist")
    result = operator.result(handle)
    robot.silent.clear()
    assert (result.status, result.result.outcome) == (GoalStatus.STATUS_ABORTED, Result.ABORTED)
    assert "stale observations: wrist" in result.result.reason


def test_a_camera_that_repeats_one_frame_while_the_arm_turns_aborts_the_goal_and_is_named(
        graph: tuple[Robot, Operator]) -> None:
    robot, operator = graph
    handle = operator.send()
    operator.wait_for_chunks(2)
    robot.turning_rad_s = 0.5
    chunks = len(operator.chunks)
    operator.wait_for_chunks(chunks + 6)  # 1.5 rad and more: both cameras work
    robot.frozen.add("front")
    try:
        result = operator.result(handle)
    finally:
        robot.frozen.clear()
        robot.turned_rad = robot.turning_rad_s = 0.0
    assert (result.status, result.result.outcome) == (GoalStatus.STATUS_ABORTED, Result.ABORTED)
    assert "frozen images: front has shown the same picture" in result.result.reason


def test_a_killed_executor_that_comes_back_disabled_aborts_the_goal_and_says_what_to_do(
        graph: tuple[Robot, Operator]) -> None:
    robot, operator = graph
    node = operator.node
    controller = node.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", lambda _: None, 10)
    robot.silent.add("executor")
    try:
        # The successor is started before, so that it is back before the first one's silence ends the goal.
        with running("executor_node", PARAMETERS) as first, \
                running("executor_node", PARAMETERS, name="successor") as successor:
            assert change_state(node, "successor", CONFIGURE) == [True]
            assert change_state(node, "executor_node", CONFIGURE, ACTIVATE) == [True, True]
            spin_until(node, lambda: call(node, SetBool, "executor_node/enable", SetBool.Request(data=True)).success,
                       "an enabled executor")
            handle = operator.send()
            spin_until(node, lambda: any(message.queue > 0.0 for message in operator.feedback), "chunks on their way")
            first.stop(signal.SIGKILL)
            assert change_state(node, "successor", ACTIVATE) == [True]
            result = operator.result(handle)
            assert (result.status, result.result.outcome) == (GoalStatus.STATUS_ABORTED, Result.ABORTED)
            assert "disabled now" in result.result.reason and "send the goal again" in result.result.reason, \
                successor.output
    finally:
        robot.silent.clear()
        node.destroy_subscription(controller)


def test_an_empty_instruction_time_going_back_and_deactivation_abort_with_a_reason(
        graph: tuple[Robot, Operator]) -> None:
    robot, operator = graph
    assert f"learned: {INSTRUCTIONS[0]}" in operator.result(operator.send(" ")).result.reason
    handle = operator.send()
    operator.wait_for_chunks(1)
    robot.now_ns -= 50 * 10**9
    result = operator.result(handle).result
    assert result.outcome == Result.ABORTED and "time went back" in result.reason
    handle = operator.send()
    operator.wait_for_chunks(2)  # observations from before the jump were dropped
    assert change_state(operator.node, "policy_node", DEACTIVATE) == [True]
    assert "deactivated" in operator.result(handle).result.reason
    assert not operator.send().accepted, "an inactive policy takes no goal"
    assert change_state(operator.node, "policy_node", ACTIVATE) == [True]


def test_a_checkpoint_of_another_robot_and_no_checkpoint_are_refused(
        graph: tuple[Robot, Operator], checkpoint: Path, tmp_path: Path) -> None:
    node = graph[1].node
    data = yaml.safe_load(CONTRACT.read_text())
    data["rate_hz"] = 20
    data["streams"]["joint_state"]["topic"] = "other/joint_states"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(data))
    with running("policy_node", {"checkpoint": checkpoint, "contract": tmp_path / "other.yaml"}, name="other") as other:
        assert change_state(node, "other", CONFIGURE) == [False]
        spin_until(node, lambda: "trained for another robot" in other.output)
        assert "rate_hz: 10 != 20" in other.output
        assert "joint_states" not in other.output, "another topic is no other robot"
        value = Parameter("checkpoint", value=str(tmp_path)).to_parameter_msg()
        assert call(node, SetParameters, "other/set_parameters", SetParameters.Request(parameters=[value]))
        assert change_state(node, "other", CONFIGURE) == [False]
        spin_until(node, lambda: "is no checkpoint, it has no config.json" in other.output)
        assert "Traceback" not in other.output
