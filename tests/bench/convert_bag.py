"""The recording that `bench_convert` converts: two cameras of 640x480 JPEG at 30 Hz, joints at 100 Hz, one episode.

The pictures are a textured scene with a moving square and sensor noise, JPEG quality 80 (33 KB a frame). Ten seconds of
them are made and repeated forth and back.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from recordings import CONTRACT_FILE, SECOND, START, STOP, SUCCESS, Messages, typestore
from rosbags.rosbag2 import StoragePlugin, Writer

from corft_core.contract import Contract

SIZE = (480, 640)
CAMERA_HZ, JOINT_HZ, COMMAND_HZ = 30, 100, 20
PICTURES = 10 * CAMERA_HZ
START_NS = 1000 * SECOND
FOLDER = Path(__file__).resolve().parents[2] / "out" / "bench" / "convert"


def contract(size: tuple[int, int] = SIZE, rate_hz: int = CAMERA_HZ) -> Contract:
    """The cell's contract with compressed cameras of ``size`` at ``rate_hz``."""
    data = Contract.load(CONTRACT_FILE).to_dict()
    for camera in data["cameras"]:
        camera |= {"type": "sensor_msgs/msg/CompressedImage", "topic": camera["topic"] + "/compressed",
                   "size": list(size)}
    return Contract.from_dict(data | {"rate_hz": rate_hz})


def pictures(camera: int) -> list[bytes]:
    """JPEG files of one camera, ten seconds."""
    file = FOLDER / f"pictures{camera}.npz"
    if not file.exists():
        random = np.random.default_rng(camera)
        y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
        light = np.stack([120 + 60 * np.sin(x / 90) + 30 * np.cos(y / 70), 110 + 50 * np.cos(x / 120 + y / 80),
                          100 + 40 * np.sin(y / 50)], -1)
        texture = cv2.GaussianBlur(random.normal(0, 40, (*SIZE, 3)), (0, 0), 2.0)
        noise = [random.normal(0, 3, (*SIZE, 3)) for _ in range(8)]
        made = []
        for k in range(PICTURES):
            frame = np.clip(light + np.roll(texture, k, axis=1) + noise[k % 8], 0, 255).astype(np.uint8)
            cv2.rectangle(frame, (100 + k, 200), (180 + k, 280), (25, 30, 220), -1)
            made.append(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].reshape(-1))
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.savez(file, *made)
    with np.load(file) as stored:
        return [stored[name].tobytes() for name in stored.files]


def picture_number(index: int) -> int:
    """Which of the pictures the ``index``-th frame shows: forth and back."""
    k = index % (2 * PICTURES)
    return k if k < PICTURES else 2 * PICTURES - 1 - k


def recording(seconds: int) -> Path:
    """The bag of ``seconds``, made when it is not there yet."""
    folder = FOLDER / f"bag{seconds}"
    if not folder.exists():
        shutil.rmtree(folder.with_suffix(".new"), ignore_errors=True)
        _write(folder.with_suffix(".new"), seconds)
        folder.with_suffix(".new").rename(folder)
    return folder


def _write(folder: Path, seconds: int) -> None:
    build, store, robot = Messages(), typestore(), contract()
    arm, home = list(robot.robot.joints), np.array(robot.robot.home_rad)
    jpegs = {camera.name: pictures(k) for k, camera in enumerate(robot.cameras)}
    image = store.types["sensor_msgs/msg/CompressedImage"]
    end_ns = seconds * SECOND

    def times(rate_hz: int, late_ns: int = 0) -> list[int]:
        return [k * SECOND // rate_hz + late_ns for k in range(seconds * rate_hz)]

    def target(at_s: float) -> Any:
        return home + 0.3 * np.sin(0.5 * at_s + np.arange(len(home)))

    order = sorted([(t, "joint_state", k) for k, t in enumerate(times(JOINT_HZ))]
                   + [(t, "arm_command", k) for k, t in enumerate(times(COMMAND_HZ, 1_000_000))]
                   + [(t, "gripper_command", k) for k, t in enumerate(times(1, 2_000_000))]
                   + [(t, c.name, k) for c in robot.cameras for k, t in enumerate(times(CAMERA_HZ))]
                   + [(0, "episode_event", START), (end_ns, "episode_event", SUCCESS),
                      (end_ns + 1, "episode_event", STOP)])
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for offset_ns, name, k in order:
            stamp_ns, at_s = START_NS + offset_ns, offset_ns * 1e-9
            if name == "joint_state":
                message = build.joint_state(stamp_ns, [*arm, "panda_finger_joint1"], [*target(at_s - 0.05), 0.04])
            elif name == "arm_command":
                message = build.trajectory(arm, [(0.05, target(at_s + 0.05)), (0.2, target(at_s + 0.2))])
            elif name == "gripper_command":
                message = build.gripper(0.04 * (k % 2))
            elif name == "episode_event":
                message = build.event(stamp_ns, k, "sort the parts", "bench/0")
            else:
                data = np.frombuffer(jpegs[name][picture_number(k)], np.uint8)
                message = image(header=build.header(stamp_ns), format="jpeg", data=data)
            if name not in connections:
                topic = "/" + robot.stream(name).topic
                connections[name] = writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connections[name], stamp_ns + 3_000_000, store.serialize_cdr(message, message.__msgtype__))
