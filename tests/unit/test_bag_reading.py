"""Reading recordings: message definitions, clocks, episode events."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import CONTRACT_FILE, DISCARD, FAILURE, ROOT, SECOND, START, STOP, SUCCESS, Recording, Take
from rosbags.rosbag2 import StoragePlugin
from rosbags.typesys import get_types_from_msg

from corft_core.contract import Contract
from corft_core.data.bag import Bag, BagError
from corft_core.data.clock import SourceClock
from corft_core.data.episodes import EpisodeCutter, EpisodeSpan
from corft_core.data.messages import EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE, MessageError
from corft_core.data.topics import resolve_topics

CONTRACT = Contract.load(CONTRACT_FILE)


def test_the_fallback_definition_is_the_packages() -> None:
    package = (ROOT / "ros2_ws/src/corft_msgs/msg/EpisodeEvent.msg").read_text()
    assert (get_types_from_msg(EPISODE_EVENT_DEFINITION, EPISODE_EVENT_TYPE)
            == get_types_from_msg(package, EPISODE_EVENT_TYPE))


def test_a_bag_without_definitions_is_read(tmp_path: Path) -> None:
    bag = Recording(CONTRACT, [Take(duration_s=0.5)], storage=StoragePlugin.SQLITE3, without=("front", "wrist"))
    (file,) = bag.write(tmp_path / "bag").glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM message_definitions")
    with Bag(tmp_path / "bag") as opened:
        kinds = [item.message.kind for item in opened.messages({"/episode_event"})]
        joints = next(opened.messages({"/joint_states"})).message
    assert kinds == [START, SUCCESS, STOP] and "panda_joint1" in joints.name


def test_messages_come_in_order_of_reception(tmp_path: Path) -> None:
    path = Recording(CONTRACT, [Take(duration_s=0.5)]).write(tmp_path / "bag")
    with Bag(path) as bag:
        assert bag.topics["/joint_states"] == ("sensor_msgs/msg/JointState", 75)
        times = [item.receive_ns for item in bag.messages({"/joint_states", "/front_camera/image_raw"})]
    assert times == sorted(times) and len(times) == 75 + 30


def test_two_namespaces_need_a_choice(tmp_path: Path) -> None:
    topics = {f"/{cell}/{CONTRACT.stream(name).topic}": (CONTRACT.stream(name).type, 5)
              for cell in ("a", "b")
              for name in ("joint_state", "arm_command", "gripper_command", "episode_event", "front", "wrist")}
    with pytest.raises(BagError, match="--namespace"):
        resolve_topics(CONTRACT, topics, tmp_path)
    assert resolve_topics(CONTRACT, topics, tmp_path, "b")["/b/joint_states"] == ("joint_state",)
    wrong = {topic: ("std_msgs/msg/String" if "joint_states" in topic else kind, count)
             for topic, (kind, count) in topics.items()}
    with pytest.raises(BagError, match="has type std_msgs/msg/String, the contract says sensor_msgs/msg/JointState"):
        resolve_topics(CONTRACT, wrong, tmp_path, "a")


@given(speed=st.floats(0.1, 20.0), jitter=st.lists(st.integers(0, 4_000_000), min_size=60, max_size=60),
       query=st.floats(0.0, 1.2))
@settings(max_examples=100, deadline=None)
def test_mapped_reception_never_leaves_the_reference_period(speed: float, jitter: list[int], query: float) -> None:
    clock, period = SourceClock(), 20_000_000
    wall = 1_700_000_000 * SECOND
    receive = wall
    for k, noise in enumerate(jitter):
        receive = max(receive, wall + round(k * period / speed) + noise)
        clock.observe(receive, 5 * SECOND + k * period)
    assert clock.differs
    last = 5 * SECOND + (len(jitter) - 1) * period
    stamp = clock.stamp_ns(receive + round(query * period / speed))
    assert stamp is not None and last <= stamp <= last + period


def test_equal_clocks_leave_reception_times_alone() -> None:
    clock = SourceClock()
    assert clock.stamp_ns(5) is None
    clock.observe(100 * SECOND, 99 * SECOND)
    assert clock.stamp_ns(101 * SECOND + 7) == 101 * SECOND + 7


@dataclass
class Event:
    kind: int
    instruction: str = "pick"
    scene_id: str = "s"
    operator_id: str = "o"


def cut(*events: tuple[int, int]) -> tuple[list[EpisodeSpan], EpisodeCutter]:
    cutter, spans = EpisodeCutter(), []
    for stamp_ns, kind in events:
        cutter.push(stamp_ns, Event(kind))
        if cutter.current is not None and cutter.current not in spans:
            spans.append(cutter.current)
    cutter.finish()
    return spans, cutter


@pytest.mark.parametrize(("events", "expected"), [
    ([(1, START), (5, SUCCESS), (6, STOP)], [(1, 5, "success")]),
    ([(1, START), (5, FAILURE), (6, STOP)], [(1, 5, "failure")]),
    ([(1, START), (5, SUCCESS), (6, DISCARD), (7, STOP)], [(1, 5, "discarded")]),
    ([(1, START), (5, SUCCESS), (6, FAILURE), (7, STOP)], [(1, 5, "success")]),
    ([(1, START), (6, STOP)], [(1, 6, "unlabelled")]),
    ([(1, START)], [(1, None, "unfinished")]),
    ([(1, START), (3, START), (5, SUCCESS)], [(1, None, "unfinished"), (3, 5, "success")]),
    ([(0, SUCCESS), (0, STOP), (1, START), (5, SUCCESS), (6, STOP)], [(1, 5, "success")]),
])
def test_events_cut_episodes(events: list[tuple[int, int]], expected: list[tuple[int, int | None, str]]) -> None:
    spans, _ = cut(*events)
    assert [(span.start_ns, span.end_ns, span.outcome) for span in spans] == expected
    assert all(span.closed for span in spans)


def test_stray_events_are_counted_and_unknown_kinds_refused() -> None:
    assert cut((0, SUCCESS), (1, STOP))[1].ignored == 2
    with pytest.raises(MessageError, match="kind 9"):
        cut((0, START), (1, 9))
