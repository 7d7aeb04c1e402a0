"""Processes of bench_ingest: ``camera`` publishes a camera's frames, ``policy`` takes what camera_node makes of them.

Both write what they saw as JSON when they get SIGINT.
"""

from __future__ import annotations

import array
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from corft.node_base import qos_profile
from corft.policy.inputs import PolicyInputs
from corft_core.contract import Contract
from corft_core.data.align import Aligner

RATE_HZ, HEIGHT, WIDTH, SCENES = 30, 480, 640, 30


def frames(compressed: bool, seed: int) -> list[Any]:
    """Messages with pictures of moving shapes before a textured ground; JPEGs of 80 kB."""
    generator = np.random.default_rng(seed)
    ground = cv2.resize(generator.integers(0, 255, (60, 80, 3), np.uint8), (WIDTH, HEIGHT),
                        interpolation=cv2.INTER_CUBIC)
    ground = cv2.add(ground, generator.integers(0, 6, (HEIGHT, WIDTH, 3), np.uint8))
    messages = []
    for number in range(SCENES):
        picture = ground.copy()
        cv2.circle(picture, (40 + 18 * number, 240), 60, (200, 30, 10), -1)
        if compressed:
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
            messages.append(CompressedImage(format="rgb8; jpeg compressed bgr8", data=array.array("B", data)))
        else:
            messages.append(Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH,
                                  data=array.array("B", picture.tobytes())))
    return messages


def camera(node: Any, contract: Contract, name: str, stop: threading.Event) -> dict[str, Any]:
    """Publish at 30 Hz as a driver would, best effort; stamps are the time of publication."""
    stream = contract.stream(name)
    compressed = stream.type == "sensor_msgs/msg/CompressedImage"
    messages = frames(compressed, len(name))
    publisher = node.create_publisher(type(messages[0]), stream.topic, qos_profile("sensor_data", 2))
    sent: list[int] = []
    next_s = time.monotonic()
    while not stop.wait(max(0.0, next_s - time.monotonic())):
        # A real camera does not make up for a late frame.
        next_s = max(next_s + 1 / RATE_HZ, time.monotonic())
        message = messages[len(sent) % SCENES]
        stamp_ns = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        publisher.publish(message)
        sent.append(stamp_ns)
    return {"sent": sent}


class WatchedAligner(Aligner):
    """Notes when which sample was in."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        self.received: dict[str, list[tuple[int, int]]] = {name: [] for name in contract.streams}

    def push(self, stream_name: str, stamp_ns: int, value: Any) -> None:
        super().push(stream_name, stamp_ns, value)
        self.received[stream_name].append((stamp_ns, time.time_ns()))


def policy(node: Any, contract: Contract, stop: threading.Event) -> dict[str, Any]:
    """policy_node's inputs and aligner; the observation is taken at every tick of the policy's rate."""
    aligner = WatchedAligner(contract)
    received = {stream.name: aligner.received[stream.name] for stream in contract.cameras}
    ages_s: list[float] = []
    PolicyInputs(node, contract, aligner, "camera_node/{camera}/image", lambda event: None)
    executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    while not stop.wait(contract.step_ns * 1e-9):
        observation = aligner.observation(time.time_ns())
        ages_s += [observation.ages_s[name] for name in received if name in observation.values]
    executor.shutdown()
    thread.join()
    return {"received": received, "tick_ages_s": ages_s}


def main() -> None:
    """``camera CONTRACT OUT NAME`` or ``policy CONTRACT OUT``."""
    role, contract, out, *name = sys.argv[1:]
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("_".join(["ingest", role, *name]), enable_rosout=False, start_parameter_services=False)
    result = (camera(node, Contract.load(contract), name[0], stop) if role == "camera"
              else policy(node, Contract.load(contract), stop))
    Path(out).write_text(json.dumps(result))
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
