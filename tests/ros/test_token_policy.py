"""policy_node with a token policy: the last chunk, shifted by the steps executed since, is the first guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rclpy
from corft_msgs.msg import EpisodeEvent
from diagnostic_msgs.msg import DiagnosticArray
from ros.graph import ACTIVATE, CONFIGURE, CONTRACT, change_state, running, spin_until
from ros.test_policy_node import Operator, Robot
from ros.tiny_policy import HORIZON, INSTRUCTIONS, make_tiny_checkpoint

from corft_core.contract import Contract
from corft_core.policy.policy import Policy

pytestmark = pytest.mark.ros
CHUNKS = 5


def test_chunks_come_and_only_the_first_of_a_goal_takes_several_passes(rclpy_context: None, tmp_path: Path) -> None:
    contract = Contract.load(CONTRACT)
    checkpoint = make_tiny_checkpoint(tmp_path / "co_rft", contract, head="tokens")
    black = {camera.name: np.zeros((1, *camera.size, 3), np.uint8) for camera in contract.cameras}
    state = np.append(contract.robot.home_rad, 0.5)[None]
    assert Policy.load(checkpoint).act(black, state, [INSTRUCTIONS[0]]).forwards == 2, "without a guess"
    seen: dict[str, str] = {}

    def remember(message: DiagnosticArray) -> None:
        for status in message.status:
            if "policy_node" in status.name:
                seen.update({pair.key: pair.value for pair in status.values})

    node = rclpy.create_node("token_policy_test")
    node.create_subscription(DiagnosticArray, "/diagnostics", remember, 10)
    robot = Robot(node, contract)
    try:
        with running("policy_node", {"checkpoint": checkpoint, "contract": CONTRACT, "use_sim_time": True,
                                     "torch_threads": 1}):
            assert change_state(node, "policy_node", CONFIGURE, ACTIVATE) == [True, True]
            operator = Operator(node)
            assert operator.client.wait_for_server(60.0)
            spin_until(node, lambda: node.count_publishers("action_chunk") == 1, "discovery")
            for _ in range(2):
                handle = operator.send()
                operator.wait_for_chunks(CHUNKS)
                robot.signal(EpisodeEvent.SUCCESS)
                assert operator.result(handle).result.chunks >= CHUNKS
                assert all(len(chunk.trajectory.points) == HORIZON for chunk in operator.chunks)
            spin_until(node, lambda: int(seen.get("chunks", 0)) >= 2 * CHUNKS, "diagnostics of both goals")
            assert int(seen["forwards"]) == 1 and 1.0 < float(seen["forwards_mean"]) <= 1.0 + 1.0 / CHUNKS
            assert float(seen["kept_tokens_mean"]) >= 1.0 - 1.0 / CHUNKS
            assert 0.0 <= float(seen["fixed_tokens_mean"]) <= 1.0
    finally:
        robot.stop()
        node.destroy_node()
