"""Small real recordings for tests: rosbag2 files with embedded message definitions, written by rosbags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bag_files import Recorded, Style, write_bag
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from corft_core.contract import CameraStream, Contract

ROOT = Path(__file__).resolve().parent.parent
CONTRACT_FILE = ROOT / "ros2_ws/src/corft/config/panda_cell/contract.yaml"
START, STOP, SUCCESS, FAILURE, DISCARD = range(5)
SECOND = 1_000_000_000
RED = (220, 30, 25)


@cache
def typestore() -> Typestore:
    """ROS 2's common types and corft_msgs' EpisodeEvent from the package's own file."""
    store = get_typestore(Stores.ROS2_JAZZY)
    text = (ROOT / "ros2_ws/src/corft_msgs/msg/EpisodeEvent.msg").read_text()
    store.register(get_types_from_msg(text, "corft_msgs/msg/EpisodeEvent"))
    return store


@dataclass
class Take:
    """One episode to record; times in s from its START."""

    instruction: str = "pick the red cube"
    scene_id: str = "demo/0"
    outcome: int | None = SUCCESS
    duration_s: float = 3.0
    idle_s: float = 0.0
    stop: bool = True


def square(size: tuple[int, int], colour: tuple[int, int, int] = RED, background: int = 90) -> np.ndarray:
    """A rgb picture (h, w, 3) with a coloured square in its upper left quarter."""
    image = np.full((*size, 3), background, np.uint8)
    image[size[0] // 8 : size[0] // 2, size[1] // 8 : size[1] // 2] = colour
    return image


class Messages:
    """Builds rosbags messages by short names."""

    def __init__(self, store: Typestore | None = None) -> None:
        self.store = store or typestore()
        self.t = self.store.types

    def header(self, stamp_ns: int) -> Any:
        time = self.t["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
        return self.t["std_msgs/msg/Header"](stamp=time, frame_id="")

    def joint_state(self, stamp_ns: int, names: list[str], positions: Any) -> Any:
        values = np.asarray(positions, np.float64)
        return self.t["sensor_msgs/msg/JointState"](header=self.header(stamp_ns), name=names, position=values,
                                                    velocity=np.zeros(0), effort=np.zeros(0))

    def trajectory(self, names: list[str], points: list[tuple[float, Any]]) -> Any:
        duration, point = self.t["builtin_interfaces/msg/Duration"], self.t["trajectory_msgs/msg/JointTrajectoryPoint"]
        rows = [point(positions=np.asarray(q, np.float64), velocities=np.zeros(0), accelerations=np.zeros(0),
                      effort=np.zeros(0), time_from_start=duration(sec=int(s), nanosec=round(s % 1 * 1e9)))
                for s, q in points]
        return self.t["trajectory_msgs/msg/JointTrajectory"](header=self.header(0), joint_names=names, points=rows)

    def gripper(self, position_m: float) -> Any:
        layout = self.t["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        return self.t["std_msgs/msg/Float64MultiArray"](layout=layout, data=np.array([position_m]))

    def event(self, stamp_ns: int, kind: int, instruction: str = "", scene_id: str = "") -> Any:
        return self.t["corft_msgs/msg/EpisodeEvent"](header=self.header(stamp_ns), kind=kind, instruction=instruction,
                                                     operator_id="test", scene_id=scene_id)

    def image(self, stamp_ns: int, rgb: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> Any:
        """Image in rgb8, bgr8, rgba8 or bgra8, or CompressedImage for "jpeg" and "png"."""
        header = self.header(stamp_ns)
        if encoding in ("jpeg", "png"):
            ok, data = cv2.imencode(f".{encoding}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
            assert ok
            return self.t["sensor_msgs/msg/CompressedImage"](header=header, format=f"rgb8; {encoding} compressed bgr8",
                                                             data=np.asarray(data, np.uint8).reshape(-1))
        pixels = rgb[:, :, ::-1] if encoding.startswith("bgr") else rgb
        if encoding.endswith("a8"):
            pixels = np.concatenate([pixels, np.full((*rgb.shape[:2], 1), 255, np.uint8)], axis=2)
        height, width, channels = pixels.shape
        rows = np.pad(pixels.reshape(height, width * channels), ((0, 0), (0, padding)))
        return self.t["sensor_msgs/msg/Image"](header=header, height=height, width=width, encoding=encoding,
                                               is_bigendian=0, step=width * channels + padding,
                                               data=np.ascontiguousarray(rows).reshape(-1))


@dataclass
class Recording:
    """Writes a bag of ``takes``. Between START and its end the arm's first joint moves at 0.5 rad/s after ``idle_s``.

    ``receive_of`` maps the robot's time to the recorder's; ``drop(stream, stamp_ns)`` leaves samples out.
    """

    contract: Contract
    takes: list[Take] = field(default_factory=lambda: [Take()])
    storage: StoragePlugin = StoragePlugin.MCAP
    encoding: str = "rgb8"
    image_size: tuple[int, int] = (128, 128)
    start_ns: int = 1000 * SECOND
    receive_of: Callable[[int], int] = lambda stamp_ns: stamp_ns + 3_000_000
    drop: Callable[[str, int], bool] = lambda stream, stamp_ns: False
    joint_order: list[str] | None = None
    without: tuple[str, ...] = ()
    namespace: str = ""

    def samples(self) -> list[tuple[int, str, Any]]:
        """(stamp_ns, stream, message) of the whole recording in time order."""
        build, out = Messages(), []
        arm = list(self.contract.robot.joints)
        names = self.joint_order or ["panda_finger_joint2", *reversed(arm), "panda_finger_joint1"]
        home = dict(zip(arm, self.contract.robot.home_rad, strict=True)) | {
            "panda_finger_joint1": 0.04, "panda_finger_joint2": 0.04}
        at = self.start_ns
        for take in self.takes:
            end = at + int(take.duration_s * SECOND)

            def target(s: float, take: Take = take) -> list[float]:
                moved = 0.5 * max(0.0, s - take.idle_s)
                return [home[arm[0]] + moved, *[home[name] for name in arm[1:]]]

            events = [(0, START)] + ([(end - at, take.outcome)] if take.outcome is not None else [])
            events += [(end - at + 50_000_000, STOP)] if take.stop else []
            for offset, kind in events:
                out.append((at + offset, "episode_event",
                            build.event(at + offset, kind, take.instruction, take.scene_id)))
            last = end + SECOND // 2
            for stamp in range(at - SECOND // 2, last, SECOND // 50):
                values = dict(home)
                values[arm[0]] = target((stamp - at) * 1e-9 - 0.04)[0]  # the arm lags its command
                out.append((stamp, "joint_state", build.joint_state(stamp, names, [values[name] for name in names])))
            for stamp in range(at + 1_000_000, end, SECOND // 10):
                s = (stamp - at) * 1e-9
                points = [(0.1, target(s + 0.1)), (0.4, target(s + 0.4))]
                out.append((stamp, "arm_command", build.trajectory(arm, points)))
            out.append((at + 2_000_000, "gripper_command", build.gripper(0.04)))
            out.append(((at + end) // 2, "gripper_command", build.gripper(0.0)))
            for camera in self.contract.cameras:
                for k, stamp in enumerate(range(at - SECOND // 2, last, SECOND // 20)):
                    picture = square(self.image_size)
                    picture[-8:, :, :] = k % 250  # tells frames apart
                    out.append((stamp, camera.name, build.image(stamp, picture, self.encoding)))
            at = last + SECOND
        kept = [item for item in out if item[1] not in self.without and not self.drop(item[1], item[0])]
        return sorted(kept, key=lambda item: item[0])

    def messages(self) -> list[Recorded]:
        """The samples as the recorder receives them."""
        store, out = typestore(), []
        for stamp_ns, name, message in self.samples():
            stream = self.contract.stream(name)
            topic = "/".join(("", *filter(None, (self.namespace, stream.topic))))
            if isinstance(stream, CameraStream) and self.encoding in ("jpeg", "png"):
                topic += "/compressed"
            data = bytes(store.serialize_cdr(message, message.__msgtype__))
            out.append(Recorded(self.receive_of(stamp_ns), topic, message.__msgtype__, data))
        return out

    def write(self, path: Path, style: Style | None = None) -> Path:
        """Write the bag folder: in the given style, else as rosbags writes it."""
        store = typestore()
        if style is not None:
            return write_bag(path, self.messages(), store, style)
        with Writer(path, version=9, storage_plugin=self.storage) as writer:
            connections: dict[str, Any] = {}
            for message in self.messages():
                if message.topic not in connections:
                    connections[message.topic] = writer.add_connection(message.topic, message.type, typestore=store)
                writer.write(connections[message.topic], message.receive_ns, message.data)
        return path
