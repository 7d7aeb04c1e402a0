"""policy_node with the policy on a server: a slow and lossy network, a server that is killed, another checkpoint."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk, ExecutionStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from faults.channel import delayed
from network_relay import Relay
from policy_servers import free_port, server_process, serving
from rclpy.action import ActionClient
from rclpy.node import Node
from ros.arm_operator import SCENE
from ros.graph import (
    ACTIVATE,
    CLEANUP,
    CONFIGURE,
    CONTRACT,
    DEACTIVATE,
    call,
    change_state,
    running,
    spin_until,
)
from ros.tiny_policy import INSTRUCTIONS, make_tiny_checkpoint
from std_srvs.srv import SetBool

from corft.executor.messages import stamp_ns
from corft_core.contract import Contract
from corft_core.serving.local import LocalPolicy

pytestmark = pytest.mark.ros
SIMULATED = {"contract": CONTRACT, "use_sim_time": True}
DELAY_S = 0.2


class Graph:
    """Cell, executor and policy_node as processes, and an operator who hears them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.chunks: list[ActionChunk] = []
        self.statuses: list[ExecutionStatus] = []
        self.health: dict[str, DiagnosticStatus] = {}
        node.create_subscription(ActionChunk, "action_chunk", self.chunks.append, 100)
        node.create_subscription(ExecutionStatus, "execution_status", self.statuses.append, 100)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 100)
        self.client = ActionClient(node, RunPolicy, "run_policy")

    def _on_health(self, message: DiagnosticArray) -> None:
        self.health |= {status.name: status for status in message.status}

    def policy_value(self, key: str) -> float:
        """A number of policy_node's diagnostics."""
        values = {item.key: item.value for item in self.health["/policy_node"].values}
        return float(values.get(key, "nan"))

    def send(self) -> Any:
        """The handle of an accepted goal."""
        assert self.client.wait_for_server(60.0)
        goal = RunPolicy.Goal(instruction=INSTRUCTIONS[0], timeout=Duration(sec=600))
        sent = self.client.send_goal_async(goal)
        self.until(sent.done, "the goal's response")
        assert sent.result().accepted
        return sent.result()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        spin_until(self.node, condition, what)


@pytest.fixture
def graph(rclpy_context: None) -> Graph:
    return Graph(rclpy.create_node("server_test"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "co_rft", Contract.load(CONTRACT))


def test_the_executor_makes_up_for_the_network_with_real_time_chunking(graph: Graph, checkpoint: Path) -> None:
    rtc = {**SIMULATED, "chunk_mode": "rtc", "handoff_s": 0.1}
    with serving(LocalPolicy(checkpoint)) as server, Relay(server.address) as relay, \
            running("cell_node", {"contract": CONTRACT}), running("executor_node", {**rtc, "scene": SCENE}), \
            running("policy_node", {**rtc, "server": relay.address, "image_topic": "'{camera}_camera/image_raw'"}):
        for name in ("executor_node", "policy_node"):
            assert change_state(graph.node, name, CONFIGURE, ACTIVATE) == [True, True]
        relay.to_robot = delayed(DELAY_S, DELAY_S + 0.05, random.Random(0))
        graph.until(lambda: call(graph.node, SetBool, "executor_node/enable", SetBool.Request(data=True)).success,
                    "an enabled executor")
        handle = graph.send()
        graph.until(lambda: len(graph.chunks) >= 5 and any(
            status.frozen_steps >= 3 and status.delay_steps >= 3 for status in graph.statuses),
            "chunks that go on from what was executed while they travelled")
        for chunk in graph.chunks:
            assert chunk.inference_time.nanosec * 1e-9 + chunk.inference_time.sec >= DELAY_S
            assert stamp_ns(chunk.header.stamp) % 100_000_000 == stamp_ns(graph.chunks[0].header.stamp) % 100_000_000
        graph.until(lambda: graph.policy_value("transport_p50_s") >= DELAY_S, "the network's share in diagnostics")
        assert 0.0 < graph.policy_value("latency_p50_s") <= graph.policy_value("latency_p95_s")
        handle.cancel_goal_async()


def test_a_killed_server_is_waited_for_and_another_checkpoint_ends_the_goal(
        graph: Graph, checkpoint: Path, tmp_path: Path) -> None:
    other = make_tiny_checkpoint(tmp_path / "other", Contract.load(CONTRACT))
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace("tiny-test", "other-test"))
    address = f"tcp://127.0.0.1:{free_port()}"
    parameters = {**SIMULATED, "server": address, "server_timeout_s": 0.5, "server_patience_s": 60.0,
                  "image_topic": "'{camera}_camera/image_raw'"}
    with running("cell_node", {"contract": CONTRACT}), running("executor_node", {**SIMULATED, "scene": SCENE}), \
            running("policy_node", parameters) as node:
        assert change_state(graph.node, "executor_node", CONFIGURE, ACTIVATE) == [True, True]
        with server_process(checkpoint, address) as first:
            graph.until(lambda: change_state(graph.node, "policy_node", CONFIGURE)[0], "the server's greeting")
            assert change_state(graph.node, "policy_node", ACTIVATE) == [True]
            handle = graph.send()
            result = handle.get_result_async()
            graph.until(lambda: len(graph.chunks) >= 2, "chunks")
            first.kill()
            graph.until(lambda: "no chunks: no connection" in graph.health["/policy_node"].message, "a diagnosis")
            assert graph.health["/policy_node"].level == DiagnosticStatus.ERROR
        with serving(LocalPolicy(checkpoint), address):
            count = len(graph.chunks)
            graph.until(lambda: len(graph.chunks) >= count + 2, "chunks of the server that is back")
            assert not result.done()
        with serving(LocalPolicy(other), address):
            graph.until(result.done, "the goal's end")
            assert result.result().status == GoalStatus.STATUS_ABORTED
            assert "another checkpoint (other-test" in result.result().result.reason
            graph.until(lambda: "other-test" in graph.health["/policy_node"].message, "a diagnosis without a goal")
            assert change_state(graph.node, "policy_node", DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE) == [True] * 4
            graph.send()
            graph.until(lambda: graph.chunks[-1].policy_id == "other-test", "chunks of the accepted checkpoint")
        assert "Traceback" not in node.output
        assert "libtorch" not in Path(f"/proc/{node.process.pid}/maps").read_text(), "the robot's side needs no torch"
