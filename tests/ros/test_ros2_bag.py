"""`ros2 bag record|info|play` of tools/ros2_standalone over live topics."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from corft_msgs.msg import EpisodeEvent
from graph import PATIENCE_S, spin_until
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState

pytestmark = pytest.mark.ros
TOOLS = Path(__file__).parents[2] / "tools"
BEST_EFFORT = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def start(*arguments: object) -> subprocess.Popen[str]:
    """`ros2 ARGUMENTS`, running."""
    path = os.pathsep.join([str(TOOLS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "ros2_standalone", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)  # fmt: skip


def finish(process: subprocess.Popen[str], number: int | None = None) -> tuple[int, str]:
    """Exit code and output, after a signal."""
    if number is not None:
        process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def wait(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)


def messages(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """(stamp_ns, message) by topic, read with nothing but the definitions in the bag."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([folder]) as reader:
        for connection, stamp, data in reader.messages():
            found.setdefault(connection.topic, []).append((stamp, reader.deserialize(data, connection.msgtype)))
    return found


def test_what_is_published_is_recorded_and_played_again(rclpy_context: None, tmp_path: Path) -> None:
    node = rclpy.create_node("source")
    image = node.create_publisher(Image, "bag_test/image_raw", 50)
    joints = node.create_publisher(JointState, "bag_test/joint_states", BEST_EFFORT)
    events = node.create_publisher(EpisodeEvent, "bag_test/episode_event", LATCHED)
    events.publish(EpisodeEvent(kind=EpisodeEvent.START, instruction="pick the red cube", scene_id="demo/1"))
    bag = tmp_path / "bag"
    recorder = start(
        "bag",
        "record",
        "-o",
        bag,
        "--topics",
        "/bag_test/image_raw",
        "bag_test/joint_states",
        "/bag_test/episode_event",
        "/bag_test/absent",
    )
    publishers = (image, joints, events)
    try:
        wait(lambda: all(p.get_subscription_count() for p in publishers), "the recorder to subscribe")
        before_ns = time.time_ns()
        for k in range(30):
            joints.publish(JointState(name=["panda_joint1"], position=[k / 7]))
            pixels = array.array("B", bytes([k]) * 48)
            image.publish(Image(height=4, width=4, step=12, encoding="rgb8", data=pixels))
            time.sleep(0.01)
        # Joint states are best effort; they came the same way as the image after them.
        assert image.wait_for_all_acked(Duration(seconds=PATIENCE_S))
        after_ns = time.time_ns()
    finally:
        code, output = finish(recorder, signal.SIGINT)
    assert code == 0, output
    assert " 0 lost" in output
    assert "'/bag_test/absent' was asked for but had no publisher" in output

    found = messages(bag)
    assert [m.data[0] for _, m in found["/bag_test/image_raw"]] == list(range(30))
    positions = [m.position[0] for _, m in found["/bag_test/joint_states"]]
    assert (
        positions == [k / 7 for k in range(30)][-len(positions) :]
    )  # best effort: none before readers and writers met
    assert len(positions) >= 15
    [(_, event)] = found["/bag_test/episode_event"]  # published before the recorder came: transient local
    assert (event.kind, event.instruction, event.scene_id) == (EpisodeEvent.START, "pick the red cube", "demo/1")
    stamps = [stamp for stamp, _ in found["/bag_test/image_raw"]]
    assert before_ns <= stamps[0] and stamps == sorted(stamps) and stamps[-1] <= after_ns
    info = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = {t["topic_metadata"]["name"]: t["topic_metadata"] for t in info["topics_with_message_count"]}
    assert topics["/bag_test/joint_states"]["offered_qos_profiles"][0]["reliability"] == "best_effort"
    assert topics["/bag_test/episode_event"]["type_description_hash"].startswith("RIHS01_")

    code, output = finish(start("bag", "info", bag))
    assert code == 0
    assert f"Topic: /bag_test/joint_states | Type: sensor_msgs/msg/JointState | Count: {len(positions)}" in output
    assert f"Messages:          {31 + len(positions)}" in output
    code, output = finish(start("bag", "record", "-a", "-o", bag))
    assert code == 1
    assert "already exists" in output

    for publisher in publishers:
        node.destroy_publisher(publisher)
    played: dict[str, list[Any]] = {"image": [], "event": []}
    node.create_subscription(Image, "bag_test/image_raw", played["image"].append, 50)
    node.create_subscription(EpisodeEvent, "bag_test/episode_event", played["event"].append, LATCHED)
    player = start(
        "bag", "play", bag, "--rate", "2", "--delay", "1", "--topics", "/bag_test/image_raw", "/bag_test/episode_event"
    )
    try:
        spin_until(node, lambda: len(played["image"]) == 30 and len(played["event"]) == 1, "the played messages")
        code, output = finish(player)
    finally:
        player.kill()
    assert code == 0, output
    assert "played 31 messages of 2 topics" in output
    assert [m.data[0] for m in played["image"]] == list(range(30))
    assert played["event"][0].instruction == "pick the red cube"
    node.destroy_node()


def test_simulated_time_stamps_the_bag_and_sigterm_closes_it(rclpy_context: None, tmp_path: Path) -> None:
    node = rclpy.create_node("source")
    clock = node.create_publisher(Clock, "/clock", 50)
    joints = node.create_publisher(JointState, "bag_test/arm/joint_states", 50)
    overrides = tmp_path / "qos.yaml"
    overrides.write_text("/bag_test/arm/joint_states: {reliability: best_effort, history: keep_last, depth: 7}\n")
    bag = tmp_path / "bag"
    options = ("--use-sim-time", "--qos-profile-overrides-path", overrides, "--max-cache-size", "1000", "-s", "sqlite3")
    recorder = start("bag", "record", "--regex", "bag_test/arm/j.*", "-o", bag, *options)
    now_ns = 100 * 10**9
    try:

        def advance() -> bool:
            nonlocal now_ns
            now_ns += 10**7
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(now_ns, 10**9)
            clock.publish(message)
            return joints.get_subscription_count() > 0

        wait(advance, "the recorder to subscribe")
        time.sleep(0.3)
        sent = []
        for k in range(20):
            advance()
            time.sleep(0.02)  # let the clock message be there before the joint state is
            joints.publish(JointState(position=[float(k)]))
            sent.append(now_ns)
            time.sleep(0.01)
        assert joints.wait_for_all_acked(Duration(seconds=PATIENCE_S))
    finally:
        code, output = finish(recorder, signal.SIGTERM)
    assert code == 0, output
    found = messages(bag)
    assert list(found) == ["/bag_test/arm/joint_states"]
    recorded = found["/bag_test/arm/joint_states"]
    assert [m.position[0] for _, m in recorded] == [float(k) for k in range(20)][-len(recorded) :]
    assert len(recorded) >= 10
    for (stamp, _), sent_ns in zip(recorded, sent[-len(recorded) :], strict=True):
        assert sent_ns - 10**7 <= stamp <= sent_ns  # one clock message may be late or lost
    node.destroy_node()


def test_the_preset_compresses_chunks_and_what_needs_ros_2_says_so(rclpy_context: None, tmp_path: Path) -> None:
    node = rclpy.create_node("source")
    image = node.create_publisher(Image, "bag_test/image_raw", 50)
    sizes = {}
    for preset in ("none", "zstd_fast"):
        bag = tmp_path / preset
        recorder = start("bag", "record", "/bag_test/image_raw", "-o", bag, "--storage-preset-profile", preset,
                         "--max-cache-size", "1000000", "--disable-keyboard-controls")  # fmt: skip
        try:
            wait(lambda: image.get_subscription_count() > 0, "the recorder to subscribe")
            for _ in range(20):
                pixels = array.array("B", bytes(30000))
                image.publish(Image(height=100, width=100, step=300, encoding="rgb8", data=pixels))
                time.sleep(0.01)
            assert image.wait_for_all_acked(Duration(seconds=PATIENCE_S))
        finally:
            code, output = finish(recorder, signal.SIGINT)
        assert code == 0, output
        assert len(messages(bag)["/bag_test/image_raw"]) == 20
        sizes[preset] = sum(file.stat().st_size for file in bag.glob("*.mcap"))
        wait(lambda: image.get_subscription_count() == 0, "the recorder to be gone")
    assert sizes["zstd_fast"] < sizes["none"] / 10
    foreign = (("--storage-preset-profile", "fastwrite"), ("--max-bag-size", "1000"), ("--storage-config-file", "x"))
    for options in foreign:
        code, output = finish(start("bag", "record", "-a", "-o", tmp_path / "other", *options))
        assert code == 1
        assert "needs a ROS 2 installation" in output
    node.destroy_node()


def test_messages_that_never_arrived_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from ros2_standalone.bag_record import Track

    track = Track("/x", "std_msgs/msg/Bool", None, None, 2)
    for gid, number in ((b"a", 5), (b"a", 6), (b"b", 1), (b"a", 9), (b"b", 2)):
        track.note({"publication_sequence_number": number, "publisher_gid": {"data": gid}})
    assert (track.count, track.lost) == (5, 2)


def test_record_without_topics_and_info_of_nothing_explain_themselves(tmp_path: Path) -> None:
    code, output = finish(start("bag", "record", "-o", tmp_path / "bag"))
    assert code == 1
    assert "at least one topic" in output
    assert not (tmp_path / "bag").exists()
    code, output = finish(start("bag", "info", tmp_path / "nothing"))
    assert code == 1
    assert "Traceback" not in output
