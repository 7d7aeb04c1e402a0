"""A robot for docs/how-to/your-robot.md where there is none: `python3 tests/second_robot/driver.py CONTRACT`.

Plays what a contract describes: joint states, a joint trajectory controller with its parameters, a gripper if any and
the cameras, on the system's clock. It stands a little off home at first. From START to the end of an episode it is
commanded as by an operator, so that there is something to record.
"""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import rclpy
from corft_msgs.msg import EpisodeEvent
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from corft.cell.controller import controller_node
from corft.executor.outputs import controller_name
from corft_core.cell.controller import JointTrajectoryController, TrajectoryRejected
from corft_core.contract import Contract
from corft_core.data.messages import joint_path

OFF_HOME_RAD = 0.2
REACH_RAD = 0.25
JOINTS_S, CAMERA_S, COMMAND_S = 0.02, 1 / 15, 0.1
PICTURE = (240, 320)


class Driver(Node):
    """See the module's docstring."""

    def __init__(self, contract: Contract) -> None:
        super().__init__("driver")
        self._contract = contract
        gripper = contract.gripper_command
        self._home = np.array(contract.robot.home_rad)
        self._arm = JointTrajectoryController(contract.robot.joints, self._home + OFF_HOME_RAD)
        self._fingers = [] if contract.gripper is None else [contract.gripper.open_position]
        self._episode_s: float | None = None
        self._states = self.create_publisher(JointState, contract.joint_state.topic, 10)
        self._commands = self.create_publisher(JointTrajectory, contract.arm_command.topic, 10)
        if gripper is not None:
            self._grips = self.create_publisher(Float64MultiArray, gripper.topic, 10)
            self.create_subscription(Float64MultiArray, gripper.topic, self._grip, 10)
        self._pictures = [self.create_publisher(Image, camera.topic, 2) for camera in contract.cameras]
        self.create_subscription(JointTrajectory, contract.arm_command.topic, self._follow, 10)
        if contract.episode_event is not None:
            self.create_subscription(EpisodeEvent, contract.episode_event.topic, self._on_event, 10)
        self.create_timer(JOINTS_S, self._publish_joints)
        self.create_timer(CAMERA_S, self._publish_pictures)
        self.create_timer(COMMAND_S, self._operate)

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _follow(self, message: JointTrajectory) -> None:
        stamp = message.header.stamp
        start_s = stamp.sec + stamp.nanosec * 1e-9
        try:
            self._arm.accept(joint_path(message, self._contract), self._now_s(), start_s or None)
        except TrajectoryRejected as error:
            self.get_logger().error(f"trajectory rejected: {error}")

    def _grip(self, message: Float64MultiArray) -> None:
        self._fingers = [message.data[0]]

    def _on_event(self, event: EpisodeEvent) -> None:
        self._episode_s = self._now_s() if event.kind == EpisodeEvent.START else None

    def _operate(self) -> None:
        """One command of the operator: the first joint and the elbow swing, then the gripper closes."""
        if self._episode_s is None:
            return
        gripper, elapsed = self._contract.gripper, self._now_s() - self._episode_s
        goal = self._home.copy()
        goal[[0, 2]] += REACH_RAD * np.sin(elapsed) * np.array([1.0, -0.5])
        point = JointTrajectoryPoint(positions=goal.tolist())
        point.time_from_start.nanosec = 300_000_000
        self._commands.publish(JointTrajectory(joint_names=list(self._contract.robot.joints), points=[point]))
        if gripper is None:
            return
        closed = elapsed > 2.0
        self._grips.publish(Float64MultiArray(data=[gripper.closed_position if closed else gripper.open_position]))

    def _publish_joints(self) -> None:
        """In an order of its own: joints are told apart by name."""
        state = self._arm.desired(self._now_s())
        message = JointState(name=list(reversed(self._contract.joint_names)),
                             position=[*self._fingers, *reversed(state.positions.tolist())],
                             velocity=[*(0.0 for _ in self._fingers), *reversed(state.velocities.tolist())])
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)

    def _publish_pictures(self) -> None:
        """Grey, with a column that shows where the first joint is."""
        height, width = PICTURE
        pixels = np.full((height, width, 3), 90, np.uint8)
        column = int(np.clip(0.5 + self._arm.desired(self._now_s()).positions[0] / 2, 0.0, 0.9) * width)
        pixels[:, column : column + width // 10] = (220, 30, 25)
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        image.data = pixels.tobytes()
        image.header.stamp = self.get_clock().now().to_msg()
        for publisher in self._pictures:
            publisher.publish(image)


def main(arguments: list[str]) -> None:
    """Play the robot of the contract until a signal."""
    contract = Contract.load(arguments[0])
    rclpy.init()
    executor = SingleThreadedExecutor()
    executor.add_node(Driver(contract))
    executor.add_node(controller_node(controller_name(contract, ""), "", contract.robot.joints, False))
    print(f"{contract.robot.name} is running; end it with Ctrl-C", flush=True)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    main(sys.argv[1:])
