"""`ros2 topic|service|action|lifecycle|param` of tools/ros2_standalone against a live node."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from corft_msgs.action import RunPolicy
from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

pytestmark = pytest.mark.ros
TOOLS = Path(__file__).parents[2] / "tools"


def ros2(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `ros2 ARGUMENTS`."""
    path = os.pathsep.join([str(TOOLS), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", "ros2_standalone", *arguments], env={**os.environ, "PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
    )  # fmt: skip
    return result.returncode, result.stdout


def _enable(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
    response.success, response.message = request.data, "as asked"
    return response


def _execute(goal: ServerGoalHandle) -> RunPolicy.Result:
    goal.publish_feedback(RunPolicy.Feedback())
    goal.succeed()
    return RunPolicy.Result(reason=f"did: {goal.request.instruction}")


@pytest.fixture(scope="module", autouse=True)
def worker(ros_domain: int) -> Iterator[LifecycleNode]:
    """A lifecycle node with a parameter, a topic, a service and an action, spinning in a thread."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode("call_worker", context=context)
    node.declare_parameter("gain", 2)
    node.create_service(SetBool, "call_worker/enable", _enable)
    ActionServer(node, RunPolicy, "call_worker/run_policy", _execute)
    publisher = super(LifecycleNode, node).create_publisher(JointState, "call_worker/joint_states", 10)
    node.create_timer(0.05, lambda: publisher.publish(JointState(name=["a"], position=[1.5])))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(10)
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_topics_are_listed_and_echoed() -> None:
    code, output = ros2("topic", "list", "-t")
    assert code == 0
    assert "/call_worker/joint_states [sensor_msgs/msg/JointState]" in output.splitlines()
    assert ros2("topic", "echo", "--once", "/call_worker/joint_states", "--field", "position") == (0, "- 1.5\n---\n")
    code, output = ros2("topic", "echo", "--once", "/nobody", "--timeout", "0.2")
    assert code == 1
    assert "does not appear to be published" in output


def test_a_service_is_called() -> None:
    code, output = ros2("service", "call", "/call_worker/enable", "std_srvs/srv/SetBool", "{data: true}")
    assert code == 0
    assert "response:\nstd_srvs.srv.SetBool_Response(success=True, message='as asked')" in output
    code, output = ros2("service", "call", "/call_worker/enable", "std_srvs/srv/SetBool", "{dta: true}")
    assert code == 1
    assert "has no field 'dta'" in output


def test_a_goal_is_sent_and_followed() -> None:
    goal = (
        "call_worker/run_policy",
        "corft_msgs/action/RunPolicy",
        "{instruction: pick the red cube, timeout: {sec: 3}}",
    )
    code, output = ros2("action", "send_goal", *goal, "--feedback")
    assert code == 0
    assert "Goal accepted with ID: " in output
    assert "Feedback:\n    chunk_number: 0" in output
    assert "reason: 'did: pick the red cube'" in output
    assert output.rstrip().endswith("Goal finished with status: SUCCEEDED")


def test_lifecycle_states_are_shown_and_changed() -> None:
    assert ros2("lifecycle", "set", "/call_worker", "configure") == (0, "Transitioning successful\n")
    assert ros2("lifecycle", "get", "call_worker") == (0, "inactive [2]\n")
    code, output = ros2("lifecycle", "set", "/call_worker", "configure")
    assert code == 1
    assert "- activate [3]" in output


def test_parameters_are_read_and_set() -> None:
    assert ros2("param", "set", "/call_worker", "gain", "5") == (0, "Set parameter successful\n")
    assert ros2("param", "get", "/call_worker", "gain") == (0, "Integer value is: 5\n")
