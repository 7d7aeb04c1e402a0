"""`ros2 bag record`: subscribes raw and writes rosbag2 (MCAP or sqlite3) through rosbags.

Messages are taken from the middleware's queues a hundred times a second in one thread; their time is the
middleware's reception stamp, so the polling does not show in the bag. Every publisher numbers its messages:
gaps in those numbers are counted and reported as lost.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from bisect import bisect_right
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .graph import absolute, hidden, matched_qos, qos_from_override, ros_node
from .messages import interface, register
from .packages import UsageError

if TYPE_CHECKING:
    from rclpy.node import Node
    from rosbags.rosbag2 import Writer

QUEUE = 1000  # messages a topic may wait in the middleware: seconds of a stalled disk
POLL_S = 0.01
# Options of ROS 2's recorder that this one cannot follow, and presets of its MCAP plugin.
NEEDS_ROS = (("--storage-config-file",), ("-b", "--max-bag-size"), ("-d", "--max-bag-duration"), ("--max-bag-files",),
             ("--snapshot-mode",), ("--start-paused",), ("--services",), ("--actions",), ("--topic-types",),
             ("--include-unpublished-topics",), ("--static-topics-path",),
             ("-f", "--serialization-format"))  # fmt: skip
FOREIGN_PRESETS = ("fastwrite", "zstd_small")


@dataclass
class Track:
    """A topic that is being recorded."""

    topic: str
    type_name: str
    subscription: Any
    connection: Any
    publishers: int
    count: int = 0
    lost: int = 0
    numbers: dict[bytes, int] = field(default_factory=dict)  # last sequence number by publisher

    def note(self, info: dict[str, Any]) -> None:
        """Count a message, and those missing before it."""
        self.count += 1
        number = info.get("publication_sequence_number")
        gid = (info.get("publisher_gid") or {}).get("data")
        if not number or not gid:
            return  # this middleware does not number messages
        last = self.numbers.get(gid)
        if last is not None and number > last + 1:
            self.lost += number - last - 1
        self.numbers[gid] = max(number, last or 0)


class SimulationClock:
    """ROS time at a reception stamp, from /clock."""

    def __init__(self, node: Node) -> None:
        from rclpy.serialization import deserialize_message
        from rosgraph_msgs.msg import Clock

        self._read = lambda data: deserialize_message(data, Clock).clock
        self._kind = Clock
        self._node = node
        self._subscription: Any = None
        self._received: deque[int] = deque(maxlen=5000)
        self._ros: deque[int] = deque(maxlen=5000)

    def poll(self) -> bool:
        """Take what has arrived; True once the clock runs. Subscribes when there is somebody to match."""
        if self._subscription is None:
            offered = [info.qos_profile for info in self._node.get_publishers_info_by_topic("/clock")]
            if not offered:
                return False
            qos = matched_qos(offered, QUEUE)
            self._subscription = self._node.create_subscription(self._kind, "/clock", lambda _: None, qos, raw=True)
        while taken := self._subscription.handle.take_message(self._kind, True):
            stamp = self._read(taken[0])
            self._received.append(taken[1]["received_timestamp"])
            self._ros.append(stamp.sec * 1_000_000_000 + stamp.nanosec)
        return bool(self._ros)

    def at(self, received_ns: int) -> int:
        """ROS time [ns] of the newest clock message that was there at the given system time."""
        index = bisect_right(self._received, received_ns) - 1
        return self._ros[max(index, 0)]


class Recorder:
    """Discovers topics, takes messages, writes them."""

    def __init__(self, node: Node, writer: Writer, args: argparse.Namespace, overrides: dict[str, Any]) -> None:
        self.node, self.writer, self.args, self.overrides = node, writer, args, overrides
        self.wanted = [absolute(topic) for topic in [*args.topics_positional, *args.topics]]
        self.pattern = re.compile(args.regex) if args.regex else None
        self.exclude = re.compile(args.exclude_regex) if args.exclude_regex else None
        self.tracks: dict[str, Track] = {}
        self.refused: set[str] = set()
        self.clock = SimulationClock(node) if args.use_sim_time else None

    def say(self, text: str, level: str = "INFO") -> None:
        """A line in the form of a ROS logger. That nobody reads it any more must not cost the bag."""
        with suppress(OSError):
            print(f"[{level}] [{time.time():.9f}] [rosbag2_recorder]: {text}", file=sys.stderr, flush=True)

    def selects(self, topic: str) -> bool:
        """True where the command line asks for this topic."""
        if topic in self.wanted:
            return True
        if not (self.args.all or self.args.all_topics or (self.pattern and self.pattern.search(topic))):
            return False
        if hidden(topic) and not self.args.include_hidden_topics:
            return False
        return self.exclude is None or self.exclude.search(topic) is None

    def discover(self) -> None:
        """Subscribe to selected topics that have a publisher; warn of publishers that cannot be heard."""
        for topic, types in self.node.get_topic_names_and_types():
            if topic in self.refused or not self.selects(topic):
                continue
            offered = [info.qos_profile for info in self.node.get_publishers_info_by_topic(topic)]
            track = self.tracks.get(topic)
            if track is None and offered:
                try:
                    self.subscribe(topic, types, offered)
                except UsageError as error:
                    self.refused.add(topic)
                    self.say(f"Topic '{topic}' is not recorded: {error}", "ERROR")
            elif track is not None and len(offered) > track.publishers:
                track.publishers = len(offered)
                qos = track.subscription.qos_profile
                best = matched_qos(offered, QUEUE)
                if (best.reliability, best.durability) != (qos.reliability, qos.durability):
                    self.say(f"A new publisher of '{topic}' offers less than the subscription asks for; "
                             "its messages may not be recorded", "WARN")  # fmt: skip

    def subscribe(self, topic: str, types: list[str], offered: list[Any]) -> None:
        """Start recording one topic."""
        if len(types) > 1:
            raise UsageError(f"it has several types: {types}")
        kind, store = interface(types[0]), register(types[0])
        override = self.overrides.get(topic)
        qos = qos_from_override(override, QUEUE) if override else matched_qos(offered, QUEUE)
        subscription = self.node.create_subscription(kind, topic, lambda _: None, qos, raw=True)
        connection = self.writer.add_connection(
            topic, types[0], typestore=store, offered_qos_profiles=[bag_qos(profile) for profile in offered]
        )
        self.tracks[topic] = Track(topic, types[0], subscription, connection, len(offered))
        self.say(f"Subscribed to topic '{topic}'")
        if self.wanted and not (self.args.all or self.pattern) and set(self.wanted) <= set(self.tracks):
            self.say("All requested topics are subscribed")

    def drain(self) -> int:
        """Write what waits in the queues; returns the number of messages."""
        total = 0
        if self.clock is not None:
            self.clock.poll()
        for track in self.tracks.values():
            handle, kind = track.subscription.handle, track.subscription.msg_type
            while taken := handle.take_message(kind, True):
                data, info = taken
                track.note(info)
                received = info["received_timestamp"] or time.time_ns()
                self.writer.write(track.connection, self.clock.at(received) if self.clock else received, data)
                total += 1
        return total

    def run(self, stopped: list[int]) -> None:
        """Record until a signal comes or the maximum duration is over."""
        if self.clock is not None and not self.clock.poll():
            self.say("Waiting for /clock, as --use-sim-time asks for")
            while not stopped and not self.clock.poll():
                time.sleep(POLL_S)
        self.say("Listening for topics...")
        next_discovery = 0.0
        while not stopped:
            if time.monotonic() >= next_discovery:
                self.discover()
                next_discovery = time.monotonic() + self.args.polling_interval / 1000
            self.drain()
            time.sleep(POLL_S)
        self.drain()

    def report(self) -> None:
        """Counts by topic; names what was lost or never seen."""
        for track in sorted(self.tracks.values(), key=lambda t: t.topic):
            note = f", {track.lost} LOST" if track.lost else ""
            self.say(f"{track.topic}: {track.count} messages{note}", "WARN" if track.lost else "INFO")
        for topic in self.wanted:
            if topic not in self.tracks:
                self.say(f"Topic '{topic}' was asked for but had no publisher: nothing recorded", "WARN")
        lost = sum(track.lost for track in self.tracks.values())
        self.say(f"Recording stopped: {sum(track.count for track in self.tracks.values())} messages, {lost} lost")


def compress_fast(writer: Writer) -> None:
    """Compress MCAP's chunks at zstd's fastest level, as the preset does."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    storage: Any = writer.storage
    storage.compressor = partial(zstd.compress, level=1)


def bag_qos(profile: Any) -> Any:
    """QoS of a publisher in the terms of rosbags."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    def duration(value: Any) -> Any:
        return QosTime(*divmod(value.nanoseconds, 1_000_000_000))

    return Qos(
        QosHistory(int(profile.history)),
        profile.depth,
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        duration(profile.deadline),
        duration(profile.lifespan),
        QosLiveliness(int(profile.liveliness)),
        duration(profile.liveliness_lease_duration),
        profile.avoid_ros_namespace_conventions,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `ros2 bag record`."""
    parser.add_argument("topics_positional", metavar="topics", nargs="*", help="Topics to record")
    parser.add_argument("--topics", nargs="+", default=[], help="Topics to record")
    parser.add_argument("-a", "--all", action="store_true", help="Record all topics")
    parser.add_argument("--all-topics", action="store_true", help="Record all topics")
    parser.add_argument("-e", "--regex", default="", help="Record topics that contain a match")
    parser.add_argument("-x", "--exclude-regex", "--exclude", default="", help="Leave out topics that contain a match")
    parser.add_argument("--include-hidden-topics", action="store_true", help="Hidden topics too")
    parser.add_argument("-o", "--output", default="", help="Folder to create; a name with the date by default")
    parser.add_argument("-s", "--storage", choices=["mcap", "sqlite3"], default="mcap", help="Storage (default mcap)")
    parser.add_argument("--qos-profile-overrides-path", default="", help="YAML file: topic → QoS policies")
    parser.add_argument("--use-sim-time", action="store_true", help="Stamp messages with /clock")
    parser.add_argument("--max-cache-size", type=int, default=0, help="Accepted; messages wait in the middleware here")
    parser.add_argument("--storage-preset-profile", default="", metavar="PROFILE",
                        help="MCAP: none or zstd_fast; fastwrite and zstd_small need a ROS 2 installation")
    parser.add_argument("--disable-keyboard-controls", action="store_true", help="Accepted; there are none here")
    parser.add_argument("--node-name", default="rosbag2_recorder", help="Name of the recorder's node")
    for option in NEEDS_ROS:
        parser.add_argument(*option, dest=option[-1], nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-p", "--polling-interval", type=int, default=100, help="Time between discoveries [ms]")
    parser.add_argument("--compression-mode", choices=["none", "file", "message"], default="none")
    parser.add_argument("--compression-format", choices=["", "zstd"], default="")


def main(args: argparse.Namespace) -> int:
    """Record until SIGINT or SIGTERM; returns the exit code."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    chosen = bool(args.topics_positional or args.topics or args.all or args.all_topics or args.regex)
    if not chosen:
        raise UsageError("Need to specify at least one topic, --all or --regex")
    for option in NEEDS_ROS:
        if getattr(args, option[-1]) is not None:
            raise UsageError(f"{option[-1]} needs a ROS 2 installation")
    if args.storage_preset_profile in FOREIGN_PRESETS:
        raise UsageError(f"--storage-preset-profile {args.storage_preset_profile} needs a ROS 2 installation; "
                         "none and zstd_fast work here")  # fmt: skip
    if args.storage_preset_profile not in ("", "none", "zstd_fast"):
        raise UsageError(f"--storage-preset-profile is one of none, zstd_fast, {', '.join(FOREIGN_PRESETS)}")
    folder = Path(args.output or datetime.now().strftime("rosbag2_%Y_%m_%d-%H_%M_%S"))
    if folder.exists():
        print(f"[ERROR] [ros2bag]: Output folder '{folder}' already exists.", file=sys.stderr)
        return 1
    overrides: dict[str, Any] = {}
    if args.qos_profile_overrides_path:
        overrides = yaml.safe_load(Path(args.qos_profile_overrides_path).read_text()) or {}
        for values in overrides.values():
            qos_from_override(values, QUEUE)
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda seen, _: stopped.append(seen))
    plugin = StoragePlugin.MCAP if args.storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(folder, version=9, storage_plugin=plugin)
    chunks = args.storage == "mcap" and args.storage_preset_profile == "zstd_fast"
    mode = CompressionMode.STORAGE if chunks else CompressionMode[args.compression_mode.upper()]
    writer.set_compression(mode, CompressionFormat.ZSTD)
    try:
        with ros_node(args.node_name) as node, writer:
            if chunks:
                compress_fast(writer)
            recorder = Recorder(node, writer, args, overrides)
            recorder.run(stopped)
            recorder.report()
    except OSError as error:
        raise UsageError(f"recording to '{folder}' ended: {error}. The bag is incomplete, it has no index") from error
    return 0
