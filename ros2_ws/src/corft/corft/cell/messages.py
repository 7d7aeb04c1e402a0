"""The simulated cell's messages: what a robot's drivers would publish, and the trajectories it takes."""

from __future__ import annotations

import array
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from corft_core.cell.controller import DesiredState, TrajectoryRejected
from corft_core.trajectory import JointPath


def stamp_message(stamp_ns: int) -> TimeMsg:
    """builtin_interfaces/Time of absolute nanoseconds."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return TimeMsg(sec=sec, nanosec=nanosec)


def image_message(pixels: NDArray[np.uint8], stamp: TimeMsg, frame_id: str) -> Image:
    """Image (rgb8) of pixels (H, W, 3)."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8", step=3 * pixels.shape[1])
    message.header.stamp, message.header.frame_id = stamp, frame_id
    # rclpy takes an array.array as it is; a list or bytes would be checked element by element.
    data = array.array("B")
    data.frombytes(pixels.tobytes())
    message.data = data
    return message


def camera_info_message(size: tuple[int, int], vertical_view_rad: float, stamp: TimeMsg, frame_id: str) -> CameraInfo:
    """CameraInfo of an ideal pinhole camera with square pixels, ``size`` (height, width).

    Pixel (0, 0) is the centre of the upper left pixel; the optical frame looks along z, x right, y down (REP 103).
    """
    height, width = size
    focal = height / 2 / math.tan(vertical_view_rad / 2)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.stamp, info.header.frame_id = stamp, frame_id
    info.k = [focal, 0.0, centre_x, 0.0, focal, centre_y, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal, 0.0, centre_x, 0.0, 0.0, focal, centre_y, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def joint_state_message(names: list[str], positions: list[float], velocities: list[float],
                        stamp: TimeMsg) -> JointState:
    """JointState without efforts."""
    message = JointState(name=names, position=positions, velocity=velocities)
    message.header.stamp = stamp
    return message


def controller_state_message(kind: Any, names: Sequence[str], desired: DesiredState, positions: list[float],
                             velocities: list[float], stamp: TimeMsg) -> Any:
    """What joint_trajectory_controller says of itself: ``kind`` is control_msgs/JointTrajectoryControllerState."""
    message = kind(joint_names=list(names), feedback=JointTrajectoryPoint(positions=positions, velocities=velocities),
                   reference=JointTrajectoryPoint(positions=desired.positions.tolist(),
                                                  velocities=desired.velocities.tolist(),
                                                  accelerations=desired.accelerations.tolist()))
    message.header.stamp = stamp
    if hasattr(message, "speed_scaling_factor"):  # from ROS 2 Jazzy on
        message.speed_scaling_factor = 1.0
    return message


def objects_message(objects: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], stamp: TimeMsg,
                    frame_id: str) -> PoseArray:
    """PoseArray of a task's bodies, in the order of ``objects``."""
    message = PoseArray()
    message.header.stamp, message.header.frame_id = stamp, frame_id
    for position, quaternion in objects.values():
        x, y, z = position.tolist()
        qx, qy, qz, qw = quaternion.tolist()
        message.poses.append(Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw)))
    return message


def objects_of(message: PoseArray, names: Sequence[str]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The inverse of :func:`objects_message`, for the task's ``names`` (``Task.bodies``)."""
    return {name: (np.array([pose.position.x, pose.position.y, pose.position.z]),
                   np.array([pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]))
            for name, pose in zip(names, message.poses, strict=True)}


def trajectory_message(path: JointPath) -> JointTrajectory:
    """JointTrajectory that starts when it is received (stamp 0)."""
    message = JointTrajectory(joint_names=list(path.names))
    for i, time_s in enumerate(path.times_s):
        sec, nanosec = divmod(round(float(time_s) * 1e9), 1_000_000_000)
        point = JointTrajectoryPoint(positions=path.positions[i].tolist(),
                                     time_from_start=Duration(sec=sec, nanosec=nanosec))
        if path.velocities is not None:
            point.velocities = path.velocities[i].tolist()
        if path.accelerations is not None:
            point.accelerations = path.accelerations[i].tolist()
        message.points.append(point)
    return message


def path_of(message: JointTrajectory) -> JointPath:
    """JointPath over the message's own joints. Raises TrajectoryRejected when its points form none."""
    names = tuple(message.joint_names)
    if not message.points:
        raise TrajectoryRejected("the trajectory has no points")
    columns: dict[str, NDArray[np.float64] | None] = {}
    for field in ("positions", "velocities", "accelerations"):
        lengths = {len(getattr(point, field)) for point in message.points}
        if lengths == {len(names)}:
            columns[field] = np.array([getattr(point, field) for point in message.points], dtype=np.float64)
        elif lengths == {0} and field != "positions":
            columns[field] = None
        else:
            raise TrajectoryRejected(f"every point needs {len(names)} {field}, one a joint; found {sorted(lengths)}")
    positions = columns["positions"]
    assert positions is not None
    times = np.array([point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points])
    try:
        return JointPath(names, times, positions, columns["velocities"], columns["accelerations"])
    except ValueError as error:
        raise TrajectoryRejected(str(error)) from error
