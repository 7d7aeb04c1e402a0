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
from ros.arm_operator import SCENE
from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, PATIENCE_S, call, change_state, running, spin_until
from ros.tiny_policy import INSTRUCTIONS, make_tiny_checkpoint
from std_srvs.srv import SetBool

from corft.executor.messages import stamp_ns
from corft.policy.executor_link import continued
from corft_core.contract import Contract

pytestmark = pytest.mark.ros
SHARED = {"contract": CONTRACT, "use_sim_time": True, "chunk_mode": "rtc", "handoff_s": 0.1}
STEP_NS, OLDEST_NS = 100_000_000, 1_000_000_000


def distances_from_their_plans(chunks: list[ActionChunk], statuses: list[ExecutionStatus]) -> list[float]:
    """Of every chunk and status with a plan that it may have been made from: how far its first actions are from the
    committed ones, rad."""
    found = []
    plans = [(stamp_ns(status.header.stamp), status) for status in statuses if status.committed.points]
    for chunk in chunks:
        stamp = stamp_ns(chunk.header.stamp)
        actions = np.array([point.positions for point in chunk.trajectory.points])
        for told_ns, status in plans:
            plan = continued(status, stamp, STEP_NS, len(actions)) if stamp - OLDEST_NS < told_ns <= stamp + STEP_NS \
                else None
            if plan is not None and plan[1] > 0:
                found.append(float(np.max(np.abs(actions[:plan[1]] - plan[0][:plan[1], :7]))))
    return found


@pytest.mark.timeout(600)
def test_a_chunk_begins_with_the_actions_that_are_executed_anyway(rclpy_context: None, tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT)
    checkpoint = make_tiny_checkpoint(tmp_path / "co_rft", contract)
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
            goal = RunPolicy.Goal(instruction=INSTRUCTIONS[0], timeout=Duration(sec=150))
            sent = client.send_goal_async(goal, lambda message: feedback.append(message.feedback))
            spin_until(node, sent.done, "the goal's response")
            looked_at = 0

            def all_seen() -> bool:  # looked for only as chunks come: it takes long
                nonlocal looked_at
                if len(chunks) == looked_at:
                    return False
                looked_at = len(chunks)
                distances = distances_from_their_plans(chunks[-20:], statuses[-400:])
                return (sum(distance < 1e-3 for distance in distances) > 2
                        and any(status.frozen_steps > 0 and status.delay_steps > 0 for status in statuses)
                        and any(np.isfinite(message.queue) and message.queue > 0 for message in feedback))

            spin_until(node, all_seen, "chunks that begin with the actions that are settled", 2 * PATIENCE_S)
            sent.result().cancel_goal_async()
    finally:
        node.destroy_node()


def test_a_delay_that_no_horizon_allows_is_refused_before_anything_connects(
        rclpy_context: None, tmp_path: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "co_rft", Contract.load(CONTRACT))
    node = rclpy.create_node("rtc_check")
    try:
        with running("policy_node", {**SHARED, "checkpoint": checkpoint, "replan_steps": 10}) as policy:
            assert change_state(node, "policy_node", CONFIGURE) == [False]
            assert "real-time chunking needs delay <= execute_steps <= horizon - delay" in policy.output
    finally:
        node.destroy_node()
