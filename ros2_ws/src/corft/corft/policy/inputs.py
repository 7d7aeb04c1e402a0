"""From the robot's topics to the aligner: what policy_node listens to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import Image

from corft.node_base import message_type, qos_profile
from corft_core.contract import CameraStream, Contract
from corft_core.data.align import Aligner
from corft_core.data.images import decode_image
from corft_core.data.messages import sample_stamp_ns
from corft_core.errors import CorftError

NUMBERS_DEPTH, EVENT_DEPTH = 5, 10


class PolicyInputs:
    """Subscriptions to the contract's observation streams and episode events; ``destroy`` ends them.

    Cameras come from camera_node, cropped and resized already; everything else straight from the robot. A message
    that can't be used is logged and left out: a stream without usable ones becomes stale.
    """

    def __init__(self, node: Node, contract: Contract, aligner: Aligner, image_topic: str,
                 on_event: Callable[[Any], None]) -> None:
        self._node, self._contract, self._aligner = node, contract, aligner
        self._subscriptions: list[Subscription[Any]] = []
        for name in contract.observation_streams:
            stream = contract.stream(name)
            if isinstance(stream, CameraStream):
                self._subscriptions.append(node.create_subscription(
                    Image, image_topic.format(camera=name), self._image_reader(name), qos_profile("reliable", 1)))
            else:
                self._subscriptions.append(node.create_subscription(
                    message_type(stream.type), stream.topic, self._reader(name), qos_profile(stream.qos,
                                                                                              NUMBERS_DEPTH)))
        event = contract.episode_event
        if event is not None:
            self._subscriptions.append(node.create_subscription(
                message_type(event.type), event.topic, on_event, qos_profile(event.qos, EVENT_DEPTH)))

    def destroy(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _reader(self, name: str) -> Callable[[Any], None]:
        stream = self._contract.stream(name)

        def read(message: Any) -> None:
            stamp_ns = sample_stamp_ns(stream, message, self._node.get_clock().now().nanoseconds)
            self._push(name, stamp_ns, message)
        return read

    def _image_reader(self, name: str) -> Callable[[Image], None]:
        def read(message: Image) -> None:
            try:
                pixels = decode_image(message)  # an array tells the aligner that nothing is left to be done
            except CorftError as error:
                self._node.get_logger().error(str(error), throttle_duration_sec=2.0)
            else:
                self._push(name, Time.from_msg(message.header.stamp).nanoseconds, pixels)
        return read

    def _push(self, name: str, stamp_ns: int, sample: Any) -> None:
        try:
            self._aligner.push(name, stamp_ns, sample)
        except CorftError as error:  # another publisher's joints, say those of a gripper alone
            self._node.get_logger().warning(str(error), throttle_duration_sec=2.0)
