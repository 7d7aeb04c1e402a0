"""Between the executor's core types and messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from corft_msgs.msg import ActionChunk
from geometry_msgs.msg import Pose, PoseStamped
from numpy.typing import NDArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from corft.chunk_messages import duration_message, time_message
from corft.executor.controller_traits import Sending
from corft_core.contract import Contract
from corft_core.data.decoders import by_name
from corft_core.data.messages import MessageError, header_stamp_ns, joint_readings, sample_stamp_ns
from corft_core.execution import Chunk, Command, Measured, Reason, RefusedError
from corft_core.poses import pose_matrices, pose_vector
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]
# The first point of a path that must not be joined to the measured state: in the past when the message arrives, and
# not at time 0, which a controller refuses.
LEAD_IN_S = 0.001


def stamp_ns(stamp: Any) -> int:
    """Absolute nanoseconds of a builtin_interfaces Time or Duration."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def chunk_from_message(message: ActionChunk, contract: Contract) -> Chunk:
    """The chunk in a message, values unchecked. Raises RefusedError when the points make no table."""
    points = message.trajectory.points
    names = tuple(message.trajectory.joint_names)
    if not points:
        raise RefusedError(Reason.MALFORMED, "the chunk has no points")
    for row, point in enumerate(points):
        if len(point.positions) != len(names):
            raise RefusedError(Reason.MALFORMED, f"point {row} has {len(point.positions)} positions for {len(names)} "
                                                 "joint names")
    times_ns = np.array([stamp_ns(point.time_from_start) for point in points])
    uneven = np.abs(times_ns - times_ns[0] * np.arange(1, len(points) + 1)) > 1_000_000
    if np.any(uneven):
        row = int(np.argmax(uneven))
        raise RefusedError(Reason.MALFORMED, f"point {row} is due {times_ns[row] * 1e-9:.3f} s from the observation, "
                                             f"expected {(row + 1) * times_ns[0] * 1e-9:.3f} s: points must be one "
                                             "policy step apart, the first one step after the observation")
    poses, twists = _cartesian(message, contract)
    gripper = np.array(message.gripper, dtype=np.float64) if contract.gripper is not None else None
    return Chunk(stamp_ns(message.header.stamp), names, np.array([point.positions for point in points]), gripper,
                 times_ns[0] * 1e-9, int(message.chunk_number), poses, twists)


def _cartesian(message: ActionChunk, contract: Contract) -> tuple[Array | None, Array | None]:
    """Tool poses (H, 4, 4) and twists (H, 6) of a Cartesian chunk; both None in joint space."""
    count = len(message.trajectory.points)
    given = [len(message.trajectory.joint_names) > 0, len(message.tool_poses) > 0, len(message.tool_twists) > 0]
    if sum(given) != 1:
        raise RefusedError(Reason.MALFORMED, "a chunk has either joint positions, tool_poses or tool_twists")
    if given[0]:
        return None, None
    _require_base_frame(message.header.frame_id, contract)
    if len(message.tool_poses or message.tool_twists) != count:
        raise RefusedError(Reason.MALFORMED, f"{len(message.tool_poses or message.tool_twists)} poses or twists for "
                                             f"{count} points")
    if given[2]:
        return None, np.array([[t.linear.x, t.linear.y, t.linear.z, t.angular.x, t.angular.y, t.angular.z]
                               for t in message.tool_twists])
    rows = [_pose_row(pose) for pose in message.tool_poses]
    return np.stack([_matrix(row, f"pose {i}") for i, row in enumerate(rows)]), None


def _matrix(row: Array, what: str) -> Array:
    """(4, 4) of position and quaternion xyzw (7,). Raises RefusedError."""
    if not np.all(np.isfinite(row)):
        raise RefusedError(Reason.NOT_FINITE, f"{what} is not finite")
    try:
        return pose_matrices(pose_vector(row[:3], row[3:]))
    except ValueError as error:
        raise RefusedError(Reason.MALFORMED, f"{what}: {error}") from error


def pose_from_message(message: PoseStamped, contract: Contract) -> Array:
    """Tool pose (4, 4) in the base frame. Raises RefusedError on another frame or a broken pose."""
    _require_base_frame(message.header.frame_id, contract)
    return _matrix(_pose_row(message.pose), "the target")


def _pose_row(pose: Pose) -> Array:
    p, q = pose.position, pose.orientation
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


def _require_base_frame(frame: str, contract: Contract) -> None:
    if frame and frame != contract.robot.base_frame:
        raise RefusedError(Reason.MALFORMED, f"poses are given in frame {frame}, expected the base frame "
                                             f"{contract.robot.base_frame}")


class JointStates:
    """The arm's joints from one or several publishers of joint states, in contract order and units."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        joints = len(contract.robot.joints)
        self._position, self._velocity = np.full(joints, np.nan), np.zeros(joints)
        self._stamps_ns = np.zeros(joints, dtype=np.int64)

    def update(self, message: Any, received_ns: int) -> Measured | None:
        """What is known of the whole arm after ``message``; its time is that of the oldest joint.

        None when the message has none of the joints, or some have not been seen yet. Raises MessageError when its
        content is broken: names and positions that do not fit, values that are not finite.
        """
        positions, velocities = joint_readings(message, self._contract)
        here = np.isfinite(positions)
        if not here.any():
            return None
        self._position[here] = positions[here]
        self._velocity[here] = np.where(np.isfinite(velocities[here]), velocities[here], 0.0)
        self._stamps_ns[here] = sample_stamp_ns(self._contract.joint_state, message, received_ns)
        if np.isnan(self._position).any():
            return None
        return Measured(int(self._stamps_ns.min()), self._position.copy(), self._velocity.copy())


def setpoint_from_message(message: Any, contract: Contract) -> Measured | None:
    """What a controller follows, from its JointTrajectoryControllerState; velocities are left at zero.

    None when it follows nothing yet, lacks a joint or is broken, which is as if it had not come.
    """
    point = next((found for name in ("reference", "desired")  # the latter before ROS 2 Iron
                  if (found := getattr(message, name, None)) is not None and found.positions), None)
    stamp = header_stamp_ns(message)
    if point is None or stamp is None:
        return None
    calibration = contract.calibration("arm_command")
    try:
        position = calibration.from_source(by_name(message.joint_names, point.positions, calibration))
    except MessageError:
        return None
    scaling = float(np.clip(getattr(message, "speed_scaling_factor", 1.0), 0.0, 1.0))
    found = Measured(stamp, position, np.zeros_like(position), scaling)
    return found if np.all(np.isfinite([*position, scaling])) else None


def trajectory_message(command: Command, contract: Contract, sending: Sending | None = None) -> JointTrajectory:
    """The command for a joint trajectory controller, in its names and units; no point at time 0."""
    sending = sending or Sending()
    calibration = contract.calibration("arm_command")
    path = _resampled(command.path, sending)
    message = JointTrajectory(joint_names=list(calibration.names))
    if sending.stamped:
        message.header.stamp = time_message(command.start_ns)
    positions = calibration.to_source(path.positions)
    empty = np.zeros((len(path.times_s), 0))
    velocities = empty if path.velocities is None else calibration.rate_to_source(path.velocities)
    accelerations = empty if path.accelerations is None else calibration.rate_to_source(path.accelerations)
    for row, time_s in enumerate(path.times_s):
        if time_s > command.unsent_s:
            message.points.append(JointTrajectoryPoint(
                positions=positions[row].tolist(), velocities=velocities[row].tolist(),
                accelerations=accelerations[row].tolist(), time_from_start=duration_message(round(time_s * 1e9))))
    return message


def _resampled(path: JointPath, sending: Sending) -> JointPath:
    times = path.times_s
    if sending.step_s is not None:
        times = np.append(np.arange(sending.step_s, path.duration_s, sending.step_s), path.duration_s)
    if sending.lead_in and path.duration_s > 2 * LEAD_IN_S:
        times = np.concatenate([[LEAD_IN_S], times[times > 2 * LEAD_IN_S]])
    return path if times is path.times_s else JointPath(path.names, times, *path.sample(times))
