"""Recordings of robots unlike the cell's: own message types, tool poses, no gripper, no events, split joint states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import CONTRACT_FILE, SECOND, Messages, square
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from test_messages import pose_message, twist_message

from corft_core.contract import Contract
from corft_core.data import EpisodeDataset
from corft_core.data.bag_converter import ConvertOptions
from corft_core.data.convert import convert
from corft_core.poses import pose_vector

STATUS = """\
std_msgs/Header header
my_robot_msgs/Arm arm
float64[] grip
"""
ARM = "float32[7] angle\nuint8 mode\n"
STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg(STATUS, "my_robot_msgs/msg/Status"))
STORE.register(get_types_from_msg(ARM, "my_robot_msgs/msg/Arm"))
BUILD = Messages(STORE)
START, STEPS = 1000 * SECOND, 30


def robot(gripper: bool, **changes: Any) -> dict[str, Any]:
    """The cell's contract without events, one camera, and ``changes`` of its streams."""
    plain = Contract.load(CONTRACT_FILE).to_dict() | {"episodes": "bag", "instruction": "wipe",
                                                      "action_representation": "absolute"}
    plain["cameras"] = plain["cameras"][:1]
    del plain["streams"]["episode_event"]
    if not gripper:
        del plain["gripper"], plain["streams"]["gripper_command"]
    for name, change in changes.items():
        plain["streams"][name] |= change
    return plain


def write(path: Path, contract: Contract, numbers: dict[str, Any], storage: StoragePlugin) -> Path:
    """A bag of 3 s with pictures at 20 Hz and, at 50 Hz, what each topic's function of time and stamp makes."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        camera = contract.cameras[0]
        makers = numbers | {camera.topic: lambda time_s, stamp: BUILD.image(stamp, square(camera.size))}
        connections: dict[str, Any] = {}
        for tick in range(STEPS * 10):
            stamp = START + tick * SECOND // 100
            for topic, make in makers.items():
                if tick % (5 if topic == camera.topic else 2) == 0:
                    message = make(tick / 100, stamp)
                    kind = message.__msgtype__
                    if topic not in connections:
                        connections[topic] = writer.add_connection(f"/{topic}", kind, typestore=STORE)
                    writer.write(connections[topic], stamp + 1_000_000, STORE.serialize_cdr(message, kind))
    return path


def converted(folder: Path, contract: Contract, numbers: dict[str, Any],
              storage: StoragePlugin = StoragePlugin.MCAP) -> EpisodeDataset:
    bag = write(folder / "bag", contract, numbers, storage)
    convert([bag], folder / "out", contract, ConvertOptions())
    return EpisodeDataset.open(folder / "out")


def seconds(data: EpisodeDataset) -> np.ndarray:
    return (data.column("source.tick_ns") - START) * 1e-9


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_messages_of_the_robots_own_type(tmp_path: Path, storage: StoragePlugin) -> None:
    plain = robot(True, joint_state={"topic": "status", "type": "my_robot_msgs/msg/Status",
                                     "fields": ["arm.angle[0:7]", "grip[1]"],
                                     "joints": {"panda_joint1": {"unit": "deg"}}},
                  arm_command={"topic": "command", "type": "std_msgs/msg/Float64MultiArray", "fields": ["data[0:7]"]},
                  gripper_command={"topic": "command", "fields": ["data[7]"]})
    contract = Contract.from_dict(plain)

    def status(time_s: float, stamp: int) -> Any:
        arm = STORE.types["my_robot_msgs/msg/Arm"](angle=np.full(7, 10.0 * time_s, np.float32), mode=1)
        return STORE.types["my_robot_msgs/msg/Status"](header=BUILD.header(stamp), arm=arm, grip=np.array([9.0, 0.02]))

    def command(time_s: float, stamp: int) -> Any:
        layout = STORE.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        return STORE.types["std_msgs/msg/Float64MultiArray"](layout=layout, data=np.array([time_s] * 7 + [0.03]))

    data = converted(tmp_path, contract, {"status": status, "command": command}, storage)
    time_s = seconds(data)
    assert len(time_s) > 20 and data.instructions == ["wipe"]
    assert data.state[:, 1] == pytest.approx(10 * time_s, abs=0.21) and np.all(data.state[:, 7] == 0.5)
    assert data.state[:, 0] == pytest.approx(np.radians(data.state[:, 1]), abs=1e-6)
    assert data.action[:, 6] == pytest.approx(time_s + 0.1, abs=0.021) and np.all(data.action[:, 7] == 0.75)


@pytest.mark.parametrize("kind", ["PoseStamped", "TwistStamped"])
def test_tool_commands_of_a_robot_without_gripper(tmp_path: Path, kind: str) -> None:
    plain = robot(False, arm_command={"topic": "target", "type": f"geometry_msgs/msg/{kind}", "stamp": "header",
                                      "max_age_s": 0.5})
    plain["observations"] = [{"name": "load", "topic": "load", "type": "std_msgs/msg/Float64", "fields": ["data"],
                              "stamp": "receive", "max_age_s": 0.5, "scale": 2.0}]
    contract = Contract.from_dict(plain)
    joints = list(contract.robot.joints)

    def target(time_s: float, stamp: int) -> Any:
        quaternion = (0.0, 0.0, np.sin(time_s / 2), np.cos(time_s / 2))
        message = (pose_message((0.4 + 0.1 * time_s, 0.0, 0.3), quaternion) if kind == "PoseStamped"
                   else twist_message((0.1 + 0.01 * time_s, 0, 0), (0, 0, 0.2), "panda_link0"))
        message.header.stamp = BUILD.header(stamp).stamp
        return message

    data = converted(tmp_path, contract, {
        "target": target, "joint_states": lambda time_s, stamp: BUILD.joint_state(stamp, joints[::-1], range(7)),
        "load": lambda time_s, stamp: STORE.types["std_msgs/msg/Float64"](data=3.0)})
    assert data.contract.action_space == ("tool_pose" if kind == "PoseStamped" else "tool_twist")
    assert np.all(data.state == [*range(6, -1, -1), 6.0])
    latest_s = np.minimum(np.floor((seconds(data) + 0.1 + 1e-6) * 50) / 50, 2.98)  # the last one recorded
    for row, time_s in zip(data.action, latest_s, strict=True):
        expected = (pose_vector((0.4 + 0.1 * time_s, 0.0, 0.3), (0, 0, np.sin(time_s / 2), np.cos(time_s / 2)))
                    if kind == "PoseStamped" else np.array([0.1 + 0.01 * time_s, 0, 0, 0, 0, 0.2]))
        assert row == pytest.approx(expected, abs=1e-5)


def test_arm_and_gripper_publish_their_joint_states_apart(tmp_path: Path) -> None:
    contract = Contract.from_dict(robot(True, arm_command={"type": "sensor_msgs/msg/JointState", "topic": "leader"},
                                        gripper_command={"type": "sensor_msgs/msg/JointState", "topic": "leader"}))
    joints, finger, turn = list(contract.robot.joints), "panda_finger_joint1", iter(range(10**6))

    def states(time_s: float, stamp: int) -> Any:
        if next(turn) % 2:
            return BUILD.joint_state(stamp, [finger], [0.01])
        return BUILD.joint_state(stamp, joints, [time_s] * 7)

    data = converted(tmp_path, contract, {
        "joint_states": states,
        "leader": lambda time_s, stamp: BUILD.joint_state(stamp, [finger, *joints], [0.04, *[time_s] * 7])})
    assert np.all(data.state[:, 7] == 0.25) and np.all(data.action[:, 7] == 1.0)
    assert data.state[:, 0] == pytest.approx(seconds(data), abs=0.041)
    assert data.column("source.joint_state.age_s").max() <= 0.041
