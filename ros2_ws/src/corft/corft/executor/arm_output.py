"""Where the executor's trajectories go: a controller's topic, its action, or nowhere (dry run)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from corft.executor.control_interfaces import control_type
from corft.node_base import qos_profile

Failed = Callable[[str], None]
ONLOOKERS = ("rosbag2", "corft_record", "_ros2cli_")  # how the names of nodes begin that only watch a topic


def listeners(node: Node, topic: str) -> int:
    """Subscribers of ``topic`` that may act on it: recorders and command-line tools don't count."""
    return sum(not info.node_name.startswith(ONLOOKERS) for info in node.get_subscriptions_info_by_topic(topic))


class ArmOutput(Protocol):
    """Sends trajectories; any thread may call ``send``."""

    def send(self, message: JointTrajectory) -> None:
        """Replace what runs."""

    def missing(self) -> str:
        """Why nobody would follow a trajectory now; empty when somebody would."""

    def delivered(self) -> bool:
        """Whether what was sent has reached the controller."""

    def destroy(self) -> None:
        """Give back what was created in the node."""


class ArmTopic:
    """`<controller>/joint_trajectory`: no answer, so whether it moves shows in the joint states."""

    def __init__(self, node: LifecycleNode, topic: str, *, dry: bool = False) -> None:
        self._node, self._topic, self._dry = node, topic, dry
        self._publisher = node.create_lifecycle_publisher(JointTrajectory, topic, qos_profile("reliable", 10))

    def send(self, message: JointTrajectory) -> None:
        self._publisher.publish(message)

    def missing(self) -> str:
        if self._dry or (self._publisher.get_subscription_count()
                         and listeners(self._node, self._publisher.topic_name)):
            return ""
        return (f"nobody listens to {self._publisher.topic_name}: is the controller loaded, and on the same "
                "ROS_DOMAIN_ID? (ros2 control list_controllers)")

    def delivered(self) -> bool:
        return bool(self._publisher.wait_for_all_acked(Duration()))

    def destroy(self) -> None:
        self._node.destroy_lifecycle_publisher(self._publisher)


class ArmAction:
    """`<controller>/follow_joint_trajectory`: a goal a trajectory, each replacing the one before.

    A stop is a goal too, the braking trajectory; cancelling would let the controller stop as abruptly as it likes.
    ``failed`` gets the controller's words when it rejects or aborts the newest goal.
    """

    def __init__(self, node: LifecycleNode, controller: str, failed: Failed) -> None:
        self._type = control_type("action", "FollowJointTrajectory", "controller_interface:=action")
        self._name = f"{controller}/follow_joint_trajectory"
        self._client: ActionClient[Any, Any, Any] = ActionClient(node, self._type, self._name)
        self._failed = failed
        self._newest = 0
        self._request: Any = None  # the newest goal's, a future

    def send(self, message: JointTrajectory) -> None:
        self._newest += 1
        number = self._newest
        goal = self._type.Goal()
        goal.trajectory = message
        self._request = self._client.send_goal_async(goal)
        self._request.add_done_callback(lambda future: self._answered(number, future))

    def missing(self) -> str:
        if self._client.server_is_ready():
            return ""
        return f"no action server {self._name}: is the controller loaded and active? (ros2 control list_controllers)"

    def delivered(self) -> bool:
        return self._request is None or self._request.done()

    def destroy(self) -> None:
        self._newest += 1
        self._client.destroy()

    def _answered(self, number: int, future: Any) -> None:
        handle = future.result()
        if not handle.accepted:
            if number == self._newest:
                self._failed(f"{self._name} rejected the trajectory; the controller's log says why")
            return
        handle.get_result_async().add_done_callback(lambda result: self._ended(number, result))

    def _ended(self, number: int, future: Any) -> None:
        result = future.result().result
        if number == self._newest and result.error_code != self._type.Result.SUCCESSFUL:
            names = ("INVALID_GOAL", "INVALID_JOINTS", "OLD_HEADER_TIMESTAMP", "PATH_TOLERANCE_VIOLATED",
                     "GOAL_TOLERANCE_VIOLATED")
            name = next((n for n in names if getattr(self._type.Result, n) == result.error_code),
                        f"error {result.error_code}")
            self._failed(f"{self._name} gave up: {name} {result.error_string}".rstrip())
