"""cell_node in the place of a robot: rates, stamps, commands, resets, namespaces, signals."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from corft_msgs.srv import ResetScene
from geometry_msgs.msg import PoseArray
from graph import CONTRACT, NodeProcess, call, ros_context, running, spin_for, spin_until
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from corft.cell.messages import path_of, trajectory_message
from corft_core.cell.controller import TrajectoryRejected
from corft_core.cell.scene import make_scene
from corft_core.contract import Contract
from corft_core.trajectory import JointPath

pytestmark = pytest.mark.ros

JOINTS = Contract.load(CONTRACT).robot.joints


def seconds(stamp) -> float:
    return stamp.sec + stamp.nanosec * 1e-9


class Listener:
    """Hears a cell and talks to it."""

    def __init__(self, node: Node, namespace: str = "") -> None:
        self.node, self.namespace = node, namespace
        self.heard: dict[str, list] = {}
        for topic, kind in (("joint_states", JointState), ("front_camera/image_raw", Image),
                            ("wrist_camera/image_raw", Image), ("front_camera/camera_info", CameraInfo),
                            ("cell/success", Bool), ("cell/objects", PoseArray)):
            messages = self.heard[topic] = []
            node.create_subscription(kind, f"{namespace}/{topic}", messages.append, 50)
        self.arm = node.create_publisher(JointTrajectory, f"{namespace}/arm_controller/joint_trajectory", 10)
        self.gripper = node.create_publisher(Float64MultiArray, f"{namespace}/gripper_controller/commands", 10)

    def wait_ready(self) -> None:
        spin_until(self.node, lambda: all(self.heard.values()), "all topics of the cell")
        spin_until(self.node, lambda: self.arm.get_subscription_count() and self.gripper.get_subscription_count(),
                   "the cell's controllers")

    def clear(self) -> None:
        for messages in self.heard.values():
            messages.clear()

    def joints(self) -> np.ndarray:
        message = self.heard["joint_states"][-1]
        return np.array([message.position[message.name.index(name)] for name in JOINTS])

    def finger(self) -> float:
        message = self.heard["joint_states"][-1]
        return message.position[message.name.index("panda_finger_joint1")]

    def reset(self, scene_id: str) -> ResetScene.Response:
        response = call(self.node, ResetScene, f"{self.namespace}/cell/reset", ResetScene.Request(scene_id=scene_id))
        spin_for(self.node, 0.3)  # samples from before the reset are still queued
        self.clear()
        self.wait_ready()
        return response

    def send(self, offsets, time_s: float = 0.5, names=JOINTS) -> np.ndarray:
        goal = self.joints() + np.asarray(offsets)
        message = trajectory_message(JointPath(tuple(names), np.array([time_s]), goal[None]))
        self.arm.publish(message)
        return goal


@pytest.fixture(scope="module")
def cell(ros_domain) -> Iterator[tuple[NodeProcess, Listener]]:
    with ros_context(), running("cell_node", {"contract": CONTRACT, "real_time_factor": 2.0}) as process:
        node = rclpy.create_node("listener")
        try:
            listener = Listener(node)
            listener.wait_ready()
            yield process, listener
            assert process.stop(signal.SIGTERM) == 0
        finally:
            node.destroy_node()


def test_topics_keep_their_rates_and_are_stamped_with_simulated_time(cell):
    _, listener = cell
    clocks: list[Clock] = []
    subscription = listener.node.create_subscription(Clock, "/clock", clocks.append, 50)
    listener.clear()
    spin_until(listener.node, lambda: len(listener.heard["joint_states"]) > 100, "two simulated seconds")
    listener.node.destroy_subscription(subscription)
    for topic, period_s in (("joint_states", 0.02), ("front_camera/image_raw", 0.05),
                            ("wrist_camera/image_raw", 0.05), ("front_camera/camera_info", 0.05),
                            ("cell/objects", 0.1)):
        stamps = np.array([seconds(message.header.stamp) for message in listener.heard[topic]])
        assert np.median(np.diff(stamps)) == pytest.approx(period_s, abs=1e-6), topic
    times = [seconds(message.clock) for message in clocks]
    assert len(times) > 50
    assert all(a < b for a, b in itertools.pairwise(times))


def test_images_and_camera_infos_agree(cell):
    _, listener = cell
    image, info = listener.heard["front_camera/image_raw"][-1], listener.heard["front_camera/camera_info"][-1]
    assert (image.height, image.width, image.encoding, image.step) == (128, 128, "rgb8", 384)
    assert len(image.data) == 128 * 384
    assert image.header.frame_id == info.header.frame_id == "front_camera_optical_frame"
    assert info.k[0] == info.k[4] > 100
    assert (info.k[2], info.k[5]) == (63.5, 63.5)
    assert info.p[0] == info.k[0]


def test_a_trajectory_moves_the_arm_and_the_gripper_follows_commands(cell):
    _, listener = cell
    assert listener.reset("ind/4").success
    goal = listener.send([0.3, 0.1, 0, 0, 0, -0.1, 0.2])
    listener.gripper.publish(Float64MultiArray(data=[0.01]))
    spin_until(listener.node, lambda: np.abs(listener.joints() - goal).max() < 0.01, "the arm to arrive")
    spin_until(listener.node, lambda: abs(listener.finger() - 0.01) < 0.002, "the fingers to arrive")


def test_bad_commands_are_rejected_and_the_arm_stays(cell):
    process, listener = cell
    assert listener.reset("ind/5").success
    before, rejected = listener.joints(), process.output.count("rejected")
    nan = trajectory_message(JointPath(JOINTS, np.array([0.5]), np.zeros((1, 7))))
    nan.points[0].positions[2] = math.nan
    listener.arm.publish(nan)
    renamed = trajectory_message(JointPath(JOINTS, np.array([0.5]), np.zeros((1, 7))))
    renamed.joint_names[0] = "elbow"
    listener.arm.publish(renamed)
    listener.gripper.publish(Float64MultiArray(data=[math.nan]))
    spin_until(listener.node, lambda: process.output.count("rejected") >= rejected + 3, "three refusals")
    assert "unknown joints ['elbow']" in process.output
    spin_for(listener.node, 0.5)
    assert np.abs(listener.joints() - before).max() < 0.005
    assert listener.finger() > 0.035


def test_a_reset_sets_up_the_scene_and_time_goes_on(cell):
    _, listener = cell
    before_s = seconds(listener.heard["joint_states"][-1].header.stamp)
    response = listener.reset("ood/3")
    assert response.success
    assert response.instruction == "pick up the blue cube and put it in the bin"
    message = listener.heard["cell/objects"][-1]
    assert seconds(message.header.stamp) > before_s
    for pose, (x, y, _) in zip(message.poses, make_scene("ood/3").cubes, strict=False):
        assert (pose.position.x, pose.position.y) == pytest.approx((x, y), abs=2e-3)


def test_a_scene_that_does_not_exist_is_refused(cell):
    _, listener = cell
    response = listener.reset("kitchen/1")
    assert not response.success
    assert "demo/0" in response.message


def test_two_cells_side_by_side_in_namespaces(cell):
    _, left = cell
    # The second follows the first one's clock.
    with running("cell_node", {"contract": CONTRACT, "publish_clock": False, "use_sim_time": True},
                 namespace="/right") as process:
        right = Listener(left.node, "/right")
        right.wait_ready()
        assert right.reset("ind/8").success
        assert left.reset("ind/8").success
        still = left.joints()
        goal = right.send([0.3, 0, 0, 0, 0, 0, 0])
        spin_until(right.node, lambda: np.abs(right.joints() - goal).max() < 0.01, "the right arm to arrive")
        assert np.abs(left.joints() - still).max() < 0.005
        apart_s = [seconds(listener.heard["joint_states"][-1].header.stamp) for listener in (left, right)]
        assert abs(apart_s[0] - apart_s[1]) < 2.0
        assert process.stop(signal.SIGINT) == 0


def test_a_cell_without_a_contract_file_says_so():
    process = NodeProcess("cell_node", {"contract": "/no/such/contract.yaml"})
    assert process.wait() == 2
    assert "/no/such/contract.yaml" in process.output
    assert "Traceback" not in process.output


def test_trajectories_come_back_from_their_messages():
    path = JointPath(("a", "b"), np.array([0.1, 1.25]), np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2)))
    again = path_of(trajectory_message(path))
    assert again.names == path.names
    assert again.times_s == pytest.approx(path.times_s)
    assert np.array_equal(again.positions, path.positions)
    assert again.accelerations is None
    ragged = trajectory_message(path)
    ragged.points[0].velocities = [0.0]
    with pytest.raises(TrajectoryRejected, match="every point needs 2 velocities"):
        path_of(ragged)


def test_a_cell_is_no_faster_than_its_real_time_factor(cell):
    _, listener = cell
    spin_for(listener.node, 0.5)  # what has queued up since the last test
    listener.clear()
    start = time.monotonic()
    spin_until(listener.node, lambda: len(listener.heard["joint_states"]) > 100, "two simulated seconds")
    stamps = [seconds(message.header.stamp) for message in listener.heard["joint_states"]]
    assert (stamps[-1] - stamps[0]) / (time.monotonic() - start) < 2.6
