"""Numbers out of messages of the types that corft knows; each raises MessageError saying what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Calibration, field_path
from corft_core.errors import CorftError
from corft_core.poses import pose_vector
from corft_core.trajectory import JointPath

Vector = NDArray[np.float64]


class MessageError(CorftError):
    """A message whose content does not fit the contract."""


def by_name(names: Sequence[str], values: Any, calibration: Calibration, what: str = "positions") -> Vector:
    """Values (n,) of the calibration's joints as they stand in the message, NaN where it has none."""
    if len(names) != len(values):
        raise MessageError(f"joint state has {len(names)} names but {len(values)} {what}")
    wanted, places = _places(tuple(names), calibration.names)
    found = np.asarray(values, np.float64)[places]
    if not np.isfinite(found).all():
        bad = [names[place] for place, value in zip(places, found, strict=True) if not np.isfinite(value)]
        raise MessageError(f"joint state of {', '.join(bad)} is not finite")
    if len(wanted) == len(calibration.names):
        return found
    result = np.full(len(calibration.names), np.nan)
    result[wanted] = found
    return result


@lru_cache(maxsize=64)
def _places(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the ``wanted`` joints a message with these ``names`` carries, and where it has them."""
    found = [(i, names.index(name)) for i, name in enumerate(wanted) if name in names]
    return np.array([i for i, _ in found], np.intp), np.array([place for _, place in found], np.intp)


def all_joints(message: Any, calibration: Calibration) -> Vector:
    """Positions (n,) [SI] of a JointState that must carry all the calibration's joints."""
    values = calibration.from_source(by_name(message.name, message.position, calibration))
    missing = [name for name, value in zip(calibration.names, values, strict=True) if np.isnan(value)]
    if missing:
        raise MessageError(f"joint command lacks {', '.join(missing)}; it has {', '.join(message.name) or 'no joints'}")
    return values


def trajectory(message: Any, calibration: Calibration) -> JointPath:
    """JointTrajectory → JointPath [SI] over the calibration's joints, whatever their order in the message."""
    names = tuple(str(name) for name in message.joint_names)
    carried, order = _places(names, calibration.names)
    if len(carried) < len(calibration.names):
        missing = [name for name in calibration.names if name not in names]
        raise MessageError(f"joint trajectory lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}")
    if not message.points:
        raise MessageError("joint trajectory has no points")
    times = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points])

    def column(field: str) -> Vector | None:
        rows = [getattr(point, field) for point in message.points]
        return np.array(rows, np.float64)[:, order] if all(len(row) == len(names) for row in rows) else None

    positions, velocities = column("positions"), column("velocities")
    if positions is None:
        raise MessageError(f"every point of a joint trajectory needs {len(names)} positions")
    accelerations = column("accelerations") if velocities is not None else None
    try:
        return JointPath(calibration.joints, times, calibration.from_source(positions),
                         None if velocities is None else calibration.rate_from_source(velocities),
                         None if accelerations is None else calibration.rate_from_source(accelerations))
    except ValueError as error:
        raise MessageError(f"joint trajectory: {error}") from error


def pose(message: Any, base_frame: str) -> Vector:
    """PoseStamped or Pose in the base frame → pose vector (9,), see `corft_core.poses`."""
    _in_frame(message, base_frame)
    pose = getattr(message, "pose", message)
    p, q = pose.position, pose.orientation
    return pose_vector((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def twist(message: Any, base_frame: str) -> Vector:
    """TwistStamped or Twist in the base frame → (6,) linear [m/s] and angular [rad/s]."""
    _in_frame(message, base_frame)
    twist = getattr(message, "twist", message)
    v, w = twist.linear, twist.angular
    return finite(np.array([v.x, v.y, v.z, w.x, w.y, w.z], np.float64), ("vx", "vy", "vz", "wx", "wy", "wz"))


def _in_frame(message: Any, base_frame: str) -> None:
    """A frame that is named must be the base frame; an empty one says nothing against it."""
    frame = str(message.header.frame_id) if hasattr(message, "header") else ""
    if frame and frame.lstrip("/") != base_frame:
        raise MessageError(f"frame_id is {frame!r}, the contract's robot.base_frame is {base_frame!r}; publish poses "
                           "and twists in the base frame (tf2 transforms them)")


def fields(message: Any, paths: Sequence[str]) -> Vector:
    """The finite numbers (n,) at the field ``paths``."""
    try:
        return finite(np.array([field_path.read(message, path) for path in paths]), paths)
    except (LookupError, TypeError) as error:
        raise MessageError(f"{error}; the contract asks for {', '.join(paths)}") from error


def finite(values: Vector, names: Sequence[str]) -> Vector:
    """``values`` if they all are; ``names`` tells which are not."""
    if not np.all(np.isfinite(values)):
        bad = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]
        raise MessageError(f"{', '.join(bad)} is not finite")
    return values
