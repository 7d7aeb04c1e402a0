"""`ros2 bag play`: publishes the messages of a bag at their recorded distances."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any

from .graph import absolute, await_condition, discover, ros_node
from .messages import interface
from .packages import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `ros2 bag play`."""
    parser.add_argument("bag_path", help="Bag to play")
    parser.add_argument("-r", "--rate", type=float, default=1.0, help="Speed (default 1)")
    parser.add_argument("--topics", nargs="+", default=[], help="Topics to play (default all)")
    parser.add_argument("-l", "--loop", action="store_true", help="Start again at the end")
    parser.add_argument("-d", "--delay", type=float, default=0.0, help="Wait before playing [s]")
    parser.add_argument("--start-offset", type=float, default=0.0, help="Skip this much of the bag [s]")
    parser.add_argument(
        "--clock", type=float, nargs="?", const=40.0, default=0.0, help="Publish /clock at this rate [Hz]"
    )


def publisher_qos(profiles: list[Any]) -> Any:
    """QoS that gives every recorded reader what the recorded publishers offered."""
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    reliable = not profiles or all(profile.reliability.name == "RELIABLE" for profile in profiles)
    kept = bool(profiles) and all(profile.durability.name == "TRANSIENT_LOCAL" for profile in profiles)
    return QoSProfile(
        depth=100,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
    )


def _sleep_until(deadline: float, stopped: list[int]) -> None:
    while not stopped and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


def _await_readers(node: Any, publishers: list[Any]) -> None:
    """Let discovery find the readers that are there, so that the first messages reach them."""
    discover(node)

    def matched(publisher: Any) -> bool:
        return bool(publisher.get_subscription_count() >= node.count_subscribers(publisher.topic_name))

    await_condition(lambda: all(matched(publisher) for publisher in publishers), 2.0)


def _play_once(node: Any, reader: Any, args: argparse.Namespace, publishers: dict[int, Any], stopped: list[int]) -> int:
    """One pass over the bag; returns the number of messages."""
    from rclpy.duration import Duration
    from rosgraph_msgs.msg import Clock

    clock = node.create_publisher(Clock, "/clock", 10) if args.clock else None
    begin_ns = reader.start_time + int(args.start_offset * 1e9)
    start, count, next_clock_ns = time.monotonic(), 0, begin_ns

    def tick(until_ns: int) -> None:
        nonlocal next_clock_ns
        while clock is not None and next_clock_ns <= until_ns and not stopped:
            _sleep_until(start + (next_clock_ns - begin_ns) / 1e9 / args.rate, stopped)
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(next_clock_ns, 1_000_000_000)
            clock.publish(message)
            next_clock_ns += int(1e9 * args.rate / args.clock)

    connections = [c for c in reader.connections if c.id in publishers]
    for connection, stamp_ns, data in reader.messages(connections, start=begin_ns):
        tick(stamp_ns)
        _sleep_until(start + (stamp_ns - begin_ns) / 1e9 / args.rate, stopped)
        if stopped:
            break
        publishers[connection.id].publish(bytes(data))
        count += 1
    for publisher in publishers.values():
        publisher.wait_for_all_acked(Duration(seconds=1))
    return count


def main(args: argparse.Namespace) -> int:
    """Play until the end or a signal; returns the exit code."""
    from rosbags.rosbag2 import Reader, ReaderError

    if args.rate <= 0:
        raise UsageError(f"--rate must be greater than 0, got {args.rate}")
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda seen, _: stopped.append(seen))
    wanted = {absolute(topic) for topic in args.topics}
    try:
        with Reader(Path(args.bag_path)) as reader, ros_node("rosbag2_player") as node:
            chosen = [c for c in reader.connections if not wanted or c.topic in wanted]
            chosen = [c for c in chosen if not (args.clock and c.topic == "/clock")]
            publishers: dict[int, Any] = {}
            for connection in chosen:
                qos = publisher_qos(getattr(connection.ext, "offered_qos_profiles", []))
                publishers[connection.id] = node.create_publisher(interface(connection.msgtype), connection.topic, qos)
            _await_readers(node, list(publishers.values()))
            _sleep_until(time.monotonic() + args.delay, stopped)
            count = 0
            while not stopped:
                count += _play_once(node, reader, args, publishers, stopped)
                if not args.loop:
                    break
    except ReaderError as error:
        raise UsageError(str(error)) from error
    print(f"[INFO] [rosbag2_player]: played {count} messages of {len(publishers)} topics", file=sys.stderr)
    return 0
