"""camera_node: decodes each camera once and publishes it at the size that the policy wants.

Subscribes to the contract's camera topics (Image or CompressedImage), crops and resizes as the contract says
and publishes `~/<name>/image` (rgb8) with the source stamp, or the time of reception where the contract says
`stamp: receive`. Queues are one deep: a slow machine drops frames, it never falls behind. Every frame is decoded at
once, since waiting for the policy's next tick would add age; while nobody listens only one a second is, to see that
the camera is sound. Losses, outages, rate, latency and the last good frame's age are on /diagnostics; a silent camera
is WARN after 2 s and ERROR after 10 s, and one that returns is served again.
"""

from __future__ import annotations

import array
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecyclePublisher
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image

from corft.camera_parameters import CAMERA_PARAMETERS
from corft.image_views import read_image
from corft.node_base import ERROR, OK, WARN, CorftLifecycleNode, Diagnosis, qos_profile
from corft.node_main import run_node
from corft.stream_health import LOST_S, SILENT_S, StreamHealth
from corft_core.contract import CameraStream
from corft_core.errors import CorftError

CHECK_S = 1.0


class CameraNode(CorftLifecycleNode):
    """See the module's docstring."""

    PARAMETERS = CAMERA_PARAMETERS

    def __init__(self) -> None:
        self._cameras: tuple[CameraStream, ...] = ()
        self._health: dict[str, StreamHealth] = {}
        self._reported: dict[str, int] = {}
        self._checked_s: dict[str, float] = {}
        self._publishers_by_camera: dict[str, LifecyclePublisher[Image]] = {}
        self._camera_subscriptions: list[Subscription[Any]] = []
        self._watchdog: Timer | None = None
        super().__init__("camera_node")

    def configure(self) -> None:
        # Heavy imports (image codecs) only once the node is really used.
        from corft_core.data.images import camera_image

        self._prepare = camera_image
        contract = self.contract_from_parameter()
        wanted = [name.strip() for name in self.param("cameras").split(",") if name.strip()]
        known = [camera.name for camera in contract.cameras]
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise CorftError(f"parameter 'cameras' names {', '.join(unknown)}, "
                             f"the contract has {', '.join(known) or 'no cameras'}")
        self._cameras = tuple(c for c in contract.cameras if not wanted or c.name in wanted)
        for camera in self._cameras:
            # Reliable serves both kinds of subscribers; with keep-last it does not block.
            self._publishers_by_camera[camera.name] = self.create_lifecycle_publisher(
                Image, f"~/{camera.name}/image", qos_profile("reliable", 2))

    def activate(self) -> None:
        self._reported.clear()
        for camera in self._cameras:
            self._health[camera.name] = StreamHealth(
                camera.name, rate_hz=self.param("expected_rate_hz"), started_s=time.monotonic())
            kind = Image if camera.type == "sensor_msgs/msg/Image" else CompressedImage
            self._camera_subscriptions.append(self.create_subscription(
                kind, camera.topic, lambda data, camera=camera: self._receive(camera, data),
                qos_profile(camera.qos, depth=1), raw=True))
        self._watchdog = self.create_timer(SILENT_S, self._report_silence,
                                           clock=Clock(clock_type=ClockType.STEADY_TIME))

    def deactivate(self) -> None:
        if self._watchdog is not None:
            self.destroy_timer(self._watchdog)
            self._watchdog = None
        for subscription in self._camera_subscriptions:
            self.destroy_subscription(subscription)
        self._camera_subscriptions.clear()

    def cleanup(self) -> None:
        for publisher in self._publishers_by_camera.values():
            self.destroy_lifecycle_publisher(publisher)
        self._publishers_by_camera.clear()
        self._health.clear()

    def _receive(self, camera: CameraStream, data: bytes) -> None:
        health, publisher = self._health[camera.name], self._publishers_by_camera[camera.name]
        now_ns = self.get_clock().now().nanoseconds
        try:
            message = read_image(data, camera.type)
            stamp_ns = now_ns if camera.stamp == "receive" else message.stamp_ns
            if publisher.get_subscription_count() or self._check_is_due(camera):
                image = rgb_message(self._prepare(message, camera))
                image.header.frame_id = message.frame_id
                image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
                publisher.publish(image)
        except (CorftError, ValueError) as error:
            health.refuse(str(error))
            self.get_logger().error(f"camera {camera.name}: {error}", throttle_duration_sec=SILENT_S)
            return
        # Latency includes decoding: it is what the policy sees.
        health.record(stamp_ns, self.get_clock().now().nanoseconds, time.monotonic())

    def _check_is_due(self, camera: CameraStream) -> bool:
        """Once a second for each camera."""
        now_s = time.monotonic()
        due = now_s - self._checked_s.get(camera.name, float("-inf")) >= CHECK_S
        if due:
            self._checked_s[camera.name] = now_s
        return due

    def _silence(self, camera: CameraStream) -> tuple[float, str]:
        silence_s = self._health[camera.name].silence_s(time.monotonic())
        topic = self.resolve_topic_name(camera.topic)
        publishers = self.count_publishers(topic)
        hint = f"{publishers} publisher(s), none heard; check type and QoS" if publishers else "nobody publishes it"
        return silence_s, f"waiting for {camera.name} ({topic}, {camera.type}, {hint}) since {silence_s:.0f} s"

    def _report_silence(self) -> None:
        for camera in self._cameras:
            silence_s, text = self._silence(camera)
            if silence_s >= SILENT_S:
                self.get_logger().warning(text)

    def diagnose(self) -> Iterable[Diagnosis]:
        for camera in self._cameras:
            health = self._health[camera.name]
            silence_s, text = self._silence(camera)
            if silence_s >= SILENT_S:
                level, message = (ERROR if silence_s >= LOST_S else WARN), text
            elif health.received == 0 and health.refused:
                level, message = ERROR, health.last_error
            elif health.dropped + health.refused + health.outages > self._reported.get(camera.name, 0):
                level, message = WARN, (f"{health.dropped} frames lost, {health.refused} refused, {health.outages} "
                                        "outages since activation")
            elif self._publishers_by_camera[camera.name].get_subscription_count() == 0:
                level, message = OK, "receiving; nobody listens, so one frame a second is decoded"
            else:
                level, message = OK, "receiving"
            self._reported[camera.name] = health.dropped + health.refused + health.outages
            yield Diagnosis(level, message, {
                "received": health.received, "dropped": health.dropped, "refused": health.refused,
                "outages": health.outages, "last_frame_age_s": health.age_s(self.get_clock().now().nanoseconds),
                "rate_hz": health.seen_rate_hz, "latency_p50_s": health.latency_s(0.5),
                "latency_p95_s": health.latency_s(0.95), "silence_s": silence_s,
            }, name=camera.name)


def rgb_message(pixels: NDArray[np.uint8]) -> Image:
    """An rgb8 message of pixels uint8 (H, W, 3)."""
    height, width, _ = pixels.shape
    return Image(height=height, width=width, encoding="rgb8", step=3 * width, data=array.array("B", pixels.tobytes()))


def main() -> int:
    """Entry point of `ros2 run corft camera_node`."""
    return run_node(CameraNode)


if __name__ == "__main__":
    sys.exit(main())
