"""camera_node over DDS: colours, sizes, stamps, losses, silence, bad input."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.time import Time
from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, DEACTIVATE, change_state, ros_context, running, spin_until
from sensor_msgs.msg import CompressedImage, Image

pytestmark = pytest.mark.ros
RED = (200, 30, 10)


@pytest.fixture(scope="module")
def contract_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Front camera raw; wrist camera compressed and cropped to its right half."""
    data = yaml.safe_load(CONTRACT.read_text())
    data["cameras"][1].update(topic="wrist_camera/image_raw/compressed", type="sensor_msgs/msg/CompressedImage",
                              crop=[0, 64, 64, 64], size=[32, 48])
    path = tmp_path_factory.mktemp("contract") / "contract.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


@pytest.fixture(scope="module")
def graph(ros_domain: int, contract_file: str) -> Iterator[Node]:
    """An active camera_node, and a node to talk to it."""
    with ros_context(), running("camera_node", {"contract": contract_file, "expected_rate_hz": 20.0}):
        node = rclpy.create_node("camera_test")
        assert change_state(node, "camera_node", CONFIGURE, ACTIVATE) == [True, True]
        yield node


class Exchange:
    """Publishes on one camera's topic and collects what camera_node makes of it."""

    def __init__(self, node: Node, kind: Any, topic: str, camera: str) -> None:
        self.node, self.images = node, []
        self.publisher = node.create_publisher(kind, topic, 10)
        self.subscription = node.create_subscription(Image, f"camera_node/{camera}/image", self.images.append, 10)
        spin_until(node, lambda: self.publisher.get_subscription_count() > 0
                   and node.count_publishers(f"camera_node/{camera}/image") > 0, "discovery")

    def send(self, message: Any, stamp_ns: int) -> Image:
        """The image that camera_node publishes for this one."""
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        message.header.frame_id = "a_camera_optical_frame"
        self.images.clear()

        def answer() -> Image | None:
            # One that was asked for again may come twice, the second time during the next call.
            return next((image for image in self.images if image.header.stamp == message.header.stamp), None)

        for _ in range(100):  # the camera topic is best effort
            self.publisher.publish(message)
            with contextlib.suppress(AssertionError):
                spin_until(self.node, answer, timeout_s=1.0)
            if (found := answer()) is not None:
                return found
        raise AssertionError("camera_node published nothing")


def pixels(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


@pytest.mark.parametrize(("encoding", "pixel"), [("rgb8", RED), ("bgr8", RED[::-1]), ("rgba8", (*RED, 255))])
def test_a_raw_image_keeps_stamp_and_colour_and_gets_the_contracts_size(
        graph: Node, encoding: str, pixel: tuple[int, ...]) -> None:
    raw = np.full((60, 80, len(pixel)), pixel, np.uint8)
    message = Image(height=60, width=80, encoding=encoding, step=80 * len(pixel), data=raw.tobytes())
    image = Exchange(graph, Image, "front_camera/image_raw", "front").send(message, 12_345_678_901)
    assert (image.encoding, image.height, image.width, image.step) == ("rgb8", 128, 128, 384)
    assert (image.header.stamp.sec, image.header.stamp.nanosec) == (12, 345_678_901)
    assert image.header.frame_id == "a_camera_optical_frame"
    assert (pixels(image) == RED).all()


def test_a_compressed_image_is_decoded_cropped_and_resized(graph: Node) -> None:
    raw = np.zeros((64, 128, 3), np.uint8)
    raw[:, 64:] = RED
    _, data = cv2.imencode(".png", raw[:, :, ::-1])
    message = CompressedImage(format="png", data=data.tobytes())
    exchange = Exchange(graph, CompressedImage, "wrist_camera/image_raw/compressed", "wrist")
    image = exchange.send(message, 10**9)
    graph.destroy_subscription(exchange.subscription)
    assert (image.height, image.width) == (32, 48)
    assert (pixels(image) == RED).all()


def test_lost_frames_an_undecodable_image_and_silence_are_reported(graph: Node) -> None:
    statuses: dict[str, Any] = {}
    since_ns = 0

    def remember(message: DiagnosticArray) -> None:
        if Time.from_msg(message.header.stamp).nanoseconds > since_ns:
            statuses.update({status.name: status for status in message.status})

    def value(camera: str, key: str) -> str:
        status = statuses.get(f"/camera_node: {camera}")
        return next((v.value for v in status.values if v.key == key), "") if status else ""

    graph.create_subscription(DiagnosticArray, "/diagnostics", remember, 10)
    exchange = Exchange(graph, Image, "front_camera/image_raw", "front")
    good = Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12))
    exchange.send(good, 50 * 10**9)
    since_ns = time.time_ns()
    statuses.clear()
    spin_until(graph, lambda: value("front", "dropped"), "diagnostics")
    before = int(value("front", "dropped"))
    exchange.send(good, 50 * 10**9 + 50_000_000)
    exchange.send(good, 50 * 10**9 + 250_000_000)  # three frames of 20 Hz are missing
    spin_until(graph, lambda: int(value("front", "dropped")) == before + 3, "three counted losses")
    exchange.publisher.publish(Image(height=2, width=2, encoding="nonsense", step=6, data=bytes(12)))
    spin_until(graph, lambda: int(value("front", "refused")) >= 1, "a refused image")
    spin_until(graph, lambda: "/camera_node: wrist" in statuses and "waiting for wrist (/wrist_camera/image_raw/"
               "compressed" in statuses["/camera_node: wrist"].message, "silence of the wrist camera")
    assert statuses["/camera_node: wrist"].level in (b"\x01", b"\x02")


def test_a_camera_that_dies_and_returns_is_an_outage_and_is_served_again(graph: Node) -> None:
    statuses: dict[str, Any] = {}
    since_ns = time.time_ns()

    def remember(message: DiagnosticArray) -> None:
        if Time.from_msg(message.header.stamp).nanoseconds > since_ns:
            statuses.update({status.name: {v.key: v.value for v in status.values} for status in message.status})

    def values() -> dict[str, str]:
        return statuses.get("/camera_node: front", {})

    graph.create_subscription(DiagnosticArray, "/diagnostics", remember, 10)

    good = Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12))
    start_ns = 500 * 10**9
    first = Exchange(graph, Image, "front_camera/image_raw", "front")
    first.send(good, start_ns)
    statuses.clear()
    since_ns = time.time_ns()  # older diagnostics that still wait here do not know of it
    spin_until(graph, lambda: "dropped" in values(), "diagnostics")
    before = dict(values())
    graph.destroy_publisher(first.publisher)
    second = Exchange(graph, Image, "front_camera/image_raw", "front")
    second.send(good, start_ns + 30 * 10**9)
    second.send(good, start_ns + 30 * 10**9 + 50_000_000)
    spin_until(graph, lambda: int(values()["outages"]) == int(before["outages"]) + 1, "the outage")
    assert values()["dropped"] == before["dropped"]
    assert float(values()["last_frame_age_s"]) > 0


def test_while_nobody_listens_frames_are_counted_but_hardly_decoded(graph: Node) -> None:
    counts: dict[str, int] = {}

    def remember(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "/camera_node: wrist":
                counts.update({v.key: int(v.value) for v in status.values if v.key in ("received", "refused")})

    subscription = graph.create_subscription(DiagnosticArray, "/diagnostics", remember, 10)
    broken = graph.create_publisher(CompressedImage, "wrist_camera/image_raw/compressed", 10)
    spin_until(graph, lambda: broken.get_subscription_count() > 0 and "refused" in counts, "discovery")
    before = dict(counts)
    spin_until(graph, lambda: graph.count_subscribers("camera_node/wrist/image") == 0, "nobody to listen")

    def send() -> bool:
        broken.publish(CompressedImage(format="jpeg", data=b"no image"))
        return counts["refused"] >= before["refused"] + 2

    spin_until(graph, send, "two checks a second apart")
    assert counts["received"] - before["received"] > 2 * (counts["refused"] - before["refused"])
    graph.destroy_subscription(subscription)


def test_it_serves_only_while_active_and_can_be_activated_again(graph: Node) -> None:
    assert change_state(graph, "camera_node", DEACTIVATE) == [True]
    spin_until(graph, lambda: graph.count_subscribers("front_camera/image_raw") == 0, "the subscription's end")
    assert change_state(graph, "camera_node", ACTIVATE) == [True]
    spin_until(graph, lambda: graph.count_subscribers("front_camera/image_raw") == 1, "a new subscription")


def test_an_unknown_camera_is_refused_at_configure(graph: Node, contract_file: str) -> None:
    with running("camera_node", {"contract": contract_file, "cameras": "front,left"}, name="other") as node:
        assert change_state(graph, "other", CONFIGURE) == [False]
        spin_until(graph, lambda: "parameter 'cameras' names left, the contract has front, wrist" in node.output)
        assert node.stop() == 0
