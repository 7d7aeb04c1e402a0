"""`ros2 topic list|echo|hz|pub` and `ros2 node list`."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import deque
from typing import Any

from .graph import absolute, await_condition, discover, hidden, matched_qos, qos_from_override, ros_node, topic_type
from .messages import fill, interface, to_yaml
from .packages import UsageError


def node(argv: list[str]) -> int:
    """`ros2 node list`."""
    parser = argparse.ArgumentParser(prog="ros2 node")
    parser.add_argument("command", choices=["list"])
    parser.parse_args(argv)
    with ros_node("ros2cli_standalone") as here:
        discover(here)
        names = {f"{space.rstrip('/')}/{name}" for name, space in here.get_node_names_and_namespaces()}
    print("\n".join(sorted(name for name in names if not name.endswith("/ros2cli_standalone"))))
    return 0


def topic(argv: list[str]) -> int:
    """`ros2 topic COMMAND`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ros2 topic")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="Output a list of available topics")
    listing.add_argument("-t", "--show-types", action="store_true", help="Show the topic type")
    listing.add_argument("--include-hidden-topics", action="store_true")
    echo = commands.add_parser("echo", help="Output messages from a topic")
    echo.add_argument("topic_name")
    echo.add_argument("message_type", nargs="?")
    echo.add_argument("--once", action="store_true", help="Print the first message and exit")
    echo.add_argument("--timeout", type=float, default=None, help="Give up after this time [s]")
    echo.add_argument("--field", default="", help="Print only this field, as in a.b")
    echo.add_argument("--no-arr", action="store_true", help="Don't print arrays")
    echo.add_argument("-f", "--full-length", action="store_true", help="Print all elements of arrays")
    echo.add_argument("--qos-reliability", default="", choices=["", "reliable", "best_effort"])
    echo.add_argument("--qos-durability", default="", choices=["", "volatile", "transient_local"])
    rate = commands.add_parser("hz", help="Print the average publishing rate")
    rate.add_argument("topic_name")
    rate.add_argument("-w", "--window", type=int, default=10000, help="Messages to average over")
    pub = commands.add_parser("pub", help="Publish a message to a topic")
    pub.add_argument("topic_name")
    pub.add_argument("message_type")
    pub.add_argument("values", nargs="?", default="{}", help="Fields as YAML")
    pub.add_argument("-1", "--once", action="store_true", help="Publish one message and exit")
    pub.add_argument("-t", "--times", type=int, default=0, help="Publish this number of times and exit")
    pub.add_argument("-r", "--rate", type=float, default=1.0, help="Rate [Hz]")
    pub.add_argument("-w", "--wait-matching-subscriptions", type=int, default=None)
    args = parser.parse_args(argv)
    return {"list": _list, "echo": _echo, "hz": _hz, "pub": _pub}[args.command](args)


def _list(args: argparse.Namespace) -> int:
    with ros_node("ros2cli_standalone") as here:
        discover(here)
        for name, types in sorted(here.get_topic_names_and_types()):
            if args.include_hidden_topics or not hidden(name):
                print(f"{name} [{', '.join(types)}]" if args.show_types else name)
    return 0


def _subscribe(here: Any, args: argparse.Namespace, kind: Any, name: str, depth: int) -> Any:
    offered = [info.qos_profile for info in here.get_publishers_info_by_topic(name)]
    qos = matched_qos(offered, depth)
    chosen = {key: getattr(args, f"qos_{key}", "") for key in ("reliability", "durability")}
    if any(chosen.values()):
        qos = qos_from_override({key: value or getattr(qos, key).name for key, value in chosen.items()}, depth)
    return here.create_subscription(kind, name, lambda _: None, qos)


def _field(message: Any, path: str) -> Any:
    for part in path.split(".") if path else []:
        if not hasattr(message, part):
            raise UsageError(f"invalid field '{part}': {type(message).__name__} has none of this name")
        message = getattr(message, part)
    return message


def _echo(args: argparse.Namespace) -> int:
    name = absolute(args.topic_name)
    with ros_node("ros2cli_standalone") as here:
        if args.message_type is None:
            args.message_type = topic_type(here, name, args.timeout or 3.0)
        kind = interface(args.message_type)
        await_condition(lambda: here.get_publishers_info_by_topic(name), 1.0)
        subscription = _subscribe(here, args, kind, name, 100)
        deadline = None if args.timeout is None else time.monotonic() + args.timeout
        truncate = 0 if args.no_arr else None if args.full_length else 128
        while deadline is None or time.monotonic() < deadline:
            taken = subscription.handle.take_message(kind, False)
            if taken is None:
                time.sleep(0.01)
                continue
            print(to_yaml(_field(taken[0], args.field), truncate=truncate).removesuffix("...\n") + "---", flush=True)
            if args.once:
                return 0
    if args.once:
        print(f"no message on '{name}' within {args.timeout} s", file=sys.stderr)
        return 1
    return 0


def _hz(args: argparse.Namespace) -> int:
    name = absolute(args.topic_name)
    with ros_node("ros2cli_standalone") as here:
        kind = interface(topic_type(here, name, None))
        await_condition(lambda: here.get_publishers_info_by_topic(name), 1.0)
        offered = [info.qos_profile for info in here.get_publishers_info_by_topic(name)]
        handle = here.create_subscription(kind, name, lambda _: None, matched_qos(offered, 1000), raw=True).handle
        stamps: deque[int] = deque(maxlen=args.window + 1)
        printed = 0
        while True:
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                while taken := handle.take_message(kind, True):
                    stamps.append(taken[1]["received_timestamp"])
                time.sleep(0.01)
            gaps = [(b - a) / 1e9 for a, b in zip(stamps, list(stamps)[1:], strict=False)]
            if not gaps or stamps[-1] == printed:
                print("no new messages", flush=True)
                continue
            printed = stamps[-1]
            print(f"average rate: {len(gaps) / sum(gaps):.3f}\n\tmin: {min(gaps):.3f}s max: {max(gaps):.3f}s "
                  f"std dev: {statistics.pstdev(gaps):.5f}s window: {len(gaps)}", flush=True)  # fmt: skip


def _pub(args: argparse.Namespace) -> int:
    from rclpy.duration import Duration
    from rclpy.qos import DurabilityPolicy, QoSProfile

    name, kind = absolute(args.topic_name), interface(args.message_type)
    message = fill(kind(), args.values)
    times = 1 if args.once else args.times
    matching = args.wait_matching_subscriptions
    matching = (1 if times else 0) if matching is None else matching
    with ros_node("ros2cli_standalone") as here:
        publisher = here.create_publisher(kind, name, QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        while publisher.get_subscription_count() < matching:
            print("Waiting for at least 1 matching subscription(s)...", flush=True)
            await_condition(lambda: publisher.get_subscription_count() >= matching, 1.0)
        print("publisher: beginning loop", flush=True)
        count = 0
        while not times or count < times:
            count += 1
            print(f"publishing #{count}: {message}\n", flush=True)
            publisher.publish(message)
            if not times or count < times:
                time.sleep(1.0 / args.rate)
        time.sleep(0.1)  # for subscriptions that are matched only now
        publisher.wait_for_all_acked(Duration(seconds=1))
    return 0
