"""Field extraction: what corft reads from ROS messages, by name, for rclpy's and rosbags' classes alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

START, STOP, SUCCESS, FAILURE, DISCARD = range(5)
EVENT_NAMES = ("START", "STOP", "SUCCESS", "FAILURE", "DISCARD")

# Used when a bag carries no message definitions (older sqlite3 bags). Same text as corft_msgs/msg/EpisodeEvent.msg.
EPISODE_EVENT_TYPE = "corft_msgs/msg/EpisodeEvent"
EPISODE_EVENT_DEFINITION = """\
uint8 START=0
uint8 STOP=1
uint8 SUCCESS=2
uint8 FAILURE=3
uint8 DISCARD=4

std_msgs/Header header
uint8 kind
string instruction
string operator_id
string scene_id
"""


class MessageError(CorftError):
    """A message whose content does not fit the contract."""


def header_stamp_ns(message: Any) -> int | None:
    """The header's stamp in ns, or None when the message has no header or its stamp is zero (unset)."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec) or None


def joint_vector(names: Sequence[str], positions: Sequence[float] | NDArray[np.float64],
                 contract: Contract) -> NDArray[np.float64]:
    """State vector (J + 1,): the contract's arm joints [rad] and gripper opening, looked up by name.

    The order of ``names`` does not matter and other joints are ignored. Raises MessageError naming what is missing.
    """
    if len(names) != len(positions):
        raise MessageError(f"joint state has {len(names)} names but {len(positions)} positions")
    by_name = dict(zip(names, positions, strict=True))
    wanted = (*contract.robot.joints, contract.gripper.joint)
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise MessageError(f"joint state lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}")
    vector = np.array([float(by_name[name]) for name in wanted])
    if not np.all(np.isfinite(vector)):
        bad = [name for name, value in zip(wanted, vector, strict=True) if not np.isfinite(value)]
        raise MessageError(f"joint state of {', '.join(bad)} is not finite")
    vector[-1] = contract.gripper.to_opening(vector[-1])
    return vector


def joint_path(message: Any, contract: Contract) -> JointPath:
    """JointTrajectory → JointPath over the contract's arm joints in its order.

    Raises MessageError when a joint is missing or the points do not form a path.
    """
    names = [str(name) for name in message.joint_names]
    missing = [name for name in contract.robot.joints if name not in names]
    if missing:
        raise MessageError(f"joint trajectory lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}")
    if not message.points:
        raise MessageError("joint trajectory has no points")
    order = [names.index(name) for name in contract.robot.joints]
    times = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points])

    def column(field: str) -> NDArray[np.float64] | None:
        rows = [np.asarray(getattr(point, field), np.float64) for point in message.points]
        return np.stack([row[order] for row in rows]) if all(len(row) == len(names) for row in rows) else None

    positions = column("positions")
    if positions is None:
        raise MessageError(f"every point of a joint trajectory needs {len(names)} positions")
    velocities = column("velocities")
    accelerations = column("accelerations") if velocities is not None else None
    try:
        return JointPath(contract.robot.joints, times, positions, velocities, accelerations)
    except ValueError as error:
        raise MessageError(f"joint trajectory: {error}") from error


def gripper_opening(message: Any, contract: Contract) -> float:
    """Float64MultiArray with one finger position [m] → commanded opening 0…1."""
    if len(message.data) != 1 or not np.isfinite(message.data[0]):
        raise MessageError(f"gripper command must be one finite position in m, got {list(message.data)}")
    return contract.gripper.to_opening(float(message.data[0]))
