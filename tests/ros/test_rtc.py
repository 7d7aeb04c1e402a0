"""Real-time chunking in the live graph: the policy goes on from what the executor is committed to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Duration
from corft_msgs.action import RunPolicy
from corft_msgs.msg import ActionChunk, ExecutionStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from ros.arm_operator import SCENE
from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, call, change_state, running, spin_until
from ros.tiny_policy import INSTRUCTIONS, make_tiny_checkpoint
from std_srvs.srv import SetBool

from corft.executor.messages import stamp_ns
from corft.policy.executor_link import continued
from corft_core.contract import Contract

pytestmark = pytest.mark.ros
SHARED = {"contract": CONTRACT, "use_sim_time": True, "chunk_mode": "rtc", "handoff_s": 0.1}
STEP_NS = 100_000_000


def chunks_with_their_plans(node: Node, chunks: list[ActionChunk],
                            statuses: list[ExecutionStatus]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every chunk whose plan can be found among the statuses: its first actions, and the committed ones."""
    pairs = []
    for chunk in chunks:
        stamp = stamp_ns(chunk.header.stamp)
        for status in statuses:
            found = continued(status, stamp, STEP_NS, len(chunk.trajectory.points))
            if found is not None and found[1] > 0 and stamp_ns(status.header.stamp) <= stamp + STEP_NS:
                actions = np.array([point.positions for point in chunk.trajectory.points])
                pairs.append((actions[:found[1]], found[0][:found[1], :7]))
    return pairs


def test_a_chunk_begins_with_the_actions_that_are_executed_anyway(ros_domain: int, tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT)
    checkpoint = make_tiny_checkpoint(tmp_path / "co_rft", contract)
    rclpy.init()
    node = rclpy.create_node("rtc_test")
    chunks: list[ActionChunk] = []
    statuses: list[ExecutionStatus] = []
    feedback: list[Any] = []
    node.create_subscription(ActionChunk, "action_chunk", chunks.append, 100)
    node.create_subscription(ExecutionStatus, "execution_status", statuses.append, 100)
    try:
        with running("cell_node", {"contract": CONTRACT}), \
                running("executor_node", {**SHARED, "scene": SCENE}), \
                running("policy_node", {**SHARED, "checkpoint": checkpoint, "torch_threads": 1,
                                        "image_topic": "'{camera}_camera/image_raw'"}) as policy:
            for name in ("executor_node", "policy_node"):
                assert change_state(node, name, CONFIGURE, ACTIVATE) == [True, True]
            assert "steps are expected to pass until a chunk is followed" in policy.output
            spin_until(node, lambda: call(node, SetBool, "executor_node/enable", SetBool.Request(data=True)).success)
            client = ActionClient(node, RunPolicy, "run_policy")
            assert client.wait_for_server(60.0)
            goal = RunPolicy.Goal(instruction=INSTRUCTIONS[0], timeout=Duration(sec=20))
            sent = client.send_goal_async(goal, lambda message: feedback.append(message.feedback))
            spin_until(node, sent.done, "the goal's response")
            spin_until(node, lambda: len(chunks_with_their_plans(node, chunks, statuses)) > 2 and len(feedback) > 3,
                       "chunks that were made from a plan")
            sent.result().cancel_goal_async()
            distances = [np.max(np.abs(made - committed))
                         for made, committed in chunks_with_their_plans(node, chunks, statuses)]
            assert min(distances) < 1e-3, "the actions that are settled are the chunk's own"
            assert any(status.frozen_steps > 0 and status.delay_steps > 0 for status in statuses)
            assert any(np.isfinite(message.queue) and message.queue > 0 for message in feedback)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def test_a_delay_that_no_horizon_allows_is_refused_before_anything_connects(ros_domain: int, tmp_path: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "co_rft", Contract.load(CONTRACT))
    rclpy.init()
    node = rclpy.create_node("rtc_check")
    try:
        with running("policy_node", {**SHARED, "checkpoint": checkpoint, "replan_steps": 10}) as policy:
            assert change_state(node, "policy_node", CONFIGURE) == [False]
            assert "real-time chunking needs delay <= execute_steps <= horizon - delay" in policy.output
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
