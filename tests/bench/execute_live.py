"""Part of `bench_execute`: from an observation to the first new command, in the live graph.

cell_node and executor_node run as processes; a stand-in for the policy answers joint states with chunks at 10, 20 and
30 Hz and no time of its own. Latency: from the joint state's arrival here to the arrival of the trajectory.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))

SECONDS = 15.0
HORIZON = 10


def measure() -> dict[str, float]:
    """Keys ``live_<rate>hz_{p50,p95,jitter}_ms`` and ``live_<rate>hz_answered``, the share of chunks that led to a
    trajectory before the next one was sent."""
    os.environ |= {"ROS_DOMAIN_ID": str(100 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    import rclpy
    from corft_msgs.msg import ActionChunk
    from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, change_state, running, spin_for, spin_until
    from sensor_msgs.msg import JointState
    from trajectory_msgs.msg import JointTrajectory

    from corft.chunk_messages import chunk_message
    from corft.node_base import qos_profile
    from corft_core.contract import Contract

    contract = Contract.load(CONTRACT)
    home = np.array(contract.robot.home_rad)
    result: dict[str, float] = {}
    rclpy.init()
    node = rclpy.create_node("stand_in_policy")
    chunks = node.create_publisher(ActionChunk, "action_chunk", qos_profile("reliable", 1))
    sent: list[float] = []
    answers: list[tuple[int, float]] = []
    state: dict[str, Any] = {"period_s": 0.0, "next_s": 0.0, "phase_s": None}

    def joints(message: JointState) -> None:
        seen_s = time.monotonic()
        if not state["period_s"] or seen_s < state["next_s"]:
            return
        state["next_s"] = max(state["next_s"] + state["period_s"], seen_s)
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        state["phase_s"] = state["phase_s"] or stamp_ns * 1e-9
        times = stamp_ns * 1e-9 - state["phase_s"] + np.arange(1, HORIZON + 1) / contract.rate_hz
        swing = 0.25 * (1 - np.cos(times))[:, None] * np.array([1.0, 0.3, -0.5, 0.4, 0.6, 0.5, -1.0])
        actions = np.column_stack([home + swing, np.ones(HORIZON)])
        sent.append(seen_s)
        chunks.publish(chunk_message(contract, stamp_ns, actions, chunk_number=len(sent), policy_id="bench",
                                     value=float("nan"), inference_s=0.0))

    def command(_: JointTrajectory) -> None:
        if sent:
            answers.append((len(sent) - 1, time.monotonic()))

    node.create_subscription(JointState, contract.joint_state.topic, joints, qos_profile("reliable", 1))
    node.create_subscription(JointTrajectory, contract.arm_command.topic, command, qos_profile("reliable", 10))
    parameters = {"contract": CONTRACT, "use_sim_time": True, "auto_enable": True}
    try:
        with running("cell_node", {"contract": CONTRACT, "image_rate_hz": 0.0}), running("executor_node", parameters):
            assert change_state(node, "executor_node", CONFIGURE, ACTIVATE) == [True, True]
            spin_until(node, chunks.get_subscription_count, "the executor")
            for rate_hz in (10, 20, 30):
                state["period_s"] = 1.0 / rate_hz
                spin_for(node, 2.0)
                sent.clear()
                answers.clear()
                spin_for(node, SECONDS)
                state["period_s"] = 0.0
                first = dict(reversed(answers))  # of each chunk the first trajectory
                latencies_ms = np.array([(at - sent[number]) * 1e3 for number, at in first.items()])
                result |= {f"live_{rate_hz}hz_p50_ms": round(float(np.percentile(latencies_ms, 50)), 2),
                           f"live_{rate_hz}hz_p95_ms": round(float(np.percentile(latencies_ms, 95)), 2),
                           f"live_{rate_hz}hz_jitter_ms": round(float(latencies_ms.std()), 2),
                           f"live_{rate_hz}hz_answered": round(len(first) / len(sent), 3)}
                spin_for(node, 1.5)  # the arm comes to rest in the chunk's tail
                state["phase_s"] = None
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return result
