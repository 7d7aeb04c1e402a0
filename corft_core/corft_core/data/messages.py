"""What corft reads from ROS messages, by name or by field path, for rclpy's and rosbags' classes alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Calibration, Contract, ObservationStream, Stream, field_path
from corft_core.contract.schema import FLOAT, JOINT_STATE, JOINT_TRAJECTORY, POSE_TYPES, TWIST_TYPES, AnyStream
from corft_core.errors import CorftError
from corft_core.poses import pose_vector
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

Vector = NDArray[np.float64]
Reader = Callable[[Any], Any]


class MessageError(CorftError):
    """A message whose content does not fit the contract."""


def header_stamp_ns(message: Any) -> int | None:
    """The header's stamp in ns, or None when the message has no header or its stamp is zero (unset)."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec) or None


def sample_stamp_ns(stream: AnyStream, message: Any, receive_ns: int) -> int:
    """A sample's time: its header's where the contract says so and it is set, else when it was received."""
    header_ns = header_stamp_ns(message) if stream.stamp == "header" else None
    return receive_ns if header_ns is None else header_ns


def make_reader(contract: Contract, name: str) -> Reader:
    """What turns a message of the stream ``name`` into its final form; the reader raises MessageError.

    joint_state: float64 (J [+ 1],) arm joints and gripper opening, NaN where the message does not carry the joint.
    arm_command: JointPath, or float64 (J,) joint positions, (9,) tool pose, (6,) tool twist. gripper_command: opening
    0…1. An extra observation: float64 (k,). Raises KeyError for a stream that is not read here, such as a camera.
    """
    stream = contract.stream(name)
    if isinstance(stream, ObservationStream):
        return _named(name, lambda message: _finite(_fields(message, stream.fields), stream.fields) * stream.scale
                      + stream.offset)
    if name == "joint_state":
        return _named(name, _state_reader(contract))
    if name == "arm_command":
        return _named(name, _arm_reader(contract))
    if name == "gripper_command":
        return _named(name, _gripper_reader(contract))
    raise KeyError(name)


def joint_vector(names: Sequence[str], positions: Sequence[float] | Vector, contract: Contract) -> Vector:
    """State of all joints (J [+ 1],) from one joint state: arm joints [rad] and gripper opening, looked up by name.

    The order of ``names`` does not matter and other joints are ignored. Raises MessageError naming what is missing.
    """
    calibration = contract.calibration("joint_state")
    raw = _by_name(names, positions, calibration)
    missing = [name for name in calibration.names if name not in names]
    if missing:
        raise MessageError(f"joint state lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}")
    return _with_opening(calibration.from_source(raw), contract)


def joint_readings(message: Any, contract: Contract) -> tuple[Vector, Vector]:
    """Positions and velocities (J,) [rad, rad/s] of the arm's joints in a joint_state message.

    NaN where the message does not carry the joint, or no velocity of it. Raises MessageError on bad content.
    """
    stream, calibration, arm = contract.joint_state, contract.calibration("joint_state"), len(contract.robot.joints)
    if stream.fields:
        return calibration.from_source(_finite(_fields(message, stream.fields), stream.fields))[:arm], np.full(arm, np.nan)
    positions = calibration.from_source(_by_name(message.name, message.position, calibration))[:arm]
    if len(message.velocity) != len(message.name):
        return positions, np.full(arm, np.nan)
    rates = _by_name(message.name, message.velocity, calibration, "velocities")
    return positions, calibration.rate_from_source(rates)[:arm]


def joint_path(message: Any, contract: Contract) -> JointPath:
    """JointTrajectory → JointPath [rad] over the contract's arm joints in its order.

    Raises MessageError when a joint is missing or the points do not form a path.
    """
    return _trajectory(message, contract, contract.calibration("arm_command"))


def gripper_opening(message: Any, contract: Contract) -> float:
    """A gripper_command message → commanded opening 0…1."""
    return float(make_reader(contract, "gripper_command")(message))


def write_fields(message: Any, paths: Sequence[str], values: Sequence[float]) -> None:
    """Put ``values`` into a message at the field ``paths``. Raises MessageError."""
    try:
        field_path.write(message, paths, [float(value) for value in values])
    except LookupError as error:
        raise MessageError(f"a {type(message).__name__} cannot be filled: {error}") from error


def _named(name: str, reader: Reader) -> Reader:
    """``reader``, its complaints with the stream's name in front and whatever a strange message raises among them."""
    def read(message: Any) -> Any:
        try:
            return reader(message)
        except (MessageError, ValueError, AttributeError, TypeError) as error:
            raise MessageError(f"{name}: {error}") from error

    return read


def _state_reader(contract: Contract) -> Reader:
    calibration, fields = contract.calibration("joint_state"), contract.joint_state.fields
    if fields:
        return lambda message: _with_opening(calibration.from_source(_finite(_fields(message, fields), fields)), contract)

    def read(message: Any) -> Vector:
        values = calibration.from_source(_by_name(message.name, message.position, calibration))
        if np.all(np.isnan(values)):
            raise MessageError(f"no joint of the contract; the message has {', '.join(message.name) or 'no joints'}")
        return _with_opening(values, contract)

    return read


def _arm_reader(contract: Contract) -> Reader:
    stream, calibration = contract.arm_command, contract.calibration("arm_command")
    if stream.fields:
        return lambda message: calibration.from_source(_finite(_fields(message, stream.fields), stream.fields))
    if stream.type == JOINT_TRAJECTORY:
        return lambda message: _trajectory(message, contract, calibration)
    if stream.type == JOINT_STATE:
        return lambda message: _all_joints(message, calibration)
    if stream.type in POSE_TYPES:
        return lambda message: _pose(message, contract.robot.base_frame)
    if stream.type in TWIST_TYPES:
        return lambda message: _twist(message, contract.robot.base_frame)

    def read(message: Any) -> Vector:
        if len(message.data) != len(calibration.joints):
            raise MessageError(f"{len(message.data)} values for the {len(calibration.joints)} joints of the arm; where "
                               "there are more, name the arm's own with streams.arm_command.fields")
        return calibration.from_source(_finite(np.asarray(message.data, np.float64), calibration.joints))

    return read


def _gripper_reader(contract: Contract) -> Reader:
    gripper, calibration = contract.gripper, contract.calibration("gripper_command")
    stream = contract.stream("gripper_command")
    assert gripper is not None and isinstance(stream, Stream), "a gripper_command comes with a gripper"

    def position(message: Any) -> Any:
        if stream.fields:
            return _fields(message, stream.fields)
        if stream.type == JOINT_STATE:
            return _by_name(message.name, message.position, calibration)
        if stream.type == JOINT_TRAJECTORY:
            return _by_name(message.joint_names, message.points[-1].positions if message.points else [], calibration)
        values = np.atleast_1d(np.asarray(message.data, np.float64)) if stream.type == FLOAT else message.data
        if len(values) != 1:
            raise MessageError(f"one finite position expected, got {list(values)}; where there are more, name the "
                               "gripper's own with streams.gripper_command.fields")
        return values

    def read(message: Any) -> float:
        value = float(calibration.from_source(position(message))[0])
        if not np.isfinite(value):
            raise MessageError(f"one finite position of {calibration.names[0]} expected, got {value}")
        return gripper.to_opening(value)

    return read


def _by_name(names: Sequence[str], values: Any, calibration: Calibration, what: str = "positions") -> Vector:
    """Values (n,) of the calibration's joints as they stand in the message, NaN where it has none."""
    if len(names) != len(values):
        raise MessageError(f"joint state has {len(names)} names but {len(values)} {what}")
    place = {name: i for i, name in enumerate(names)}
    result = np.full(len(calibration.names), np.nan)
    for i, name in enumerate(calibration.names):
        if name in place:
            result[i] = values[place[name]]
            if not np.isfinite(result[i]):
                raise MessageError(f"joint state of {name} is not finite")
    return result


def _all_joints(message: Any, calibration: Calibration) -> Vector:
    values = calibration.from_source(_by_name(message.name, message.position, calibration))
    missing = [name for name, value in zip(calibration.names, values, strict=True) if np.isnan(value)]
    if missing:
        raise MessageError(f"lacks {', '.join(missing)}; it has {', '.join(message.name) or 'no joints'}")
    return values


def _trajectory(message: Any, contract: Contract, calibration: Calibration) -> JointPath:
    names = [str(name) for name in message.joint_names]
    missing = [name for name in calibration.names if name not in names]
    if missing:
        raise MessageError(f"joint trajectory lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}")
    if not message.points:
        raise MessageError("joint trajectory has no points")
    order = [names.index(name) for name in calibration.names]
    times = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points])

    def column(field: str) -> Vector | None:
        rows = [np.asarray(getattr(point, field), np.float64) for point in message.points]
        return np.stack([row[order] for row in rows]) if all(len(row) == len(names) for row in rows) else None

    positions, velocities = column("positions"), column("velocities")
    if positions is None:
        raise MessageError(f"every point of a joint trajectory needs {len(names)} positions")
    accelerations = column("accelerations") if velocities is not None else None
    try:
        return JointPath(contract.robot.joints, times, calibration.from_source(positions),
                         None if velocities is None else calibration.rate_from_source(velocities),
                         None if accelerations is None else calibration.rate_from_source(accelerations))
    except ValueError as error:
        raise MessageError(f"joint trajectory: {error}") from error


def _pose(message: Any, base_frame: str) -> Vector:
    _in_frame(message, base_frame)
    pose = getattr(message, "pose", message)
    p, q = pose.position, pose.orientation
    return pose_vector((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def _twist(message: Any, base_frame: str) -> Vector:
    _in_frame(message, base_frame)
    twist = getattr(message, "twist", message)
    v, w = twist.linear, twist.angular
    return _finite(np.array([v.x, v.y, v.z, w.x, w.y, w.z], np.float64), ("vx", "vy", "vz", "wx", "wy", "wz"))


def _in_frame(message: Any, base_frame: str) -> None:
    """A frame that is named must be the base frame; an empty one says nothing against it."""
    frame = str(message.header.frame_id) if hasattr(message, "header") else ""
    if frame and frame.lstrip("/") != base_frame:
        raise MessageError(f"frame_id is {frame!r}, the contract's robot.base_frame is {base_frame!r}; publish poses "
                           "and twists in the base frame (tf2 transforms them)")


def _fields(message: Any, paths: Sequence[str]) -> Vector:
    try:
        return np.array([field_path.read(message, path) for path in paths])
    except (LookupError, TypeError) as error:
        raise MessageError(f"{error}; the contract asks for {', '.join(paths)}") from error


def _finite(values: Vector, names: Sequence[str]) -> Vector:
    if not np.all(np.isfinite(values)):
        bad = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]
        raise MessageError(f"{', '.join(bad)} is not finite")
    return values


def _with_opening(values: Vector, contract: Contract) -> Vector:
    """Joint positions with the gripper's, if any, turned into its opening; NaN stays NaN."""
    place = contract.state_gripper
    if contract.gripper is not None and place is not None and not np.isnan(values[place]):
        values[place] = contract.gripper.to_opening(float(values[place]))
    return values
