"""What corft reads from ROS messages, by name or by field path, for rclpy's and rosbags' classes alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract, ObservationStream, Stream, field_path
from corft_core.contract.schema import FLOAT, JOINT_STATE, JOINT_TRAJECTORY, POSE_TYPES, TWIST_TYPES, AnyStream
from corft_core.data.decoders import MessageError, all_joints, by_name, fields, finite, pose, trajectory, twist
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

__all__ = [
    "DISCARD",
    "EPISODE_EVENT_DEFINITION",
    "EPISODE_EVENT_TYPE",
    "EVENT_NAMES",
    "FAILURE",
    "START",
    "STOP",
    "SUCCESS",
    "MessageError",
    "gripper_opening",
    "header_stamp_ns",
    "joint_path",
    "joint_readings",
    "joint_vector",
    "make_reader",
    "sample_stamp_ns",
    "write_fields",
]


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
        return _guarded(lambda message: fields(message, stream.fields) * stream.scale + stream.offset)
    if name == "joint_state":
        return _guarded(_state_reader(contract))
    if name == "arm_command":
        return _guarded(_arm_reader(contract))
    if name == "gripper_command":
        gripper, position = contract.gripper, make_gripper_position(contract)
        assert gripper is not None, "a gripper_command comes with a gripper"
        return lambda message: gripper.to_opening(position(message))
    raise KeyError(name)


def joint_vector(names: Sequence[str], positions: Sequence[float] | Vector, contract: Contract) -> Vector:
    """State of all joints (J [+ 1],) from one joint state: arm joints [rad] and gripper opening, looked up by name.

    The order of ``names`` does not matter and other joints are ignored. Raises MessageError naming what is missing.
    """
    calibration = contract.calibration("joint_state")
    raw = by_name(names, positions, calibration)
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
        return calibration.from_source(fields(message, stream.fields))[:arm], np.full(arm, np.nan)
    positions = calibration.from_source(by_name(message.name, message.position, calibration))[:arm]
    if len(message.velocity) != len(message.name):
        return positions, np.full(arm, np.nan)
    rates = by_name(message.name, message.velocity, calibration, "velocities")
    return positions, calibration.rate_from_source(rates)[:arm]


def joint_path(message: Any, contract: Contract) -> JointPath:
    """JointTrajectory → JointPath [rad] over the contract's arm joints in its order.

    Raises MessageError when a joint is missing or the points do not form a path.
    """
    return trajectory(message, contract.calibration("arm_command"))


def gripper_opening(message: Any, contract: Contract) -> float:
    """A gripper_command message → commanded opening 0…1."""
    return float(make_reader(contract, "gripper_command")(message))


def make_gripper_position(contract: Contract) -> Callable[[Any], float]:
    """What reads a gripper_command message's joint position, in the joint's unit and not yet limited to its ends.

    The reader raises MessageError. Raises KeyError for a robot without gripper.
    """
    stream, calibration = contract.stream("gripper_command"), contract.calibration("gripper_command")
    assert isinstance(stream, Stream)

    def values(message: Any) -> Any:
        if stream.fields:
            return fields(message, stream.fields)
        if stream.type == JOINT_STATE:
            return by_name(message.name, message.position, calibration)
        if stream.type == JOINT_TRAJECTORY:
            return by_name(message.joint_names, message.points[-1].positions if message.points else [], calibration)
        return [message.data] if stream.type == FLOAT else message.data

    def read(message: Any) -> float:
        found = values(message)
        if len(found) != 1 or not np.isfinite(found[0]):
            raise MessageError(f"gripper command must be one finite position of {calibration.names[0]}, got "
                               f"{list(found)}; where there are more, name it with streams.gripper_command.fields")
        return float(calibration.from_source(found)[0])

    return _guarded(read)


def write_fields(message: Any, paths: Sequence[str], values: Sequence[float]) -> None:
    """Put ``values`` into a message at the field ``paths``. Raises MessageError."""
    try:
        field_path.write(message, paths, [float(value) for value in values])
    except LookupError as error:
        raise MessageError(f"a {type(message).__name__} cannot be filled: {error}") from error


def _guarded(reader: Reader) -> Reader:
    """``reader``, raising nothing but MessageError whatever strange message it meets."""
    def read(message: Any) -> Any:
        try:
            return reader(message)
        except (ValueError, AttributeError, TypeError, LookupError) as error:
            raise MessageError(f"{type(message).__name__}: {error}") from error

    return read


def _state_reader(contract: Contract) -> Reader:
    calibration, paths = contract.calibration("joint_state"), contract.joint_state.fields
    if paths:
        return lambda message: _with_opening(calibration.from_source(fields(message, paths)), contract)

    def read(message: Any) -> Vector:
        values = calibration.from_source(by_name(message.name, message.position, calibration))
        if np.all(np.isnan(values)):
            seen = ", ".join(message.name) or "no joints"
            raise MessageError(f"joint state has no joint of the contract, it has {seen}")
        return _with_opening(values, contract)

    return read


def _arm_reader(contract: Contract) -> Reader:
    stream, calibration = contract.arm_command, contract.calibration("arm_command")
    if stream.fields:
        return lambda message: calibration.from_source(fields(message, stream.fields))
    if stream.type == JOINT_TRAJECTORY:
        return lambda message: trajectory(message, calibration)
    if stream.type == JOINT_STATE:
        return lambda message: all_joints(message, calibration)
    if stream.type in POSE_TYPES:
        return lambda message: pose(message, contract.robot.base_frame)
    if stream.type in TWIST_TYPES:
        return lambda message: twist(message, contract.robot.base_frame)

    def read(message: Any) -> Vector:
        if len(message.data) != len(calibration.joints):
            raise MessageError(f"arm command has {len(message.data)} values for the arm's {len(calibration.joints)} "
                               "joints; where there are more, name the arm's own with streams.arm_command.fields")
        return calibration.from_source(finite(np.asarray(message.data, np.float64), calibration.joints))

    return read


def _with_opening(values: Vector, contract: Contract) -> Vector:
    """Joint positions with the gripper's, if any, turned into its opening; NaN stays NaN."""
    place = contract.state_gripper
    if contract.gripper is not None and place is not None and not np.isnan(values[place]):
        values[place] = contract.gripper.to_opening(float(values[place]))
    return values
