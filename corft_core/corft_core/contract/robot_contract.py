"""The contract as a whole: loading, what follows from it, and comparing two of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from corft_core.contract import parse
from corft_core.contract.calibration import Calibration
from corft_core.contract.schema import (
    POSE_TYPES,
    TWIST_TYPES,
    ActionSpace,
    AnyStream,
    CameraStream,
    Episodes,
    Gripper,
    Limits,
    ObservationStream,
    Robot,
    Stream,
    Workspace,
)
from corft_core.contract.validate import validate
from corft_core.errors import ContractError
from corft_core.features import STATE_FEATURES_KEY, Representation, StateFeatures, differences

CONTRACT_VERSION = 1
_STREAMS = ("joint_state", "arm_command", "gripper_command", "episode_event")
TOOL_POSE_NAMES = ("tool.x", "tool.y", "tool.z", "tool.r11", "tool.r21", "tool.r31", "tool.r12", "tool.r22", "tool.r32")
TOOL_TWIST_NAMES = ("tool.vx", "tool.vy", "tool.vz", "tool.wx", "tool.wy", "tool.wz")


@dataclass(frozen=True)
class Contract:
    """A robot's contract. See ``config/panda_cell/contract.yaml`` for an example and ``docs/contract.md``."""

    contract_version: int
    robot: Robot
    rate_hz: int
    action_representation: Representation
    cameras: tuple[CameraStream, ...]
    joint_state: Stream
    arm_command: Stream
    limits: Limits
    workspace: Workspace
    gripper: Gripper | None = None
    gripper_command: Stream | None = None
    episode_event: Stream | None = None
    observations: tuple[ObservationStream, ...] = ()
    instruction: str = ""
    episodes: Episodes = "events"

    @property
    def step_ns(self) -> int:
        """Length of one policy step in nanoseconds."""
        return round(1e9 / self.rate_hz)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The arm's joints, then the gripper's when there is one."""
        return self.robot.joints if self.gripper is None else (*self.robot.joints, self.gripper.joint)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state vector: arm joints [rad], the gripper opening if any, then the extra observations."""
        extras = [name for extra in self.observations for name in extra.state_names]
        return (*self.robot.joints, *self._gripper_names, *extras)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action vector: commanded joints [rad], tool pose or twist, then the gripper opening if any."""
        arm = {"joint": self.robot.joints, "tool_pose": TOOL_POSE_NAMES, "tool_twist": TOOL_TWIST_NAMES}
        return (*arm[self.action_space], *self._gripper_names)

    @property
    def _gripper_names(self) -> tuple[str, ...]:
        return () if self.gripper is None else ("gripper",)

    @property
    def action_space(self) -> ActionSpace:
        """What the arm is commanded by: joint positions, the tool's pose or its twist, both in the base frame."""
        if not self.arm_command.fields:
            if self.arm_command.type in POSE_TYPES:
                return "tool_pose"
            if self.arm_command.type in TWIST_TYPES:
                return "tool_twist"
        return "joint"

    @property
    def state_gripper(self) -> int | None:
        """Index of the gripper opening in the state vector, None without gripper."""
        return None if self.gripper is None else len(self.robot.joints)

    @property
    def action_gripper(self) -> int | None:
        """Index of the gripper opening in the action vector, None without gripper."""
        return None if self.gripper is None else len(self.action_names) - 1

    @cached_property
    def streams(self) -> Mapping[str, AnyStream]:
        """All streams by name: those of ``streams:`` that this robot has, cameras, extra observations."""
        own = {name: getattr(self, name) for name in _STREAMS if getattr(self, name) is not None}
        return own | {c.name: c for c in self.cameras} | {extra.name: extra for extra in self.observations}

    @property
    def observation_streams(self) -> tuple[str, ...]:
        """Names of the streams that make an observation: joint_state, cameras, extra observations."""
        return ("joint_state", *(c.name for c in self.cameras), *(extra.name for extra in self.observations))

    def stream(self, name: str) -> AnyStream:
        """The stream called ``name``, see `streams`. Raises KeyError."""
        return self.streams[name]

    def calibration(self, name: str) -> Calibration:
        """Between the messages of joint_state, arm_command or gripper_command and SI values of this robot's joints.

        Its joints are `joint_names`, ``robot.joints`` and the gripper's joint, in this order. Raises KeyError.
        """
        return self._calibrations[name]

    @cached_property
    def _calibrations(self) -> dict[str, Calibration]:
        joints = {"joint_state": self.joint_names, "arm_command": self.robot.joints,
                  "gripper_command": self.joint_names[-1:]}
        return {name: Calibration.of(joints[name], stream.joints) for name, stream in self.streams.items()
                if isinstance(stream, Stream) and name in joints}

    @classmethod
    def load(cls, path: str | Path) -> Contract:
        """Read and validate a YAML or JSON file; relative files of ``robot.description`` are looked for beside it.

        Raises ContractError naming the file and the key.
        """
        path = Path(path)
        data = _read(path)
        try:
            contract = cls.from_dict(data)
        except ContractError as error:
            raise ContractError(f"contract {path}: {error}") from error
        description = _beside(contract.robot.description, path.expanduser().absolute().parent)
        return replace(contract, robot=replace(contract.robot, description=description))

    @classmethod
    def from_dict(cls, data: Any) -> Contract:
        """Build and validate a contract from plain data. Raises ContractError naming the key."""
        keys = {f.name for f in fields(cls)} - {*_STREAMS} | {"streams"}
        top = parse.mapping(data, "contract", keys, ("gripper", "observations", "instruction", "episodes"))
        version = top["contract_version"]
        if version != CONTRACT_VERSION:
            raise ContractError(f"contract_version is {version!r}, this corft reads {CONTRACT_VERSION}")
        streams = parse.mapping(top["streams"], "streams", _STREAMS, ("gripper_command", "episode_event"))
        rate_hz = parse.convert(int, top["rate_hz"], "rate_hz") if isinstance(top["rate_hz"], int) else 0
        if rate_hz <= 0:
            raise ContractError(f"rate_hz must be a positive whole number; got {top['rate_hz']!r}")
        gripper = top.get("gripper")
        contract = cls(
            contract_version=CONTRACT_VERSION,
            robot=parse.build(Robot, top["robot"], "robot"),
            gripper=None if gripper is None else parse.build(Gripper, gripper, "gripper"),
            rate_hz=rate_hz,
            action_representation=parse.convert(Representation, top["action_representation"], "action_representation"),
            cameras=_items(CameraStream, top["cameras"], "cameras"),
            observations=_items(ObservationStream, top.get("observations", []), "observations"),
            instruction=parse.convert(str, top.get("instruction", ""), "instruction"),
            episodes=parse.convert(Episodes, top.get("episodes", "events"), "episodes"),
            limits=parse.build(Limits, top["limits"], "limits"),
            workspace=parse.build(Workspace, top["workspace"], "workspace"),
            **{name: parse.build(Stream, streams[name], f"streams.{name}")
               for name in _STREAMS if streams.get(name) is not None},
        )
        validate(contract)
        return contract

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_dict` reads back to an equal contract."""
        data = parse.plain(self)
        own = {name: data.pop(name) for name in _STREAMS if name in data}
        return {"cameras": []} | data | {"streams": own}

    def differences(self, other: Contract) -> list[str]:
        """Lines ``key: mine != theirs``, empty when the two contracts are equal."""
        return differences(self, other)


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


def _items(kind: Any, data: Any, where: str) -> tuple[Any, ...]:
    return tuple(parse.build(kind, item, f"{where}[{i}]") for i, item in enumerate(parse.sequence(data, where)))


def _beside(description: str, folder: Path) -> str:
    """``description`` with its relative URDF, xacro and SRDF files in ``folder``, where the working folder has none."""

    def placed(name: str) -> str:
        file = Path(name)
        if "://" in name or name.startswith("~") or file.suffix not in (".urdf", ".xacro", ".srdf", ".xml"):
            return name
        return str(folder / file) if (folder / file).is_file() or not file.is_file() else name

    return ":".join(placed(name) for name in re.split(r":(?!//)", description))


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
