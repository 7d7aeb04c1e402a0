"""What must hold between a contract's keys. Every error names the key, what is expected and what was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from corft_core.contract.schema import (
    EPISODE_EVENT,
    FLOAT,
    FLOAT_ARRAY,
    IMAGE_TYPES,
    JOINT_STATE,
    JOINT_TRAJECTORY,
    POSE_TYPES,
    TWIST_TYPES,
    CameraStream,
    ObservationStream,
    Stream,
)
from corft_core.errors import ContractError

if TYPE_CHECKING:
    from corft_core.contract.robot_contract import Contract

# Types whose values are found without `fields`.
KNOWN_TYPES = {
    "joint_state": (JOINT_STATE,),
    "arm_command": (JOINT_TRAJECTORY, JOINT_STATE, FLOAT_ARRAY, *POSE_TYPES, *TWIST_TYPES),
    "gripper_command": (FLOAT_ARRAY, FLOAT, JOINT_STATE, JOINT_TRAJECTORY),
    "episode_event": (EPISODE_EVENT,),
}


def validate(contract: Contract) -> None:
    """Raise ContractError when the parts do not fit together."""
    _robot(contract)
    _limits(contract)
    names = [camera.name for camera in contract.cameras] + [extra.name for extra in contract.observations]
    taken = sorted({name for name in names if names.count(name) > 1} | (set(names) & set(KNOWN_TYPES)))
    _require(not taken, "cameras and observations need distinct names, other than those of the streams", taken)
    for name, stream in contract.streams.items():
        where = f"streams.{name}" if isinstance(stream, Stream) else (
            f"cameras.{name}" if isinstance(stream, CameraStream) else f"observations.{name}")
        _require(stream.max_age_s > 0, f"{where}.max_age_s must be positive", stream.max_age_s)
        _require(bool(stream.topic), f"{where}.topic must not be empty", repr(stream.topic))
        if isinstance(stream, CameraStream):
            _camera(where, stream)
        elif isinstance(stream, ObservationStream):
            _require(bool(stream.fields), f"{where}.fields must name at least one field", stream.fields)
            _require(stream.scale != 0, f"{where}.scale must not be 0", stream.scale)
            _require(not set(stream.state_names) & {*contract.robot.joints, "gripper"},
                     f"{where}.name must differ from the joints and from gripper", stream.name)
        else:
            _stream(contract, name, where, stream)
    _require(contract.action_representation == "absolute" or contract.action_space == "joint",
             f"action_representation must be absolute with {contract.arm_command.type} commands: relative is to the "
             "measured joints", contract.action_representation)
    if contract.gripper is None:
        _require(contract.gripper_command is None, "streams.gripper_command needs the key gripper; a robot without "
                 "gripper has neither", "a gripper_command alone")
    else:
        _require(contract.gripper_command is not None, "streams lacks the key gripper_command, which the key gripper "
                 "asks for; a robot without gripper has neither", "a gripper alone")
    _require(contract.episodes == "bag" or contract.episode_event is not None,
             "streams lacks the key episode_event; without it write `episodes: bag`, every bag is one episode then",
             f"episodes: {contract.episodes}")


def _robot(contract: Contract) -> None:
    robot, gripper, joints = contract.robot, contract.gripper, len(contract.robot.joints)
    _require(joints > 0 and len(set(robot.joints)) == joints, "robot.joints must be distinct and not empty",
             robot.joints)
    for key in ("home_rad", "park_rad"):
        values = getattr(robot, key)
        _require(values is None or len(values) == joints, f"robot.{key} needs {joints} values, one a joint", values)
    if gripper is not None:
        _require(gripper.open_position != gripper.closed_position,
                 "gripper.open_position and gripper.closed_position must differ, they define which way it opens",
                 gripper)
        _require(gripper.joint not in robot.joints and "gripper" not in robot.joints,
                 "gripper.joint must not be one of robot.joints", gripper.joint)


def _limits(contract: Contract) -> None:
    limits, workspace, joints = contract.limits, contract.workspace, len(contract.robot.joints)
    for key in ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3"):
        values = getattr(limits, key)
        _require(len(values) == joints and all(v > 0 for v in values),
                 f"limits.{key} needs {joints} positive values, one a joint", values)
    for key in ("max_tracking_error_rad", "max_observation_age_s", "max_chunk_age_s"):
        _require(getattr(limits, key) > 0, f"limits.{key} must be positive", getattr(limits, key))
    _require(limits.position_margin_rad >= 0, "limits.position_margin_rad must not be negative",
             limits.position_margin_rad)
    _require(all(lo < hi for lo, hi in zip(workspace.min_m, workspace.max_m, strict=True)),
             "workspace.min_m must be below workspace.max_m", workspace)


def _camera(where: str, camera: CameraStream) -> None:
    _require(camera.type in IMAGE_TYPES, f"{where}.type must be one of {IMAGE_TYPES}", camera.type)
    _require(min(camera.size) > 0, f"{where}.size must be positive (height, width)", camera.size)
    _require(camera.crop is None or (min(camera.crop[:2]) >= 0 and min(camera.crop[2:]) > 0),
             f"{where}.crop must be (top, left, height, width)", camera.crop)
    _require(camera.depth_range_m is None or 0 <= camera.depth_range_m[0] < camera.depth_range_m[1],
             f"{where}.depth_range_m must be (near, far) with 0 <= near < far", camera.depth_range_m)


def _stream(contract: Contract, name: str, where: str, stream: Stream) -> None:
    joints = tuple(_stream_joints(contract, name))
    if stream.fields:
        _require(name != "episode_event", f"{where}.fields is not possible: episode events are {EPISODE_EVENT}; "
                 "without them write `episodes: bag`", stream.fields)
        _require(len(stream.fields) == len(joints),
                 f"{where}.fields needs {len(joints)} paths, one for each of {', '.join(joints)}", stream.fields)
    else:
        _require(stream.type in KNOWN_TYPES[name],
                 f"{where}.type must be one of {', '.join(KNOWN_TYPES[name])}, or any other together with "
                 f"{where}.fields, the paths of {', '.join(joints)} in the message", stream.type)
    if stream.joints:
        by_name = stream.type in (JOINT_STATE, JOINT_TRAJECTORY) and not stream.fields
        _require(name != "arm_command" or contract.action_space == "joint",
                 f"{where}.joints is not possible with {stream.type}: poses and twists are in m, rad and the base "
                 "frame", sorted(stream.joints))
        strangers = [joint for joint in stream.joints if joint not in joints]
        _require(not strangers, f"{where}.joints may name {', '.join(joints)}", strangers)
        for joint, source in stream.joints.items():
            _require(source.scale != 0, f"{where}.joints.{joint}.scale must not be 0", source.scale)
            _require(source.name is None or by_name, f"{where}.joints.{joint}.name is of no use where messages carry "
                     "no joint names", source.name)
        found = contract.calibration(name).names
        _require(len(set(found)) == len(found), f"{where}.joints must give every joint a name of its own", found)


def _stream_joints(contract: Contract, name: str) -> Iterator[str]:
    if name in ("joint_state", "arm_command"):
        yield from contract.robot.joints
    if name in ("joint_state", "gripper_command") and contract.gripper is not None:
        yield contract.gripper.joint


def _require(condition: bool, expectation: str, seen: Any) -> None:
    if not condition:
        raise ContractError(f"{expectation}; got {seen}")
