"""The emergency stop: a topic, a service, and the topic's silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from corft.executor.stop_memory import StopMemory

TOPIC = "estop"


class EmergencyStop:
    """Calls ``changed(reason)`` when the stop is pressed (a sentence) or released by all that pressed it (empty).

    Pressed by true on the topic `estop`, by the service `~/estop`, and, where ``required``, by the topic losing its
    publisher. A late joiner hears the last word of a latched publisher. What is in ``memory`` has been pressed before
    this process began. Released is not enabled: that stays the operator's call.
    """

    def __init__(self, node: Node, required: bool, changed: Callable[[str], None], memory: StopMemory) -> None:
        self._node, self._required, self._changed, self._memory = node, required, changed, memory
        self._pressed: dict[str, str] = {}
        for source in ("topic", "service"):
            self._set(source, memory.waiting.get(source, ""))
        # Two subscriptions: a latched sample reaches a transient-local reader only, and such a reader is
        # incompatible with publishers that are not latched or only best effort.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        loose = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        # Which of them hears a publisher is no news.
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._subscriptions = [node.create_subscription(Bool, TOPIC, self._on_topic, qos, event_callbacks=quiet)
                               for qos in (latched, loose)]
        self._service = node.create_service(SetBool, "~/estop", self._on_service)

    @property
    def pressed(self) -> bool:
        """Whether anything holds the stop."""
        return bool(self._pressed)

    def poll(self) -> None:
        """To be called regularly: sees a required publisher come and go."""
        if self._required:
            lost = "" if self._node.count_publishers(TOPIC) else (
                f"nobody publishes {self._node.resolve_topic_name(TOPIC)}, and estop_required is true")
            self._set("publisher", lost)

    def destroy(self) -> None:
        """Give back what was created in the node."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_service(self._service)

    def _on_topic(self, message: Bool) -> None:
        self._given("topic", "the emergency stop is pressed (topic estop)" if message.data else "")

    def _on_service(self, request: SetBool.Request, response: SetBool.Response) -> Any:
        self._given("service", "the emergency stop was called (service estop)" if request.data else "")
        response.success = request.data or not self.pressed
        response.message = (next(iter(self._pressed.values())) if self.pressed
                            else "released; call ~/enable to let the arm move again")
        return response

    def _given(self, source: str, reason: str) -> None:
        self._set(source, reason)  # first brake
        self._memory.keep(source, reason)

    def _set(self, source: str, reason: str) -> None:
        before = self.pressed
        if reason:
            news = source not in self._pressed
            self._pressed[source] = reason
            if news:
                self._changed(reason)
        elif self._pressed.pop(source, None) is not None and before and not self._pressed:
            self._changed("")
