"""From a predicted chunk to its message."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration as DurationMsg
from builtin_interfaces.msg import Time as TimeMsg
from corft_msgs.msg import ActionChunk
from geometry_msgs.msg import Pose, Twist
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectoryPoint

from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.poses import pose_matrices, quaternion_of


def time_message(stamp_ns: int) -> TimeMsg:
    """builtin_interfaces/Time of absolute nanoseconds."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return TimeMsg(sec=sec, nanosec=nanosec)


def duration_message(duration_ns: int) -> DurationMsg:
    """builtin_interfaces/Duration of nanoseconds."""
    sec, nanosec = divmod(duration_ns, 1_000_000_000)
    return DurationMsg(sec=sec, nanosec=nanosec)


def chunk_message(contract: Contract, stamp_ns: int, actions: NDArray[np.float64], *, chunk_number: int,
                  policy_id: str, value: float, inference_s: float) -> ActionChunk:
    """ActionChunk of `actions` (H, A), columns as `contract.action_names`: absolute arm positions [rad], tool poses or
    tool twists, and the gripper opening 0 … 1 where the robot has one.

    Point j is due at `stamp_ns` + (j + 1) steps. Raises CorftError when the shape is wrong or a value is not
    finite.
    """
    width = len(contract.action_names)
    if actions.ndim != 2 or len(actions) == 0 or actions.shape[1] != width:
        raise CorftError(f"the policy gave a chunk of shape {actions.shape}, expected (steps, {width})")
    if not np.isfinite(actions).all():
        raise CorftError("the policy gave actions that are not finite")
    chunk = ActionChunk(chunk_number=chunk_number, policy_id=policy_id, value=float(value),
                        inference_time=duration_message(round(inference_s * 1e9)))
    chunk.header.stamp = time_message(stamp_ns)
    chunk.header.frame_id = contract.robot.base_frame
    chunk.trajectory.header = chunk.header
    chunk.trajectory.points = [JointTrajectoryPoint(time_from_start=duration_message((j + 1) * contract.step_ns))
                               for j in range(len(actions))]
    if contract.action_gripper is not None:
        chunk.gripper = actions[:, contract.action_gripper].tolist()
    if contract.action_space == "tool_pose":
        try:
            chunk.tool_poses = [pose_message(row[:9]) for row in actions]
        except ValueError as error:
            raise CorftError(f"the policy gave a tool pose that is none: {error}") from error
    elif contract.action_space == "tool_twist":
        chunk.tool_twists = [_twist(row[:6]) for row in actions]
    else:
        chunk.trajectory.joint_names = list(contract.robot.joints)
        for point, row in zip(chunk.trajectory.points, actions, strict=True):
            point.positions = row[:len(contract.robot.joints)].tolist()
    return chunk


def pose_message(vector: NDArray[np.float64]) -> Pose:
    """Pose of (9,): position [m] and the rotation's first two columns."""
    matrix = pose_matrices(vector)
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = matrix[:3, 3].tolist()
    x, y, z, w = (float(part) for part in quaternion_of(matrix))
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = x, y, z, w
    return pose


def _twist(vector: NDArray[np.float64]) -> Twist:
    """Twist of (6,): linear [m/s], angular [rad/s]."""
    twist = Twist()
    twist.linear.x, twist.linear.y, twist.linear.z, *angular = vector.tolist()
    twist.angular.x, twist.angular.y, twist.angular.z = angular
    return twist
