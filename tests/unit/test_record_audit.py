"""The audit of a finished bag finds what is missing, late or mixed up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from corft.recording.audit import audit
from corft.recording.command import recorded_topics
from corft.recording.session import Episode
from corft_core.contract import Contract
from corft_core.data.messages import EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE

PANDA = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml"
SECOND = 1_000_000_000
STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg(EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE))
TOPICS = {topic.stream: topic for topic in recorded_topics(Contract.load(PANDA))}
T = STORE.types


def message(kind: str, stamp_ns: int):
    stamp = T["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND))
    header = T["std_msgs/msg/Header"](stamp, "")
    if kind == "sensor_msgs/msg/Image":
        return T[kind](header, 1, 1, "rgb8", 0, 3, np.zeros(3, np.uint8))
    if kind == "sensor_msgs/msg/JointState":
        return T[kind](header, ["a"], np.zeros(1), np.zeros(0), np.zeros(0))
    if kind == "trajectory_msgs/msg/JointTrajectory":
        return T[kind](header, ["a"], [])
    if kind == "std_msgs/msg/Float64MultiArray":
        return T[kind](T["std_msgs/msg/MultiArrayLayout"]([], 0), np.zeros(1))
    return T[kind](header, 0, "pick", "", "")


def record(path: Path, *, without: str = "", camera_drop: range = range(0), stamp_offset_ns: int = 0,
           jump_at: int | None = None) -> Path:
    """10 s of everything from second 100 on: 10 messages a second and topic, 3 events."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for name, topic in TOPICS.items():
            connection = writer.add_connection(topic.topic, topic.type, typestore=STORE)
            count = 0 if name == without else 3 if name == "episode_event" else 100
            for number in range(count):
                if name == "front" and number in camera_drop:
                    continue
                stamp_ns = 100 * SECOND + number * SECOND // 10
                received_ns = stamp_ns + 2_000_000 - (5 * SECOND if number == jump_at and name == "front" else 0)
                content = message(topic.type, stamp_ns + stamp_offset_ns)
                writer.write(connection, received_ns, STORE.serialize_cdr(content, topic.type))
    return path


def episode(heard: int = 50) -> Episode:
    return Episode(1, "pick", 102 * SECOND, 107 * SECOND, "success",
                   {topic.topic: heard for name, topic in TOPICS.items() if name != "episode_event"})


def check(path: Path, heard: int = 50, published: int = 100):
    topics = list(TOPICS.values())
    return audit(path, topics, [episode(heard)], 3, {topic.topic: published for topic in topics})


def test_a_sound_bag_has_no_problems(tmp_path):
    result = check(record(tmp_path / "bag"))
    assert result.problems == []
    rows = {row["stream"]: row for row in result.rows}
    assert rows["front"]["messages"] == 100 and rows["front"]["in_episodes"] == 50
    assert "1 success" in result.text()


def test_dropped_frames_and_the_gap_they_leave_are_named_with_their_episode(tmp_path):
    problems = check(record(tmp_path / "bag", camera_drop=range(40, 44))).problems
    assert any("front (/front_camera/image_raw), episode 1: 4 of 50 frames are missing" in p for p in problems)
    assert any("0.50 s without a message" in p for p in problems)
    outside = check(record(tmp_path / "other", camera_drop=range(5, 9)))
    assert outside.problems == []


def test_an_empty_topic_is_a_qos_mismatch(tmp_path):
    problems = check(record(tmp_path / "bag", without="joint_state")).problems
    assert any("100 messages were heard, none is in the bag: a QoS mismatch?" in p for p in problems)


def test_less_in_the_bag_than_was_heard_is_a_problem(tmp_path):
    problems = check(record(tmp_path / "bag"), heard=60).problems
    assert any("60 messages were heard, 50 are in the bag" in p for p in problems)


def test_missing_events_and_commands_are_problems(tmp_path):
    problems = check(record(tmp_path / "bag", without="episode_event")).problems
    assert any("/episode_event" in p for p in problems)
    problems = check(record(tmp_path / "other", without="arm_command")).problems
    assert any("arm_command (/arm_controller/joint_trajectory)" in p for p in problems)


def test_mixed_clocks_and_clock_jumps_are_problems(tmp_path):
    assert any("simulated and wall time are mixed" in p
               for p in check(record(tmp_path / "bag", stamp_offset_ns=50 * SECOND)).problems)
    assert any("went back 1 times" in p for p in check(record(tmp_path / "other", jump_at=90)).problems)


def test_discarded_episodes_are_not_judged(tmp_path):
    discarded = dataclasses.replace(episode(), outcome="discard", heard={})
    result = audit(record(tmp_path / "bag", camera_drop=range(40, 60)), list(TOPICS.values()), [discarded], 3, {})
    assert result.problems == []
