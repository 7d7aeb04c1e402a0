"""The robot contract: one YAML file that says what a robot's topics mean.

Recording, conversion, training and control all read the same contract; it is embedded in every data set and
checkpoint, and :meth:`Contract.differences` compares two of them. Unknown keys are errors, so that a typing
mistake never turns into a default.
"""

from __future__ import annotations

import json
import math
from collections.abc import Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from corft_core.errors import ContractError
from corft_core.features import STATE_FEATURES_KEY, Representation, StateFeatures, differences

CONTRACT_VERSION = 1

StampSource = Literal["header", "receive"]
Qos = Literal["sensor_data", "reliable"]

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


@dataclass(frozen=True)
class Robot:
    """Arm joints (order of state and action vectors), frames and home position."""

    name: str
    description: str
    joints: tuple[str, ...]
    base_frame: str
    tool_frame: str
    home_rad: tuple[float, ...]


@dataclass(frozen=True)
class Gripper:
    """Gripper joint with its end positions in the joint's unit (m or rad); opening is 0 closed … 1 open."""

    joint: str
    open_position: float
    closed_position: float

    def to_opening(self, position: float) -> float:
        """Opening in [0, 1] of a joint position."""
        return min(1.0, max(0.0, (position - self.closed_position) / (self.open_position - self.closed_position)))

    def to_position(self, opening: float) -> float:
        """Joint position of an opening; openings outside [0, 1] are clipped."""
        return self.closed_position + min(1.0, max(0.0, opening)) * (self.open_position - self.closed_position)


@dataclass(frozen=True)
class Stream:
    """A topic, where its samples' time comes from, and how old a sample may be."""

    topic: str
    type: str
    stamp: StampSource
    max_age_s: float
    qos: Qos = "reliable"


@dataclass(frozen=True)
class CameraStream:
    """A camera topic and how its image becomes the policy's: crop (top, left, height, width), then resize."""

    name: str
    topic: str
    type: str
    stamp: StampSource
    max_age_s: float
    size: tuple[int, int]
    crop: tuple[int, int, int, int] | None = None
    qos: Qos = "sensor_data"


@dataclass(frozen=True)
class Limits:
    """What the executor never exceeds. Per joint in the order of ``Robot.joints``."""

    velocity_rad_s: tuple[float, ...]
    acceleration_rad_s2: tuple[float, ...]
    jerk_rad_s3: tuple[float, ...]
    position_margin_rad: float
    max_tracking_error_rad: float
    max_observation_age_s: float
    max_chunk_age_s: float


@dataclass(frozen=True)
class Workspace:
    """Axis-aligned box that the tool frame stays in, in the base frame."""

    min_m: tuple[float, float, float]
    max_m: tuple[float, float, float]


@dataclass(frozen=True)
class Contract:
    """A robot's contract. See ``config/panda_cell/contract.yaml`` for a commented example."""

    contract_version: int
    robot: Robot
    gripper: Gripper
    rate_hz: int
    action_representation: Representation
    cameras: tuple[CameraStream, ...]
    joint_state: Stream
    arm_command: Stream
    gripper_command: Stream
    episode_event: Stream
    limits: Limits
    workspace: Workspace

    @property
    def step_ns(self) -> int:
        """Length of one policy step in nanoseconds."""
        return round(1e9 / self.rate_hz)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state vector: arm joints [rad], then the gripper opening."""
        return (*self.robot.joints, "gripper")

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action vector: commanded arm joints [rad], then the commanded gripper opening."""
        return self.state_names

    @classmethod
    def load(cls, path: str | Path) -> Contract:
        """Read and validate a YAML or JSON file. Raises ContractError naming the file and the key."""
        path = Path(path)
        data = _read(path)
        try:
            return cls.from_dict(data)
        except ContractError as error:
            raise ContractError(f"contract {path}: {error}") from error

    @classmethod
    def from_dict(cls, data: Any) -> Contract:
        """Build and validate a contract from plain data. Raises ContractError naming the key."""
        top = _mapping(data, "contract", {f.name for f in fields(cls)} - _STREAMS | {"streams"})
        version = top["contract_version"]
        if version != CONTRACT_VERSION:
            raise ContractError(f"contract_version is {version!r}, this corft reads {CONTRACT_VERSION}")
        streams = _mapping(top["streams"], "streams", _STREAMS)
        contract = cls(
            contract_version=CONTRACT_VERSION,
            robot=_build(Robot, top["robot"], "robot"),
            gripper=_build(Gripper, top["gripper"], "gripper"),
            rate_hz=_positive_int(top["rate_hz"], "rate_hz"),
            action_representation=_choice(top["action_representation"], Representation, "action_representation"),
            cameras=tuple(_build(CameraStream, camera, f"cameras[{i}]")
                          for i, camera in enumerate(_sequence(top["cameras"], "cameras"))),
            limits=_build(Limits, top["limits"], "limits"),
            workspace=_build(Workspace, top["workspace"], "workspace"),
            **{name: _build(Stream, streams[name], f"streams.{name}") for name in sorted(_STREAMS)},
        )
        contract._validate()
        return contract

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_dict` reads back to an equal contract."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in _STREAMS}
        plain["streams"] = {name: _plain(getattr(self, name)) for name in sorted(_STREAMS)}
        return plain

    def differences(self, other: Contract) -> list[str]:
        """Lines ``key: mine != theirs``, empty when the two contracts are equal."""
        return differences(self, other)

    def _validate(self) -> None:
        joints = len(self.robot.joints)
        _require(joints > 0 and len(set(self.robot.joints)) == joints, "robot.joints must be distinct and not empty",
                 self.robot.joints)
        _require(len(self.robot.home_rad) == joints, f"robot.home_rad needs {joints} values, one a joint",
                 self.robot.home_rad)
        _require(self.gripper.open_position != self.gripper.closed_position,
                 "gripper.open_position and gripper.closed_position must differ, they define which way it opens",
                 self.gripper)
        for key in ("velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3"):
            values = getattr(self.limits, key)
            _require(len(values) == joints and all(v > 0 for v in values),
                     f"limits.{key} needs {joints} positive values, one a joint", values)
        for key in ("max_tracking_error_rad", "max_observation_age_s", "max_chunk_age_s"):
            _require(getattr(self.limits, key) > 0, f"limits.{key} must be positive", getattr(self.limits, key))
        _require(self.limits.position_margin_rad >= 0, "limits.position_margin_rad must not be negative",
                 self.limits.position_margin_rad)
        _require(all(lo < hi for lo, hi in zip(self.workspace.min_m, self.workspace.max_m, strict=True)),
                 "workspace.min_m must be below workspace.max_m", self.workspace)
        names = [camera.name for camera in self.cameras]
        _require(len(set(names)) == len(names), "cameras need distinct names", names)
        reserved = set(names) & _STREAMS
        _require(not reserved, f"camera names {sorted(_STREAMS)} are taken by other streams", names)
        for camera in self.cameras:
            _require(camera.type in IMAGE_TYPES, f"cameras.{camera.name}.type must be one of {IMAGE_TYPES}",
                     camera.type)
            _require(min(camera.size) > 0, f"cameras.{camera.name}.size must be positive (height, width)", camera.size)
            _require(camera.crop is None or (min(camera.crop[:2]) >= 0 and min(camera.crop[2:]) > 0),
                     f"cameras.{camera.name}.crop must be (top, left, height, width)", camera.crop)
        for name in (*sorted(_STREAMS), *names):
            stream = self.stream(name)
            _require(stream.max_age_s > 0, f"{name}.max_age_s must be positive", stream.max_age_s)
            _require(bool(stream.topic), f"{name}.topic must not be empty", stream.topic)

    def stream(self, name: str) -> Stream | CameraStream:
        """The stream called ``name``: a camera's name, or joint_state, arm_command, gripper_command, episode_event."""
        if name in _STREAMS:
            return getattr(self, name)
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(name)


def load_features(path: str | Path) -> Contract | StateFeatures:
    """A checkpoint's ``contract.json``: a robot's contract or a benchmark's state features.

    Raises ContractError naming the file and the key.
    """
    path = Path(path)
    data = _read(path)
    try:
        if isinstance(data, dict) and STATE_FEATURES_KEY in data:
            return StateFeatures.from_dict(data)
        return Contract.from_dict(data)
    except ContractError as error:
        raise ContractError(f"contract {path}: {error}") from error


def _read(path: Path) -> Any:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"contract {path} cannot be read: {error}. Give the path of a contract YAML, "
                            "for example config/panda_cell/contract.yaml.") from error
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ContractError(f"contract {path} is not valid {path.suffix or 'YAML'}: {error}") from error


_STREAMS = {"joint_state", "arm_command", "gripper_command", "episode_event"}


def _require(condition: bool, expectation: str, seen: Any) -> None:
    if not condition:
        raise ContractError(f"{expectation}; got {seen}")


def _mapping(data: Any, where: str, keys: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ContractError(f"{where} must be a mapping with the keys {sorted(keys)}, got {type(data).__name__}")
    unknown = {str(key) for key in data} - keys
    if unknown:
        raise ContractError(f"unknown key {', '.join(sorted(unknown))} in {where}; "
                            f"known keys: {', '.join(sorted(keys))}")
    missing = keys - optional - data.keys()
    if missing:
        raise ContractError(f"{where} lacks the key {', '.join(sorted(missing))}")
    return data


def _sequence(data: Any, where: str) -> list[Any]:
    if not isinstance(data, (list, tuple)):
        raise ContractError(f"{where} must be a list, got {data!r}")
    return list(data)


def _choice(value: Any, literal: Any, where: str) -> Any:
    if value not in get_args(literal):
        raise ContractError(f"{where} must be one of {', '.join(get_args(literal))}; got {value!r}")
    return value


def _positive_int(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ContractError(f"{where} must be a positive whole number; got {value!r}")
    return value


def _build(kind: Any, data: Any, where: str) -> Any:
    """Build the dataclass ``kind`` from a mapping, converting and checking every field."""
    optional = {f.name for f in fields(kind) if f.name in ("crop", "qos")}
    mapping = _mapping(data, where, {f.name for f in fields(kind)}, optional)
    values = {}
    for field in fields(kind):
        if field.name in mapping:
            values[field.name] = _field(str(field.type), mapping[field.name], f"{where}.{field.name}")
    return kind(**values)


def _field(annotation: str, value: Any, where: str) -> Any:
    if annotation.endswith("| None"):
        return None if value is None else _field(annotation.removesuffix(" | None"), value, where)
    if annotation == "str":
        if not isinstance(value, str):
            raise ContractError(f"{where} must be text, got {value!r}")
        return value
    if annotation == "float":
        return _number(value, where)
    if annotation == "StampSource":
        return _choice(value, StampSource, where)
    if annotation == "Qos":
        return _choice(value, Qos, where)
    # What remains are tuples: tuple[str, ...], tuple[float, ...], and fixed lengths of int or float.
    inner = [part.strip() for part in annotation.removeprefix("tuple[").removesuffix("]").split(",")]
    items = _sequence(value, where)
    if inner[-1] != "..." and len(items) != len(inner):
        raise ContractError(f"{where} needs {len(inner)} values, got {len(items)}: {items}")
    kind = inner[0]
    if kind == "int":
        for i, item in enumerate(items):
            if isinstance(item, bool) or not isinstance(item, int):
                raise ContractError(f"{where}[{i}] must be a whole number; got {item!r}")
        return tuple(items)
    return tuple(_field(kind, item, f"{where}[{i}]") for i, item in enumerate(items))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ContractError(f"{where} must be a finite number; got {value!r}")
    return float(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
