"""Listens to what is being recorded: raw subscriptions that are polled, without an executor.

Messages are counted, not deserialised; queues are emptied some fifty times a second from the caller's own thread.
"""

from __future__ import annotations

import importlib
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rosgraph_msgs.msg import Clock

from corft.recording.checks import Finding
from corft.recording.command import DEPTH, IMAGE_DEPTH, RecordedTopic
from corft.recording.log import Summary, TopicLog, header_stamp_ns
from corft_core.data.topics import CLOCK_TOPIC
from corft_core.errors import CorftError

RECORDER_NODE = "rosbag2_recorder"


def message_class(name: str) -> Any:
    """The Python class of ``package/msg/Type``. Raises CorftError when its package is not built here."""
    package, _, kind = name.partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind.rpartition("/")[2])
    except (ImportError, AttributeError) as error:
        raise CorftError(f"the message type {name} is not known here ({error}). Source the workspace that builds "
                         f"{package}, or correct `type` in the contract.") from error


class RecorderClock:
    """The recorder's clock [ns]: the system's, or /clock in simulated time."""

    def __init__(self, node: Node, use_sim_time: bool) -> None:
        self._received: deque[int] = deque(maxlen=5000)
        self._ros: deque[int] = deque(maxlen=5000)
        self._subscription = node.create_subscription(
            Clock, CLOCK_TOPIC, lambda _: None,
            QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT), raw=True) if use_sim_time else None

    def poll(self) -> bool:
        """Take what has arrived; whether the clock runs."""
        if self._subscription is None:
            return True
        while taken := self._subscription.handle.take_message(Clock, True):
            # builtin_interfaces/Time lies where a header's stamp would.
            self._ros.append(header_stamp_ns(taken[0]))
            self._received.append(taken[1]["received_timestamp"])
        return bool(self._ros)

    def now_ns(self) -> int:
        """The time now; 0 before the first /clock."""
        if self._subscription is None:
            return time.time_ns()
        self.poll()
        return self._ros[-1] if self._ros else 0

    def at(self, received_ns: int) -> int:
        """The time when a message with this reception stamp came."""
        if self._subscription is None:
            return received_ns
        return self._ros[max(bisect_right(self._received, received_ns) - 1, 0)] if self._ros else 0


class TopicMonitor:
    """Counts one topic's messages, heard as the recorder hears them."""

    def __init__(self, node: Node, topic: RecordedTopic, clock: RecorderClock) -> None:
        self.topic, self.log = topic, TopicLog(topic.stamped)
        self._node, self._clock = node, clock
        self._kind = message_class(topic.type)
        self._last_s = time.monotonic()
        self._listen(reliable=topic.qos != "sensor_data")

    def _listen(self, reliable: bool) -> None:
        self.qos = QoSProfile(
            depth=IMAGE_DEPTH if self.topic.camera else DEPTH, durability=DurabilityPolicy.VOLATILE,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT)
        self._subscription = self._node.create_subscription(self._kind, self.topic.topic, lambda _: None, self.qos,
                                                            raw=True)

    def match(self) -> bool:
        """Listen reliably where all publishers offer it; whether it does."""
        publishers = self._node.get_publishers_info_by_topic(self.topic.topic)
        offered = bool(publishers) and all(info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
                                           for info in publishers)
        if offered and self.qos.reliability != ReliabilityPolicy.RELIABLE:
            self._node.destroy_subscription(self._subscription)
            self._listen(reliable=True)
        return offered

    def drain(self) -> None:
        """Count what waits in the queue."""
        while taken := self._subscription.handle.take_message(self._kind, True):
            data, info = taken
            received_ns = info["received_timestamp"] or time.time_ns()
            self.log.add(self._clock.at(received_ns), header_stamp_ns(data) if self.topic.stamped else 0, len(data))
            self._last_s = time.monotonic()
            # Not every middleware numbers messages.
            number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
            if number and publisher:
                self.log.number(publisher["data"], number)

    @property
    def silence_s(self) -> float:
        """Steady time since the last message, or since the start."""
        return time.monotonic() - self._last_s

    def recent(self, seconds: float = 2.0) -> Summary:
        """The last seconds."""
        now_ns = self._clock.now_ns()
        return self.log.summary(now_ns - int(seconds * 1e9), now_ns)

    def finding(self, start_ns: int, stop_ns: int, wall_s: float) -> Finding:
        """What the checks want to know."""
        publishers = self._node.get_publishers_info_by_topic(self.topic.topic)
        checked = [qos_check_compatible(info.qos_profile, self.qos) for info in publishers]
        conflicts = tuple(f"{info.node_name}: {reason.removeprefix('ERROR: ').rstrip('; ')}"
                          for info, (level, reason) in zip(publishers, checked, strict=True)
                          if level == QoSCompatibility.ERROR)
        return Finding(self.topic, tuple(info.topic_type for info in publishers), conflicts,
                       self.log.summary(start_ns, stop_ns), self.log.bytes / wall_s)


class Monitors:
    """The monitors of all the contract's topics."""

    def __init__(self, node: Node, topics: Sequence[RecordedTopic], clock: RecorderClock) -> None:
        self._node, self.clock = node, clock
        self.all = [TopicMonitor(node, topic, clock) for topic in topics if topic.type]

    def drain(self) -> None:
        """Empty all queues."""
        self.clock.poll()
        for monitor in self.all:
            monitor.drain()

    def unpublished(self) -> list[RecordedTopic]:
        """Observation topics without any publisher."""
        return [m.topic for m in self.all if m.topic.role == "observation"
                and not self._node.count_publishers(m.topic.topic)]

    def match(self) -> set[str]:
        """The topics that are offered, and from now on heard, reliably."""
        return {monitor.topic.topic for monitor in self.all if monitor.match()}

    def published(self) -> dict[str, list[str]]:
        """Every topic with a publisher → its types. (Our own subscriptions are in the graph too.)"""
        return {name: [info.topic_type for info in publishers] for name, _ in self._node.get_topic_names_and_types()
                if (publishers := self._node.get_publishers_info_by_topic(name))}

    def unheard_by_recorder(self) -> list[str]:
        """Topics that have a publisher and to which the recorder does not listen yet."""
        return [m.topic.topic for m in self.all if self._node.count_publishers(m.topic.topic)
                and all(info.node_name != RECORDER_NODE
                        for info in self._node.get_subscriptions_info_by_topic(m.topic.topic))]
