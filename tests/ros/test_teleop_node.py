"""teleop_node demonstrates in a running cell and marks its episodes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import rclpy
from corft_msgs.msg import EpisodeEvent
from graph import CONTRACT, NodeProcess, ros_context, running, spin_until
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def listener(ros_domain) -> Iterator[Node]:
    # Images are what slows a cell down, and the scripted operator needs none.
    with ros_context(), running("cell_node", {"contract": CONTRACT, "real_time_factor": 6.0, "image_rate_hz": 0.0}):
        node = rclpy.create_node("listener")
        yield node
        node.destroy_node()


def seconds(event: EpisodeEvent) -> float:
    return event.header.stamp.sec + event.header.stamp.nanosec * 1e-9


def test_it_records_episodes_until_enough_succeeded_and_exits(listener):
    events: list[EpisodeEvent] = []
    commands: list[JointTrajectory] = []
    subscriptions = [listener.create_subscription(EpisodeEvent, "episode_event", events.append, 50),
                     listener.create_subscription(JointTrajectory, "arm_controller/joint_trajectory",
                                                  commands.append, 50)]
    # All that a recorder listens to, so that the operator waits until it is heard.
    for message, topic in ((Float64MultiArray, "gripper_controller/commands"), (JointState, "joint_states"),
                           (Image, "front_camera/image_raw"), (Image, "wrist_camera/image_raw")):
        subscriptions.append(listener.create_subscription(message, topic, lambda _: None, 1))
    with running("teleop_node", {"contract": CONTRACT, "use_sim_time": True, "episodes": 2, "first_index": 4,
                                 "speed_min": 0.9, "speed_max": 1.0, "wait_for_recorder": True}) as operator:
        spin_until(listener, lambda: operator.process.poll() is not None, "the operator to finish", 150)
        assert operator.wait() == 0
        assert "demo 1/2 success" in operator.output
        assert "demo 2/2 success" in operator.output
    spin_until(listener, lambda: sum(event.kind == EpisodeEvent.SUCCESS for event in events) == 2
               and events[-1].kind == EpisodeEvent.STOP, "the last STOP")
    for start, outcome, stop in zip(events[::3], events[1::3], events[2::3], strict=True):
        assert start.kind == EpisodeEvent.START
        assert outcome.kind in (EpisodeEvent.SUCCESS, EpisodeEvent.FAILURE)
        assert stop.kind == EpisodeEvent.STOP
        assert start.scene_id == outcome.scene_id == stop.scene_id
        assert 3.0 < seconds(outcome) - seconds(start) < 41.0
    assert events[0].scene_id == "demo/4"
    assert events[0].instruction == "pick up the red cube and put it in the bin"
    driven_s = sum(seconds(b) - seconds(a) for a, b in zip(events[::3], events[1::3], strict=True))
    assert len(commands) > 0.7 * 10 * driven_s
    for subscription in subscriptions:
        listener.destroy_subscription(subscription)


def test_an_episode_past_its_time_limit_is_a_failure_and_a_signal_discards(listener):
    events: list[EpisodeEvent] = []
    subscription = listener.create_subscription(EpisodeEvent, "episode_event", events.append, 50)
    operator = NodeProcess("teleop_node", {"contract": CONTRACT, "use_sim_time": True, "time_limit_s": 1.0})
    spin_until(listener, lambda: sum(event.kind == EpisodeEvent.START for event in events) >= 2, "a second episode")
    assert operator.stop(signal.SIGTERM) == 0
    assert EpisodeEvent.FAILURE in [event.kind for event in events]
    assert EpisodeEvent.SUCCESS not in [event.kind for event in events]
    spin_until(listener, lambda: events[-1].kind == EpisodeEvent.STOP, "STOP after the signal")
    listener.destroy_subscription(subscription)


def test_it_waits_for_a_recorder_when_told_to(listener):
    operator = NodeProcess("teleop_node", {"contract": CONTRACT, "use_sim_time": True, "wait_for_recorder": True})
    spin_until(listener, lambda: "waiting for" in operator.output, "the operator to wait")
    assert operator.stop(signal.SIGTERM) == 0
    assert "demo" not in operator.output.split("waiting for")[-1]


def test_a_speed_range_upside_down_is_refused():
    operator = NodeProcess("teleop_node", {"contract": CONTRACT, "speed_min": 1.0, "speed_max": 0.5})
    assert operator.wait() == 2
    assert "speed_min 1.0 is above speed_max 0.5" in operator.output
