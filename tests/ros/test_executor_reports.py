"""What the executor tells people: counted events, diagnostics, statuses of its worker, RViz markers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from corft_msgs.msg import ActionChunk
from rclpy.lifecycle import LifecycleNode
from ros.graph import CONTRACT, PATIENCE_S
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker

from corft.executor.arm_output import ArmTopic
from corft.executor.chunk_markers import GREY, HIGH, LOW, RED, ValueColour, chunk_markers, tool_path
from corft.executor.events import REPEAT_S, SAME_STOP_S, Events
from corft.executor.status import diagnosis
from corft.executor.work import ExecutorWork
from corft.node_base import WARN
from corft_core.contract import Contract
from corft_core.execution import Chunk, Command, ExecutorOptions, Reason, Refusal, Supervisor
from corft_core.planning import MotionPlanner, make_planner
from corft_core.trajectory import JointPath

pytestmark = pytest.mark.ros
ROBOT = Contract.load(CONTRACT)
HOME = np.array(ROBOT.robot.home_rad)


@pytest.fixture(scope="module")
def planner() -> Iterator[MotionPlanner]:
    planner = make_planner("embedded", ROBOT)
    yield planner
    planner.close()


def test_events_are_counted_by_what_happened_and_why_and_every_stop_is_logged() -> None:
    lines: list[str] = []
    now_s = 100.0
    events = Events(lines.append, lambda: now_s)
    late = Refusal(Reason.STALE, "the chunk is 2 s old")
    for number in (7, 8, 9):
        events.report(f"chunk {number} refused", late)
    events.report("chunk 10 cut to 4 actions", Refusal(Reason.COLLISION, "the table"))
    events.report("braking", late)
    now_s += SAME_STOP_S
    events.report("braking", late)
    events.report("braking", late)  # as with every message of a broken encoder
    assert events.counts == {"chunk refused: STALE": 3, "chunk cut to actions: COLLISION": 1, "braking: STALE": 3}
    assert lines == ["chunk 7 refused: STALE: the chunk is 2 s old", "chunk 10 cut to 4 actions: COLLISION: the table",
                     *2 * ["braking: STALE: the chunk is 2 s old"]]
    now_s += REPEAT_S
    events.report("chunk 11 refused", late)
    assert lines[-1].startswith("chunk 11 refused")
    events.clear()
    assert not events.counts


def test_diagnostics_name_the_reason_why_joint_states_cannot_be_trusted(planner: MotionPlanner) -> None:
    supervisor = Supervisor(ROBOT, planner, ExecutorOptions(), lambda command: None, lambda what, event: None)
    supervisor.tick(1_000_000_000)
    found = diagnosis(supervisor, True, None, True, {"chunk refused: STALE": 3})
    assert found.level == WARN and found.message.startswith("NO_JOINT_STATE: no joint state has arrived")
    assert found.values["chunk refused: STALE"] == 3


class Braked:
    """Stands for a node with its clock, and for a supervisor that brakes before an object at its first look."""

    nanoseconds = 1_000_000_000

    def __init__(self) -> None:
        self.event: Refusal | None = None
        self.looks = 0

    def now(self) -> Braked:
        return self

    get_clock = now

    def recheck(self, now_ns: int) -> None:
        self.looks += 1
        if self.looks == 1:
            self.event = Refusal(Reason.SCENE_CHANGED, "a visitor is in the way")

    def refuse(self, refusal: Refusal, number: int) -> None:
        self.event = refusal


def test_a_brake_before_an_object_is_published_before_the_next_chunk_is_refused() -> None:
    braked: Any = Braked()
    published: list[Reason] = []
    work = ExecutorWork(braked, ROBOT, braked, braked, False, None, lambda: published.append(braked.event.reason))
    work.recheck()
    work.chunk(ActionChunk())
    wait_until(lambda: len(published) == 2)
    work.recheck()
    wait_until(lambda: braked.looks == 2)
    work.stop()
    assert published == [Reason.SCENE_CHANGED, Reason.MALFORMED], "a look that finds nothing is no news"


def test_a_recorder_of_the_command_topic_is_no_controller(rclpy_context: None) -> None:
    node = LifecycleNode("executor")
    arm = ArmTopic(node, "arm_controller/joint_trajectory")
    others = []
    for name in ("rosbag2_recorder", "corft_record", "_ros2cli_4711"):
        others.append(rclpy.create_node(name))
        others[-1].create_subscription(JointTrajectory, "arm_controller/joint_trajectory", lambda message: None, 1)
    wait_until(lambda: node.count_subscribers("arm_controller/joint_trajectory") == len(others))
    wait_until(lambda: "nobody listens to /arm_controller/joint_trajectory" in arm.missing())  # names come later
    others.append(rclpy.create_node("arm_controller"))
    others[-1].create_subscription(JointTrajectory, "arm_controller/joint_trajectory", lambda message: None, 1)
    wait_until(lambda: arm.missing() == "")
    for each in (*others, node):
        each.destroy_node()


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_rviz_sees_a_chunk_in_the_colour_of_its_value_and_in_red_what_is_cut_off(planner: MotionPlanner) -> None:
    def strips(outcome: Command | Refusal, value: float) -> list[Marker]:
        executed, cut = tool_path(planner, Chunk(0, ROBOT.robot.joints, wanted, None, 0.1), outcome, ROBOT)
        return list(chunk_markers("panda_link0", Time(), executed, cut, colour(value)).markers)

    def rgb(marker: Marker) -> tuple[float, ...]:
        return marker.color.r, marker.color.g, marker.color.b

    colour = ValueColour()
    wanted = HOME + np.linspace(0.05, 0.5, 10)[:, None] * np.eye(7)[0]
    whole = Command("chunk", JointPath(ROBOT.robot.joints, np.arange(11) * 0.1, np.vstack([HOME, wanted])), 0, 0,
                    1_000_000_000, used=10)
    colour(0.5)
    low, nothing = strips(whole, -1.0)
    high, _ = strips(whole, 2.0)
    unknown, _ = strips(whole, float("nan"))
    assert (rgb(low), rgb(high), rgb(unknown)) == (pytest.approx(LOW), pytest.approx(HIGH), pytest.approx(GREY))
    assert (low.ns, low.action, nothing.ns, nothing.action) == ("chunk", Marker.ADD, "not executed", Marker.DELETE)

    until = JointPath(ROBOT.robot.joints, whole.path.times_s[:6], whole.path.positions[:6])
    short = replace(whole, path=until, delay_steps=1, used=4, truncated=Refusal(Reason.COLLISION, "the table"))
    executed, cut = strips(short, 0.5)
    assert rgb(cut) == pytest.approx(RED) and cut.action == Marker.ADD and rgb(executed) != pytest.approx(RED)
    tool_m = planner.poses(wanted)[:, :3, 3]
    np.testing.assert_allclose([(p.x, p.y, p.z) for p in cut.points], tool_m[4:], atol=1e-9,
                               err_msg="from where the arm stops, through the five actions that are left out")
    assert executed.points[-1] == cut.points[0]

    executed, cut = strips(Refusal(Reason.COLLISION, "the table"), 0.5)
    assert executed.action == Marker.DELETE and len(cut.points) == len(wanted) and rgb(cut) == pytest.approx(RED)
