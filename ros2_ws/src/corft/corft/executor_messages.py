"""Between the executor's core types and messages."""

from __future__ import annotations

import numpy as np
from corft_msgs.msg import ActionChunk
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from corft.chunk_messages import duration_message, time_message
from corft_core.contract import Contract
from corft_core.execution import Chunk, Command, Measured, Reason, RefusedError


def stamp_ns(stamp: object) -> int:
    """Absolute nanoseconds of a builtin_interfaces Time or Duration."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)  # type: ignore[attr-defined]


def chunk_from_message(message: ActionChunk) -> Chunk:
    """The chunk in a message, values unchecked. Raises RefusedError when the points make no (H, J) table."""
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
    return Chunk(stamp_ns(message.header.stamp), names, np.array([point.positions for point in points]),
                 np.array(message.gripper, dtype=np.float64), times_ns[0] * 1e-9, int(message.chunk_number))


def measured_from_message(message: JointState, contract: Contract, received_ns: int) -> Measured | None:
    """Arm joints by name; None when the message carries other joints or values that are not finite."""
    index = {name: i for i, name in enumerate(message.name)}
    joints = contract.robot.joints
    if any(name not in index for name in joints) or len(message.position) != len(message.name):
        return None
    order = [index[name] for name in joints]
    position = np.array([message.position[i] for i in order])
    has_velocity = len(message.velocity) == len(message.name)
    velocity = np.array([message.velocity[i] for i in order]) if has_velocity else np.zeros(len(joints))
    if not np.all(np.isfinite(position)) or not np.all(np.isfinite(velocity)):
        return None
    when_ns = received_ns if contract.joint_state.stamp == "receive" else stamp_ns(message.header.stamp)
    return Measured(when_ns, position, velocity)


def trajectory_message(command: Command) -> JointTrajectory:
    """The command for a joint trajectory controller: starts at ``command.start_ns``, no point at time 0."""
    path = command.path
    message = JointTrajectory(joint_names=list(path.names))
    message.header.stamp = time_message(command.start_ns)
    for row, time_s in enumerate(path.times_s):
        if time_s > 0:
            message.points.append(JointTrajectoryPoint(
                positions=path.positions[row].tolist(),
                velocities=[] if path.velocities is None else path.velocities[row].tolist(),
                accelerations=[] if path.accelerations is None else path.accelerations[row].tolist(),
                time_from_start=duration_message(round(time_s * 1e9))))
    return message
