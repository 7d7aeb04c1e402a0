"""The contract's parts, each a mapping in the YAML file. Optional keys are the fields with a default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StampSource = Literal["header", "receive"]
Qos = Literal["sensor_data", "reliable"]
OnStale = Literal["drop", "hold"]
Unit = Literal["rad", "deg", "m", "mm"]
ActionSpace = Literal["joint", "tool_pose", "tool_twist"]
Episodes = Literal["events", "bag"]

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
JOINT_STATE, JOINT_TRAJECTORY = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
FLOAT, FLOAT_ARRAY = "std_msgs/msg/Float64", "std_msgs/msg/Float64MultiArray"
EPISODE_EVENT = "corft_msgs/msg/EpisodeEvent"
POSE_TYPES = ("geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/Pose")
TWIST_TYPES = ("geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist")
SI_FACTOR = {"rad": 1.0, "deg": math.pi / 180.0, "m": 1.0, "mm": 1e-3}


@dataclass(frozen=True)
class Robot:
    """Arm joints (order of state and action vectors), frames, home position and where to park (None: home)."""

    name: str
    description: str
    joints: tuple[str, ...]
    base_frame: str
    tool_frame: str
    home_rad: tuple[float, ...]
    park_rad: tuple[float, ...] | None = None


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
class JointSource:
    """How a stream names and measures one joint: contract value = scale · SI(value in the message) + offset."""

    name: str | None = None
    unit: Unit = "rad"
    scale: float = 1.0
    offset: float = 0.0

    @property
    def factor(self) -> float:
        """What a value in the message is multiplied by."""
        return self.scale * SI_FACTOR[self.unit]


@dataclass(frozen=True)
class Stream:
    """A topic, where its samples' time comes from, and how old a sample may be.

    ``fields``: paths of the values in messages of any type; empty: the type says where they are. ``joints``: what
    differs from the contract's joint names and SI units. ``on_stale``: a sample older than ``max_age_s`` counts as
    missing ("drop") or stays in use ("hold").
    """

    topic: str
    type: str
    stamp: StampSource
    max_age_s: float
    qos: Qos = "reliable"
    on_stale: OnStale = "drop"
    fields: tuple[str, ...] = ()
    joints: Mapping[str, JointSource] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class CameraStream:
    """A camera topic and how its image becomes the policy's: crop (top, left, height, width), then resize.

    ``depth_range_m`` (near, far) turns a depth image into grey: white at near, black at far and without a reading.
    """

    name: str
    topic: str
    type: str
    stamp: StampSource
    max_age_s: float
    size: tuple[int, int]
    crop: tuple[int, int, int, int] | None = None
    depth_range_m: tuple[float, float] | None = None
    qos: Qos = "sensor_data"
    on_stale: OnStale = "drop"


@dataclass(frozen=True)
class ObservationStream:
    """Further numbers for the state vector: ``scale`` · value + ``offset`` of every field."""

    name: str
    topic: str
    type: str
    fields: tuple[str, ...]
    stamp: StampSource
    max_age_s: float
    qos: Qos = "reliable"
    on_stale: OnStale = "drop"
    scale: float = 1.0
    offset: float = 0.0

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of its entries in the state vector."""
        if len(self.fields) == 1:
            return (self.name,)
        return tuple(f"{self.name}.{i}" for i in range(len(self.fields)))


AnyStream = Stream | CameraStream | ObservationStream


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
