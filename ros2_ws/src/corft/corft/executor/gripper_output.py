"""Where gripper openings go: a topic, or one of ros2_control's two gripper actions.

Changes are sent. On a topic, where a command can be lost or overtaken and nobody answers, also what has not changed for
REPEAT_S. Pinned by tests/ros/test_gripper_output.py.
"""

from __future__ import annotations

import time
from typing import Any

from builtin_interfaces.msg import Duration
from rclpy.action import ActionClient
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectoryPoint

from corft.executor.control_interfaces import control_type
from corft.node_base import message_type, qos_profile
from corft_core.contract import Contract
from corft_core.data.messages import write_fields

CHANGE = 1e-3  # of the opening; less is the same command again
REPEAT_S = 1.0
AT_ONCE_NS = 200_000_000


class GripperOutput:
    """Openings 0 closed … 1 open become positions by the contract: polarity, ends and calibration live there.

    ``kind``: topic, gripper_command or parallel_gripper_command; the actions are `<controller>/gripper_cmd`.
    ``effort``: their greatest effort in N or Nm, 0 leaves it to the controller.
    """

    def __init__(self, node: LifecycleNode, contract: Contract, kind: str, controller: str, effort: float,
                 dry_topic: str = "") -> None:
        assert contract.gripper is not None and contract.gripper_command is not None
        self._node, self._gripper, self._effort = node, contract.gripper, effort
        self._calibration = contract.calibration("gripper_command")
        self._last: float | None = None
        self._sent_s = 0.0
        self._publisher: Any = None
        self._client: ActionClient[Any, Any, Any] | None = None
        if dry_topic or kind == "topic":
            self._fields = () if dry_topic else contract.gripper_command.fields
            self._type = Float64MultiArray if dry_topic else message_type(contract.gripper_command.type)
            self._publisher = node.create_lifecycle_publisher(
                self._type, dry_topic or contract.gripper_command.topic, qos_profile("reliable", 10))
        else:
            name = "GripperCommand" if kind == "gripper_command" else "ParallelGripperCommand"
            self._type = control_type("action", name, f"gripper_interface:={kind}")
            self._client = ActionClient(node, self._type, f"{controller}/gripper_cmd")

    def forget(self) -> None:
        """Send the next opening even if it is the last one again: somebody else may have moved the gripper."""
        self._last = None

    def send(self, opening: float) -> None:
        """Command an opening, unless it is what was commanded just now."""
        repeated = self._client is None and time.monotonic() - self._sent_s >= REPEAT_S
        if self._last is not None and abs(opening - self._last) < CHANGE and not repeated:
            return
        self._last, self._sent_s = opening, time.monotonic()
        position = float(self._calibration.to_source([self._gripper.to_position(opening)])[0])
        if self._client is None:
            self._publisher.publish(self._message(position))
        else:
            self._client.send_goal_async(self._goal(position))

    def destroy(self) -> None:
        """Give back what was created in the node."""
        if self._client is not None:
            self._client.destroy()
        else:
            self._node.destroy_lifecycle_publisher(self._publisher)

    def _message(self, position: float) -> Any:
        """The position in the form of the contract's gripper_command type."""
        message, name = self._type(), str(self._calibration.names[0])
        if self._fields:
            write_fields(message, self._fields, [position])
        elif hasattr(message, "points"):  # JointTrajectory: as fast as its controller allows
            message.joint_names = [name]
            message.points = [JointTrajectoryPoint(positions=[position], time_from_start=Duration(nanosec=AT_ONCE_NS))]
        elif hasattr(message, "name"):  # JointState
            message.name, message.position = [name], [position]
        elif isinstance(message, Float64):
            message.data = position
        else:
            message.data = [position]
        return message

    def _goal(self, position: float) -> Any:
        goal = self._type.Goal()
        if hasattr(goal.command, "max_effort"):  # GripperCommand
            goal.command.position, goal.command.max_effort = position, self._effort
        else:  # ParallelGripperCommand: a JointState
            goal.command.name, goal.command.position = [str(self._calibration.names[0])], [position]
            goal.command.effort = [self._effort] if self._effort else []
        return goal
