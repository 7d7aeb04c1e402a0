"""A node for one command, without signal handlers of its own, and QoS matched to publishers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .packages import UsageError

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile


@contextmanager
def ros_node(name: str) -> Iterator[Node]:
    """A node in the default context; signals stay with the caller."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, enable_rosout=False, start_parameter_services=False)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()


def await_condition(condition: Callable[[], Any], timeout_s: float, step_s: float = 0.05) -> Any:
    """First true value of a condition, or None after the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            return None
        time.sleep(step_s)


def discover(node: Node) -> None:
    """Give discovery a second to find all nodes, and up to four to find any."""
    time.sleep(1.0)
    await_condition(lambda: len(node.get_node_names()) > 1, 3.0)


def absolute(topic: str) -> str:
    """Topic name with a leading slash."""
    return topic if topic.startswith("/") else "/" + topic


def hidden(topic: str) -> bool:
    """True where a part of the name begins with an underscore."""
    return any(part.startswith("_") for part in topic.split("/"))


def topic_type(node: Node, topic: str, timeout_s: float | None = 3.0) -> str:
    """Type of a topic, waiting for it to appear. Raises UsageError."""

    def find() -> str | None:
        types = dict(node.get_topic_names_and_types()).get(topic, [])
        if len(types) > 1:
            raise UsageError(f"Cannot use '{topic}', it has more than one type: {types}")
        return types[0] if types else None

    found: str | None = await_condition(find, timeout_s if timeout_s is not None else 1e9)
    if found is None:
        raise UsageError(f"topic '{topic}' does not appear to be published yet, could not determine the type")
    return found


def matched_qos(offered: list[QoSProfile], depth: int) -> QoSProfile:
    """QoS that every publisher satisfies: reliable and transient local only where all of them are."""
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    def every(policy: Any, attribute: str) -> bool:
        return bool(offered) and all(getattr(profile, attribute) == policy for profile in offered)

    reliable = every(ReliabilityPolicy.RELIABLE, "reliability")
    kept = every(DurabilityPolicy.TRANSIENT_LOCAL, "durability")
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
    )


def qos_from_override(values: dict[str, Any], depth: int) -> QoSProfile:
    """QoS from an entry of an overrides file, with rosbag2's keys. Raises UsageError."""
    from rclpy.duration import Duration
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

    policies: dict[str, Any] = {
        "history": HistoryPolicy,
        "reliability": ReliabilityPolicy,
        "durability": DurabilityPolicy,
        "liveliness": LivelinessPolicy,
    }
    chosen: dict[str, Any] = {"depth": depth}
    for key, value in values.items():
        if key == "depth":
            chosen[key] = int(value)
        elif key in policies:
            try:
                chosen[key] = policies[key][str(value).upper()]
            except KeyError as error:
                known = [policy.name.lower() for policy in policies[key]]
                raise UsageError(f"QoS override: {key} is one of {known}, not '{value}'") from error
        elif key in ("deadline", "lifespan", "liveliness_lease_duration"):
            chosen[key] = Duration(seconds=int(value["sec"]), nanoseconds=int(value["nsec"]))
        elif key == "avoid_ros_namespace_conventions":
            chosen[key] = bool(value)
        else:
            raise UsageError(f"QoS override: unknown policy '{key}'")
    if chosen.get("history") == HistoryPolicy.KEEP_ALL:
        del chosen["depth"]
    return QoSProfile(**{"history": HistoryPolicy.KEEP_LAST} | chosen)
